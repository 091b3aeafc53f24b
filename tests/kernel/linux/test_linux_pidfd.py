"""Processes held by descriptor: a number that was used again is never mistaken for the process of a record."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from minikube_raw.linux import features, namespaces, pidfd

pytestmark = pytest.mark.root
InChild = Callable[..., None]


@pytest.fixture
def sleeper() -> int:
    """A child that sleeps until it is killed."""
    return fork_sleeper()


def fork_sleeper() -> int:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def test_a_recorded_process_is_found_again(sleeper: int) -> None:
    boot, pid, started = pidfd.process_identity(sleeper)
    fd = pidfd.open_process(pid, started, boot)
    assert not pidfd.has_ended(fd)
    assert pidfd.send_signal(fd, signal.SIGKILL)
    assert pidfd.has_ended(fd, 5)
    assert pidfd.reap(fd) == (0, signal.SIGKILL)
    assert not pidfd.send_signal(fd, signal.SIGKILL)
    os.close(fd)


@pytest.mark.parametrize(("started", "boot"), [(1, 0), (0, 1)], ids=["another start time", "another boot"])
def test_a_stranger_is_not_opened(sleeper: int, started: int, boot: int) -> None:
    boot_id, pid, start_time = pidfd.process_identity(sleeper)
    with pytest.raises(ProcessLookupError):
        pidfd.open_process(pid, start_time + started, boot_id + "x" * boot)
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)
    with pytest.raises(ProcessLookupError):
        pidfd.open_process(pid, start_time, boot_id)
    with pytest.raises(ProcessLookupError):
        pidfd.start_time(pid)


def test_a_process_that_got_an_old_number_is_neither_opened_nor_signalled(in_child: InChild) -> None:
    """In a PID namespace of its own the next number can be chosen, so nothing has to wrap."""

    def check() -> None:
        child = os.fork()
        if child == 0:
            os._exit(inside_new_pid_namespace())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def inside_new_pid_namespace() -> int:
        from minikube_raw.linux import mounts

        mounts.proc("/proc")
        first = fork_sleeper()
        boot, pid, started = pidfd.process_identity(first)
        held = pidfd.open_process(pid, started, boot)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        while True:  # until the clock's next tick, which is as fine as start times are
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            second = fork_sleeper()
            if second == pid and pidfd.start_time(second) != started:
                break
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)
        try:
            pidfd.open_process(pid, started, boot)
            return 2
        except ProcessLookupError:
            pass
        if pidfd.send_signal(held, signal.SIGKILL):
            return 3
        stranger = pidfd.open_process(second)
        return 4 if pidfd.has_ended(stranger, 0.05) else 0

    in_child(check, namespaces.CLONE_NEWPID)


@pytest.mark.parametrize("name", ["a b", "(", ") 1 2 3", "S 1 (x)"])
def test_the_start_time_is_read_past_any_process_name(name: str) -> None:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        Path("/proc/self/comm").write_text(name)
        os.write(tell, b"1")
        signal.pause()
    os.read(told, 1)
    hertz = os.sysconf("SC_CLK_TCK")
    age = float(Path("/proc/uptime").read_text().split()[0]) - pidfd.start_time(child) / hertz
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for fd in (told, tell):
        os.close(fd)
    assert -1 < age < 60


def test_the_exit_of_a_process_that_is_not_our_child_is_known_where_the_kernel_tells() -> None:
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(tell, str(child).encode())
        os.waitpid(child, 0)
        os._exit(0)
    grandchild = pidfd.open_process(int(os.read(told, 20)))
    assert pidfd.exit_info(grandchild) is None  # it runs
    with pytest.raises(ChildProcessError):
        pidfd.reap(grandchild)
    pidfd.send_signal(grandchild, signal.SIGTERM)
    os.waitpid(parent, 0)
    status = pidfd.exit_info(grandchild)
    for fd in (told, tell, grandchild):
        os.close(fd)
    if features.pidfd_info_exit():
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    else:
        assert status is None
