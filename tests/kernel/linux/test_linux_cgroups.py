"""cgroups on this host's real hierarchies: as they are mounted, and as if there were only v1's or only the unified one."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minikube_raw.linux import features, namespaces, pidfd, steps
from minikube_raw.linux.cgroup_mounts import Hierarchies, hierarchies
from minikube_raw.linux.cgroups import DEFAULT_DEVICES, Cgroup, DeviceRule, Limits, detect, devices, manager

pytestmark = pytest.mark.root
InChild = Callable[..., None]
MIB = 1 << 20


def layouts() -> list[str]:
    """What can be tested here: the host's layout, and each half of a hybrid one alone."""
    return ["hybrid", "v1", "v2"] if detect() == "hybrid" else [detect()]


def as_layout(name: str) -> Hierarchies:
    found = hierarchies()
    return Hierarchies(
        {} if name == "v2" else found.v1, None if name == "v1" else found.unified, found.unified_controllers
    )


@pytest.fixture(params=layouts())
def group(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A fresh cgroup two levels below the root; everything in it is killed and removed afterwards."""
    top = Cgroup(f"minikube-raw-test-{os.getpid()}", as_layout(request.param))
    below = top.child("pod")
    below.create()
    yield below
    assert top.kill_all()
    reap_all()
    top.remove()
    assert not any(os.path.exists(directory) for directory in top.directories)


def reap_all() -> None:
    """Collects the children that tests left, which were killed."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def start(group: Cgroup, program: Callable[[], None]) -> int:
    """Forks a process into the cgroup that runs `program`; returns its pid once it is in."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            group.attach(0)
            os.write(tell, b"1")
            program()
        finally:
            os._exit(0)
    os.close(tell)
    assert os.read(told, 1) == b"1"
    os.close(told)
    return child


def sleep_for_ever() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def fork_for_ever() -> None:
    """A fork bomb whose members ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            select.select([], [], [], 0.001)


def test_a_process_is_in_every_hierarchy_and_counted(group: Cgroup) -> None:
    child = start(group, sleep_for_ever)
    assert group.procs() == [child]
    assert not group.empty()
    for directory in group.directories:
        assert Path(directory, "cgroup.procs").read_text().split() == [str(child)]


def test_another_process_can_be_moved_and_one_that_ended_cannot(group: Cgroup) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    group.attach(child)
    assert group.procs() == [child]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError):
        group.attach(child)


def test_creating_and_removing_twice_is_fine_and_finds_what_exists(group: Cgroup) -> None:
    nested = group.child("a/b")
    nested.create()
    nested.create()
    assert nested.exists()
    assert group.children() == ["a"]
    group.child("a").remove()
    group.child("a").remove()
    assert not nested.exists()
    assert group.children() == []
    assert nested.empty()
    assert nested.procs(recursive=True) == []


def test_a_cgroup_with_a_living_process_is_not_removed(group: Cgroup) -> None:
    start(group, sleep_for_ever)
    with pytest.raises(OSError) as busy:
        group.remove(timeout=0.02)
    assert busy.value.errno == errno.EBUSY


def test_killing_reaches_those_below_and_returns_when_all_are_gone(group: Cgroup) -> None:
    below, beside = group.child("pod/container"), group.child("beside")
    below.create()
    beside.create()
    # None in `group` itself: with a controller enabled below it cgroup v2 allows no process there.
    children = {start(beside, sleep_for_ever), start(below, sleep_for_ever)}
    assert set(group.procs(recursive=True)) == children
    assert group.kill_all()
    assert group.empty()
    assert group.kill_all()  # again, with nobody left
    reap_all()
    below.remove()
    assert below.kill_all()  # and with the cgroup gone


def test_a_fork_bomb_is_killed_to_the_last(group: Cgroup) -> None:
    if group.set_limits(Limits(pids_limit=40)):
        pytest.skip("without a pids controller a fork bomb would leave its test")
    start(group, fork_for_ever)
    deadline = time.monotonic() + 60
    while len(group.procs()) < 40 and time.monotonic() < deadline:
        select.select([], [], [], 0.001)
    assert len(group.procs()) == 40
    assert group.kill_all()
    assert group.empty()


def test_frozen_processes_stand_still_and_go_on_when_thawed(group: Cgroup) -> None:
    told, tell = os.pipe()

    def write_for_ever() -> None:
        while True:
            os.write(tell, b".")

    start(group, write_for_ever)
    assert os.read(told, 1) == b"."
    assert group.freeze()
    os.set_blocking(told, False)
    while drained(told):
        pass
    assert select.select([told], [], [], 0.05)[0] == []
    assert group.thaw()
    assert select.select([told], [], [], 5)[0] == [told]
    assert group.kill_all()
    os.close(told)
    os.close(tell)


def drained(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1 << 20)
    except BlockingIOError:
        return b""


def test_frozen_processes_can_be_killed(group: Cgroup) -> None:
    start(group, sleep_for_ever)
    assert group.freeze()
    assert group.kill_all()


def test_waiting_ends_with_the_last_process_not_the_first(group: Cgroup) -> None:
    hold, let_go = os.pipe()

    def wait_to_be_let_go() -> None:
        os.close(let_go)
        os.read(hold, 1)

    first = start(group, lambda: None)
    os.waitpid(first, 0)
    start(group, wait_to_be_let_go)
    assert not group.wait_empty(0.02)
    os.close(let_go)
    assert group.wait_empty(5)
    os.close(hold)


def test_limits_are_in_the_kernel_and_those_it_cannot_enforce_are_named(group: Cgroup) -> None:
    limits = Limits(cpu_shares=512, cpu_quota=50_000, cpu_period=100_000, memory_limit=64 * MIB, pids_limit=7)
    not_enforced = group.set_limits(limits)
    stats = group.stats()
    assert ("memory_limit" in not_enforced) == (stats.memory_limit is None)
    assert ("pids_limit" in not_enforced) == (stats.pids is None)
    if not not_enforced:
        assert stats.memory_limit == 64 * MIB
        group.set_limits(Limits(memory_limit=128 * MIB, pids_limit=-1))  # raised past the old sum with swap
        assert group.stats().memory_limit == 128 * MIB
        group.set_limits(Limits(memory_limit=-1))
        assert group.stats().memory_limit is None


def test_a_process_over_the_memory_limit_is_killed_and_counted(group: Cgroup) -> None:
    if group.set_limits(Limits(memory_limit=16 * MIB)):
        pytest.skip("no memory controller in this hierarchy")

    def hog() -> None:
        held = [bytearray(MIB) for _ in range(64)]
        os._exit(len(held))

    child = start(group, hog)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert group.oom_kills() == 1
    assert group.stats().oom_kills == 1


def test_figures_grow_with_what_is_used(group: Cgroup) -> None:
    if group.stats().memory_usage is None:
        pytest.skip("no controllers in this hierarchy")
    told, tell = os.pipe()

    def use() -> None:
        held = b"x" * (8 * MIB)
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        os.write(tell, held[:1])
        signal.pause()

    start(group, use)
    os.read(told, 1)
    stats = group.stats()
    assert stats.pids == 1
    assert stats.cpu_usage_ns is not None
    assert stats.cpu_usage_ns >= 10_000_000
    assert stats.memory_working_set is not None
    assert stats.memory_working_set > 8 * MIB
    assert (stats.memory_peak or 0) >= (stats.memory_usage or 0) > 8 * MIB
    os.close(told)
    os.close(tell)


DEVICE_CASES = [
    pytest.param(DEFAULT_DEVICES, {"/dev/null": "rw", "/dev/zero": "rw", "/dev/kmsg": ""}, id="default"),
    pytest.param((), {"/dev/null": "", "/dev/zero": ""}, id="nothing"),
    pytest.param((DeviceRule("a"),), {"/dev/null": "rw", "/dev/kmsg": "rw"}, id="everything"),
    pytest.param((DeviceRule("c", 1, 3, "r"),), {"/dev/null": "r", "/dev/zero": ""}, id="read only"),
    pytest.param(
        (DeviceRule("c", 1, 3, "w"), DeviceRule("c", 1, 3, "r")), {"/dev/null": "rw"}, id="two rules of one device"
    ),
    pytest.param((DeviceRule("c", 1),), {"/dev/null": "rw", "/dev/zero": "rw"}, id="every minor"),
    pytest.param((DeviceRule("b", 1, 3),), {"/dev/null": ""}, id="the block device of that number"),
]


@pytest.mark.parametrize(("rules", "expected"), DEVICE_CASES)
@pytest.mark.parametrize("way", ["v1", "unified"])
def test_devices_are_allowed_alike_by_v1_and_by_programme(
    rules: tuple[DeviceRule, ...], expected: dict[str, str], way: str
) -> None:
    group = Cgroup(f"minikube-raw-devices-{os.getpid()}", hierarchies())
    group.create()
    try:
        directory = device_directory(group, way)
        for given in ((DeviceRule("c", 1, 9),), rules):  # the second call replaces the first
            (devices.write_v1 if way == "v1" else devices.attach_programme)(directory, given)
        assert answers(group, tuple(expected)) == expected
    finally:
        group.remove()


def device_directory(group: Cgroup, way: str) -> str:
    found = hierarchies()
    root = found.v1.get("devices") if way == "v1" else found.unified
    if root is None:
        pytest.skip("this host has no such hierarchy")
    return f"{root}/{group.path}"


def answers(group: Cgroup, paths: tuple[str, ...]) -> dict[str, str]:
    """Returns for each device which of r and w a process in the cgroup may open it for."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        group.attach(0)
        for path in paths:
            allowed = "".join(
                letter for letter, mode in (("r", os.O_RDONLY), ("w", os.O_WRONLY)) if may_open(path, mode)
            )
            os.write(tell, f"{path}={allowed}\n".encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    return dict(line.split("=") for line in lines)


def may_open(path: str, mode: int) -> bool:
    try:
        os.close(os.open(path, mode | os.O_NONBLOCK))
    except PermissionError:
        return False
    return True


def test_a_process_born_into_the_unified_directory_joins_without_the_host_wide_lock() -> None:
    """Writing cgroup.procs waits for a grace period of the whole host; the steps show that it is not written."""
    group = manager(f"minikube-raw-join-{os.getpid()}")
    group.create()
    directory = group.open_unified()
    told, tell = os.pipe()
    pid, process = namespaces.clone_child(0, directory)
    if pid == 0:
        steps.start_recording()
        group.attach(0)
        os.write(tell, "\n".join(subject for _, _, _, subject in steps.take()).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as pipe:
        written = pipe.read().splitlines()
    assert pidfd.reap(process) == (0, 0)
    for fd in (process, directory):
        if fd is not None:
            os.close(fd)
    group.remove()
    if directory is not None:
        assert len(written) == len(set(hierarchies().v1.values()))
        assert all(line.endswith("/tasks=0") for line in written)


def test_a_process_with_threads_is_moved_whole(group: Cgroup) -> None:
    import threading

    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        stay = threading.Event()
        threads = [threading.Thread(target=stay.wait, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        group.attach(0)
        os.write(tell, b"1")
        signal.pause()
    os.read(told, 1)
    for directory in group.directories:
        name = "cgroup.threads" if os.path.exists(f"{directory}/cgroup.threads") else "tasks"
        assert len(Path(directory, name).read_text().split()) == 4
    os.close(told)
    os.close(tell)


def test_pressure_is_read_where_the_kernel_tells(group: Cgroup) -> None:
    pressure = group.pressure("memory")
    if not features.psi():
        assert pressure == {}
    elif pressure:
        assert set(pressure) == {"some", "full"}
        assert pressure["some"].avg10 >= 0
    assert group.pressure("nonsense") == {}


def test_the_cost_of_a_cgroup_does_not_grow_with_the_host(group: Cgroup) -> None:
    """Every file that is touched belongs to the cgroup itself or to its ancestors."""
    steps.start_recording()
    other = group.child("other")
    other.create()
    other.set_limits(Limits(cpu_shares=2, pids_limit=5))
    other.remove()
    touched = [subject.split("=")[0] for _, _, _, subject in steps.stop_recording()]
    assert touched
    assert all(f"/{group.path}" in path or path.startswith(tuple(group.directories)) for path in touched)


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "a//b", "./a"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a cgroup path"):
        manager(path)


def test_a_container_sees_its_own_cgroup_as_the_root(in_child: InChild) -> None:
    group = manager(f"minikube-raw-ns-{os.getpid()}")
    group.create()

    def check() -> None:
        child = os.fork()
        if child == 0:
            group.attach(0)
            namespaces.unshare(namespaces.CLONE_NEWCGROUP)
            lines = Path("/proc/self/cgroup").read_text().splitlines()
            ours = [line for line in lines if "systemd" not in line]
            os._exit(0 if all(line.endswith(":/") for line in ours) else 1)
        assert os.waitpid(child, 0)[1] == 0

    try:
        in_child(check)
    finally:
        assert group.wait_empty(2)
        group.remove()


def test_a_cpuset_below_ours_is_filled_by_the_kernel(group: Cgroup) -> None:
    container = group.child("container")
    steps.start_recording()
    container.create()
    written = [subject for _, _, what, subject in steps.stop_recording() if what == "write"]
    start(container, sleep_for_ever)
    assert not [subject for subject in written if "cpuset." in str(subject)]
