"""Namespaces and the fork that makes them: what the child is, what the parent keeps, what a failure leaves."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import features, namespaces, pidfd, process, steps
from minikube_raw.linux.cgroups import manager

pytestmark = pytest.mark.root
InChild = Callable[..., None]


def namespace_of(kind: str, pid: int | str = "self") -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def run_child(function: Callable[[], int], flags: int = 0, cgroup_fd: int | None = None) -> int:
    """Clones, runs `function` in the child and returns its exit code."""
    pid, fd = namespaces.clone_child(flags, cgroup_fd)
    if pid == 0:
        try:
            os._exit(function())
        finally:
            os._exit(99)
    code, signal = pidfd.reap(fd)
    os.close(fd)
    assert signal == 0
    return code


def test_a_cloned_child_is_in_new_namespaces_and_the_parent_in_its_own() -> None:
    before = {kind: namespace_of(kind) for kind in ("net", "uts", "ipc", "mnt", "pid")}
    flags = 0
    for kind in before:
        flags |= namespaces.KINDS[kind]

    def child() -> int:
        return sum(namespace_of(kind) != there for kind, there in before.items()) * 10 + os.getpid()

    assert run_child(child, flags) == 51  # five new namespaces, PID 1
    assert {kind: namespace_of(kind) for kind in before} == before


def test_the_interpreter_works_in_the_child_as_after_os_fork() -> None:
    called: list[str] = []
    os.register_at_fork(after_in_child=lambda: called.append("hook"))

    def child() -> int:
        thread = threading.Thread(target=called.append, args=("thread",))  # locks and the GIL work
        thread.start()
        thread.join()
        import grp  # so does the import lock

        return 7 if grp is not None and called == ["hook", "thread"] else 8

    assert run_child(child) == 7


def test_libc_knows_the_childs_thread_id() -> None:
    """pthread calls on a stale id would signal the parent, which is why the kernel is told where libc keeps it."""
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    libc.pthread_kill.argtypes = (ctypes.c_void_p, ctypes.c_int)

    def child() -> int:
        libc.pthread_kill(libc.pthread_self(), 15)
        return 0

    pid, fd = namespaces.clone_child()
    if pid == 0:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        child()
        os._exit(99)
    assert pidfd.reap(fd) == (0, 15)
    os.close(fd)


def test_a_refused_clone_raises_and_leaves_the_parent_working() -> None:
    with pytest.raises(OSError) as refused:
        namespaces.clone_child(namespaces.CLONE_NEWUSER | namespaces.CLONE_FS)
    assert refused.value.errno == errno.EINVAL
    assert run_child(lambda: 3) == 3


def test_a_child_can_be_born_into_a_cgroup() -> None:
    group = manager(f"minikube-raw-test-{os.getpid()}")
    group.create()
    try:
        directory = group.open_unified()
        if directory is None:
            pytest.skip("this host has no unified hierarchy")
        path = f"0::/{group.path}"
        inside = run_child(lambda: int(path in Path("/proc/self/cgroup").read_text().splitlines()), cgroup_fd=directory)
        os.close(directory)
        assert inside == 1
    finally:
        group.remove()


def test_a_pinned_namespace_outlives_its_maker_and_can_be_joined(in_child: InChild, tmp_path: Path) -> None:
    pin = str(tmp_path / "net")

    def check() -> None:
        def make() -> int:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            process.set_link_up("lo")
            namespaces.pin(pin, "net")
            return 0

        assert namespaces.in_thread(make) == 0
        fd = os.open(pin, os.O_RDONLY)
        links = namespaces.in_namespace(fd, lambda: Path("/proc/thread-self/net/dev").read_text())
        assert [line.split(":")[0].strip() for line in links.splitlines()[2:]] == ["lo"]
        os.close(fd)
        with pytest.raises(FileExistsError):
            namespaces.pin(pin, "net")
        namespaces.unpin(pin)
        namespaces.unpin(pin)
        assert not os.path.exists(pin)

    in_child(check)


def test_pinning_a_kind_that_does_not_exist_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        namespaces.pin(str(tmp_path / "pin"), "nonsense")
    assert os.listdir(tmp_path) == []


def test_a_function_runs_in_another_namespace_while_the_caller_stays() -> None:
    before = namespace_of("net")
    fd = namespaces.new_namespace("net")
    steps.start_recording()
    inside = namespaces.in_namespace(fd, lambda: os.readlink("/proc/thread-self/ns/net"))
    assert inside == f"net:[{os.fstat(fd).st_ino}]"
    assert namespace_of("net", "thread-self") == before
    with pytest.raises(ZeroDivisionError):
        namespaces.in_namespace(fd, lambda: 1 // 0)
    assert "setns" in [what for _, _, what, _ in steps.stop_recording()]
    os.close(fd)


def test_a_mount_namespace_can_be_joined_by_a_thread() -> None:
    fd = namespaces.new_namespace("mnt")
    inside = namespaces.in_namespace(fd, lambda: os.readlink("/proc/thread-self/ns/mnt"))
    assert inside == f"mnt:[{os.fstat(fd).st_ino}]"
    os.close(fd)


def test_answers_of_features_are_all_off_when_forced(kernel_features: str) -> None:
    answers = features.all()
    if kernel_features == "no feature":
        assert not any(answers.values())
    else:
        assert answers["new_mount_api"] == answers["openat2"]  # 5.2 and 5.6: any kernel we run on has both
        assert features.all() == answers


def test_loopback_comes_up_without_netlink() -> None:
    fd = namespaces.new_namespace("net")

    def addresses() -> str:
        return Path("/proc/thread-self/net/fib_trie").read_text()

    def bring_up() -> tuple[str, str]:
        before = addresses()
        process.set_link_up("lo")
        return before, addresses()

    before, after = namespaces.in_namespace(fd, bring_up)
    os.close(fd)
    assert "127.0.0.1" not in before
    assert "127.0.0.1" in after
