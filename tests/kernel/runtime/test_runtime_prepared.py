"""What is made ahead of a pod's first container is what it would have made itself, and goes where nothing came of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_node import Node, container, eventually, run_to_end

from minikube_raw.runtime import trace
from minikube_raw.runtime.cri import Mount, RuntimeServiceError, SecurityContext
from minikube_raw.runtime.service import Runtime
from minikube_raw.runtime.spec import MASKED_PATHS

pytestmark = pytest.mark.root


def mounts_of(mountinfo: str) -> list[list[str]]:
    """What is mounted where and how, without the numbers that no two mounts share; upper directories differ too."""
    lines = [line.split() for line in mountinfo.splitlines()]
    return sorted([*line[4:6], line[-3]] if line[-3] == "overlay" else [*line[3:6], *line[-3:]] for line in lines)


async def both(node: Node, runtime: Runtime, *command: str, **changes: object) -> tuple[str, str]:
    """What a pod's first container says, and a second one like it."""
    sandbox = await runtime.run_pod_sandbox(node.pod("prepared"))
    first = node.output(await run_to_end(runtime, sandbox, container(*command, **changes)))
    second = node.output(await run_to_end(runtime, sandbox, container(*command, name="second", **changes)))
    return first, second


def prepared(runtime: Runtime) -> int:
    """How many prepared trees the containers of the pod have taken."""
    found = trace.load(runtime.traces, "default", "prepared")
    assert found is not None
    return sum(step["what"] == "mount prepared" for step in found["steps"])


async def test_a_first_container_finds_the_mounts_that_a_later_one_makes_for_itself(
    node: Node, runtime: Runtime
) -> None:
    first, second = await both(node, runtime, "cat", "/proc/self/mountinfo")
    assert mounts_of(first) == mounts_of(second)
    assert prepared(runtime) == 3


async def test_a_privileged_first_container_finds_the_mounts_and_devices_that_a_later_one_makes_for_itself(
    node: Node, runtime: Runtime
) -> None:
    script = "cat /proc/self/mountinfo; mknod /x c 1 11 && : < /x && echo used"  # /dev/kmsg, which only some may use
    first, second = await both(node, runtime, "sh", "-c", script, security=SecurityContext(privileged=True))
    assert first.endswith("used\n")
    assert mounts_of(first.removesuffix("used\n")) == mounts_of(second.removesuffix("used\n"))
    assert prepared(runtime) == 0


@pytest.mark.parametrize("place", ["/dev", "/sys/kernel", "/sys/firmware", "/sys/../dev"])
async def test_a_volume_over_what_is_prepared_is_found_as_a_later_container_finds_it(
    node: Node, runtime: Runtime, tmp_path: Path, place: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").touch()
    first, second = await both(node, runtime, "ls", place, mounts=(Mount(place, str(tmp_path / "data")),))
    assert first == second
    assert ("file" in first.splitlines()) is (place != "/sys/firmware")  # which is masked
    assert prepared(runtime) == 0


async def test_no_volume_is_mounted_over_a_mask_in_proc(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    masked = next((path for path in MASKED_PATHS if path.startswith("/proc/") and os.path.isdir(path)), "")
    if not masked:
        pytest.skip("this kernel has no directory in /proc that is masked")
    (node.images.images["busybox"][0] / "link").symlink_to(masked)
    (tmp_path / "data").mkdir()
    sandbox = await runtime.run_pod_sandbox(node.pod())
    with pytest.raises(RuntimeServiceError, match="inside /proc"):
        await run_to_end(runtime, sandbox, container("true", mounts=(Mount("/link", str(tmp_path / "data")),)))


async def test_what_was_made_for_a_container_that_never_came_goes_with_its_pod(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    await eventually(lambda: len([*(node.run / "containers").glob("*/stdout")]) == 1)
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.settled()
    assert [*(node.run / "containers").iterdir()] == []


async def test_what_a_keeper_did_is_in_the_trace_of_a_pod_that_has_no_container_yet(
    node: Node, runtime: Runtime
) -> None:
    await runtime.run_pod_sandbox(node.pod("prepared"))

    def keeper_steps() -> set[str]:
        found = trace.load(runtime.traces, "default", "prepared")
        return {step["what"] for step in found["steps"] if step["who"] == "keeper"} if found else set()

    await eventually(lambda: {"unshare", "mkdir", "clone"} <= keeper_steps())
