"""SIGKILL of kubelet, launcher, both or a keeper, and a power cut, at points all over a pod's creation and removal.

`make test` takes a sample of the points, `make chaos` all of them (CRASH_STRIDE=1).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from crash_points import UID, CrashNode, recover, run_victim

from minikube_raw.linux import mounts
from minikube_raw.linux.cgroups import manager

STRIDE = int(os.environ.get("CRASH_STRIDE", "41"))
pytestmark = [pytest.mark.root, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashNode]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    made = CrashNode(tmp_path_factory.mktemp("crash"))
    made.start_launcher()
    try:
        yield made
    finally:
        made.kill_everything()
        subprocess.run(["ip", "link", "delete", "crashbr0"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def steps(node: CrashNode) -> int:
    """How many steps a life without a crash has."""
    asyncio.run(node.wait_for_launcher())
    said, counted = run_victim(node, 0, list)
    shutil.rmtree(node.logs / UID)
    assert said[-1] == "gone"
    assert node.left_behind() == []
    return counted


def points(steps: int, phase: int) -> range:
    return range(1 + phase * STRIDE // 5, steps + 1, STRIDE)


def strike_and_recover(
    node: CrashNode, point: int, doomed: Callable[[], list[int]], *, power_cut: bool = False
) -> None:
    assert node.launcher is not None
    said, _ = run_victim(node, point, doomed)
    if power_cut:
        cut_power(node)
    if f"killed {node.launcher.pid}" in said or power_cut:
        node.launcher.wait()
        node.start_launcher()
    try:
        asyncio.run(recover(node, said, power_cut=power_cut))
    except BaseException as error:
        error.add_note(f"crash point {point}")
        raise
    finally:
        shutil.rmtree(node.logs / UID, ignore_errors=True)


def cut_power(node: CrashNode) -> None:
    """Nothing runs any more, and what lay in memory file systems is gone; the state directory is as the disk has it."""
    assert node.launcher is not None
    manager(node.cgroup).kill_all(5)
    node.launcher.wait()
    for point in reversed(mounts.mount_points_below(str(node.run))):
        mounts.umount_all(point)
    subprocess.run(["ip", "link", "delete", "crashbr0"], check=False, capture_output=True)
    for path in node.run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_kubelet_killed_at_any_point_is_followed_by_one_that_goes_on(node: CrashNode, steps: int) -> None:
    for point in points(steps, 0):
        strike_and_recover(node, point, lambda: [os.getpid()])


def test_a_launcher_killed_at_any_point_takes_no_pod_along(node: CrashNode, steps: int) -> None:
    for point in points(steps, 1):
        strike_and_recover(node, point, lambda: [node.launcher.pid])


def test_kubelet_and_launcher_killed_together_at_any_point_are_followed(node: CrashNode, steps: int) -> None:
    for point in points(steps, 2):
        strike_and_recover(node, point, lambda: [node.launcher.pid, os.getpid()])


def test_a_keeper_killed_with_its_kubelet_at_any_point_is_replaced(node: CrashNode, steps: int) -> None:
    for point in points(steps, 3):
        strike_and_recover(node, point, lambda: [*keepers(node), os.getpid()])


def test_a_power_cut_at_any_point_leaves_nothing_reserved(node: CrashNode, steps: int) -> None:
    for point in points(steps, 4):
        strike_and_recover(node, point, lambda: [os.getpid()], power_cut=True)


@pytest.mark.parametrize("last_words", ["started", "stopped"])
@pytest.mark.parametrize("kept", [None, 0, 0.5], ids=["gone", "empty", "cut off"])
@pytest.mark.parametrize("kind", ["sandboxes", "containers"])
def test_a_record_that_a_power_cut_damaged_is_as_good_as_none(
    node: CrashNode, kind: str, kept: float | None, last_words: str
) -> None:
    said, _ = run_victim(node, 0, lambda: [os.getpid()], last_words=last_words)
    cut_power(node)
    (record,) = (node.state / "records" / kind).iterdir()
    content = record.read_bytes()
    record.unlink() if kept is None else record.write_bytes(content[: int(len(content) * kept)])
    node.start_launcher()
    try:
        asyncio.run(recover(node, said, power_cut=True))
    finally:
        shutil.rmtree(node.logs / UID, ignore_errors=True)


def keepers(node: CrashNode) -> list[int]:
    assert node.launcher is not None
    return [pid for pid in node.processes("system") if pid != node.launcher.pid]
