"""A container that no signal ends: the node goes on without it, says so, and removes it once it can.

A process frozen by cgroup v1's freezer is as deaf to SIGKILL as one in uninterruptible sleep, and can be woken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runtime_node import Node, container, run_to_end

from minikube_raw.linux.cgroup_mounts import hierarchies
from minikube_raw.runtime import containers
from minikube_raw.runtime.cri import ContainerState, RuntimeServiceError
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


@contextmanager
def deaf(cgroups: list[str]) -> Iterator[None]:
    """Freezes cgroups behind the runtime's back."""
    root = hierarchies().v1.get("freezer")
    if root is None:
        pytest.skip("no freezer hierarchy: nothing else here makes a process deaf to SIGKILL")
    states = [Path(root) / cgroup / "freezer.state" for cgroup in cgroups]
    for state in states:
        state.write_text("FROZEN")
    try:
        yield
    finally:
        for state in states:
            state.write_text("THAWED")


async def test_containers_that_cannot_be_killed_hold_up_nobody_else(
    node: Node, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "KILL_TIMEOUT", 0.5)
    sandbox = await runtime.run_pod_sandbox(node.pod("stuck"))
    stuck = [
        await runtime.create_container(sandbox, container("sleep", "1000", name=f"c{number}")) for number in range(20)
    ]
    for each in stuck:
        await runtime.start_container(each)
    cgroups = [runtime._state.containers[each].record.request["cgroup"] for each in stuck]

    with deaf(cgroups):
        stopping = asyncio.gather(*(runtime.stop_container(each, 0) for each in stuck), return_exceptions=True)
        other = await runtime.run_pod_sandbox(node.pod("other"))
        status = await run_to_end(runtime, other, container("sh", "-c", "exit 3"))
        assert not stopping.done()
        refused = await stopping

    assert status.exit_code == 3
    assert {error.reason for error in refused if isinstance(error, RuntimeServiceError)} == {"KillContainerError"}
    assert "uninterruptible sleep" in str(refused[0])
    for each in stuck:
        await runtime.stop_container(each, 0)
    assert {each.state for each in await runtime.list_containers(sandbox)} == {ContainerState.EXITED}
