"""A root file system that was made ahead of its container is the one it would have made itself, and is never left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, eventually, run_to_end
from test_runtime_prepared import mounts_of

from minikube_raw.runtime import trace
from minikube_raw.runtime.cri import Mount, RuntimeServiceError
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


def waiting(node: Node) -> list[Path]:
    return [*(node.state / "containers").glob(".spare-*")]


async def a_pod_like_it_has_run(node: Node, runtime: Runtime) -> None:
    """After that a root file system waits."""
    sandbox = await runtime.run_pod_sandbox(node.pod("before"))
    await run_to_end(runtime, sandbox, container("true"))
    await eventually(lambda: len(waiting(node)) == 1)
    await runtime.settled()


async def test_a_container_finds_the_mounts_that_one_before_it_made_for_itself(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    first = node.output(await run_to_end(runtime, sandbox, container("cat", "/proc/self/mountinfo")))
    await eventually(lambda: len(waiting(node)) == 1)
    second = node.output(await run_to_end(runtime, sandbox, container("cat", "/proc/self/mountinfo", name="second")))
    assert "/.spare-" in second
    assert mounts_of(first) == mounts_of(second)


async def test_what_a_container_writes_is_its_own(node: Node, runtime: Runtime) -> None:
    await a_pod_like_it_has_run(node, runtime)
    sandbox = await runtime.run_pod_sandbox(node.pod("after"))
    for name in ("one", "two"):
        status = await run_to_end(runtime, sandbox, container("sh", "-c", f"echo / > /tmp/{name}; ls /tmp", name=name))
        assert node.output(status).split() == [name]
        assert (Path(runtime.writable_layer(status.id)) / "tmp" / name).exists()
        await eventually(lambda: len(waiting(node)) == 1)


async def test_the_trace_of_a_pod_has_the_overlay_that_was_made_before_it(node: Node, runtime: Runtime) -> None:
    await a_pod_like_it_has_run(node, runtime)
    sandbox = await runtime.run_pod_sandbox(node.pod("after"))
    await run_to_end(runtime, sandbox, container("true"))
    found = trace.load(runtime.traces, "default", "after")
    assert found is not None
    (made,) = [step for step in found["steps"] if step["what"] == "fsopen" and "overlay" in step["object"]]
    assert made["who"] == "kubelet"
    assert made["at_ms"] < 0


async def test_a_container_that_was_made_before_the_kubelet_died_is_started_by_the_next_one(
    node: Node, runtime: Runtime
) -> None:
    await a_pod_like_it_has_run(node, runtime)
    sandbox = await runtime.run_pod_sandbox(node.pod("after"))
    created = await runtime.create_container(sandbox, container("echo", "hello"))
    await runtime.close()
    runtime = node.make_runtime()
    await runtime.start()
    try:
        await runtime.start_container(created)
        assert node.output(await ended(runtime, created)) == "hello\n"
    finally:
        await runtime.settled()
        await runtime.close()


async def test_a_kubelet_that_leaves_takes_what_waits_along(node: Node, runtime: Runtime) -> None:
    await a_pod_like_it_has_run(node, runtime)
    await runtime.close()
    assert waiting(node) == []


async def test_what_a_killed_kubelet_left_is_gone_after_the_next_start(node: Node, runtime: Runtime) -> None:
    left = node.state / "containers/.spare-0123456789abcdef/work/work"
    left.mkdir(parents=True)
    await runtime.close()
    runtime = node.make_runtime()
    await runtime.start()
    await runtime.close()
    assert waiting(node) == []


async def test_no_more_than_four_wait_and_those_of_the_images_used_last(node: Node, runtime: Runtime) -> None:
    for number in range(6):
        node.images.images[f"image{number}"] = node.images.images["busybox"]
        sandbox = await runtime.run_pod_sandbox(node.pod(f"pod{number}"))
        await run_to_end(runtime, sandbox, container("true", image=f"image{number}"))
        await runtime.settled()
    assert len(waiting(node)) == 4
    sandbox = await runtime.run_pod_sandbox(node.pod("after"))
    for number, found in ((5, True), (0, False)):
        status = await run_to_end(
            runtime, sandbox, container("cat", "/proc/mounts", name=f"of{number}", image=f"image{number}")
        )
        assert ("/.spare-" in node.output(status)) is found


async def test_a_container_that_cannot_be_made_leaves_neither_the_root_that_waited_nor_directories(
    node: Node, runtime: Runtime
) -> None:
    await a_pod_like_it_has_run(node, runtime)
    sandbox = await runtime.run_pod_sandbox(node.pod("after"))
    await runtime.settled()
    before = sorted(os.listdir("/proc/self/fd")), {each.name for each in (node.state / "containers").iterdir()}
    with pytest.raises(RuntimeServiceError, match="not found"):
        await runtime.create_container(sandbox, container("true", mounts=(Mount("/content", image="unknown"),)))
    left = {each.name for each in (node.state / "containers").iterdir()} - before[1] - {".removed"}
    assert (len(os.listdir("/proc/self/fd")), left) == (len(before[0]) - 1, set())  # less the mount that waited
