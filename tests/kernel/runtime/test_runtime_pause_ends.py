"""When PID 1 of the namespace in which a pod's containers share their processes ends, nothing can be started there any more."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from runtime_node import SHARED_PID, Node, children, container, ended, eventually, keeper_pid, kill, run_to_end

from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime.cri import SandboxState
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


@dataclass
class Pod:
    sandbox: str
    container: str
    pause: int


async def state(runtime: Runtime, sandbox: str) -> SandboxState:
    (found,) = (each.state for each in await runtime.list_pod_sandboxes() if each.id == sandbox)
    return found


async def told(runtime: Runtime, sandbox: str) -> None:
    """Waits until the runtime has heard."""
    await eventually(lambda: runtime._state.sandboxes[sandbox].status().state is SandboxState.NOTREADY)


def pause_of(runtime: Runtime, sandbox: str) -> int:
    (pid,) = manager(f"{runtime._state.sandboxes[sandbox].record.cgroup}/pause").procs()
    return pid


@pytest_asyncio.fixture
async def pod(node: Node, runtime: Runtime) -> Pod:
    """A pod whose container runs; a process of it that ignores signals is killed all the same."""
    sandbox = await runtime.run_pod_sandbox(node.pod("shared", uid="shared", namespaces=SHARED_PID))
    created = await runtime.create_container(sandbox, container("sh", "-c", "trap '' TERM; sleep 1000"))
    await runtime.start_container(created)
    return Pod(sandbox, created, pause_of(runtime, sandbox))


@pytest_asyncio.fixture
async def fresh(node: Node) -> AsyncIterator[Runtime]:
    """A kubelet that comes later."""
    made = node.make_runtime()
    yield made
    await made.close()


async def test_its_containers_have_been_killed_its_sandbox_is_not_ready_and_the_pod_is_looked_at(
    node: Node, runtime: Runtime, pod: Pod
) -> None:
    kill(pod.pause)
    status = await ended(runtime, pod.container)
    assert (status.exit_code, status.reason) == (128 + signal.SIGKILL, "Error")
    await told(runtime, pod.sandbox)
    assert node.changes[-1] == "shared"
    assert pod.pause not in children(await keeper_pid(runtime, pod.sandbox))  # no zombie


async def test_a_process_that_is_executed_beside_a_container_does_not_hide_it(runtime: Runtime, pod: Pod) -> None:
    session = await runtime.exec(pod.container, ["sleep", "1000"])
    kill(pod.pause)
    await told(runtime, pod.sandbox)
    assert await session.wait() == 128 + signal.SIGKILL
    session.close()


async def test_the_next_sandbox_of_the_pod_has_another_and_runs(node: Node, runtime: Runtime, pod: Pod) -> None:
    kill(pod.pause)
    await told(runtime, pod.sandbox)
    await runtime.stop_pod_sandbox(pod.sandbox)
    again = await runtime.run_pod_sandbox(node.pod("shared", uid="shared", attempt=1, namespaces=SHARED_PID))
    status = await run_to_end(runtime, again, container("cat", "/proc/1/comm", name="second"))
    assert (node.output(status), await state(runtime, again)) == ("pause\n", SandboxState.READY)


async def test_a_kubelet_that_was_away_learns_it_with_the_ends_of_the_containers(
    runtime: Runtime, pod: Pod, fresh: Runtime
) -> None:
    await runtime.close()
    kill(pod.pause)
    await fresh.start()
    assert await state(fresh, pod.sandbox) is SandboxState.NOTREADY
    status = await ended(fresh, pod.container)
    assert (status.exit_code, status.reason) == (128 + signal.SIGKILL, "Error")


async def test_a_keeper_that_takes_over_tells_what_the_one_before_had_told(
    runtime: Runtime, pod: Pod, fresh: Runtime
) -> None:
    kill(pod.pause)
    await told(runtime, pod.sandbox)
    keeper = await keeper_pid(runtime, pod.sandbox)
    await runtime.close()
    kill(keeper)
    await fresh.start()
    assert await keeper_pid(fresh, pod.sandbox) != keeper
    assert await state(fresh, pod.sandbox) is SandboxState.NOTREADY


async def test_it_may_end_with_the_keeper_while_no_kubelet_is_there(runtime: Runtime, pod: Pod, fresh: Runtime) -> None:
    keeper = await keeper_pid(runtime, pod.sandbox)
    await runtime.close()
    kill(keeper)
    kill(pod.pause)
    await fresh.start()
    await told(fresh, pod.sandbox)
    assert (await ended(fresh, pod.container)).exit_code == 128 + signal.SIGKILL


async def test_a_child_that_waits_for_the_first_container_does_not_hide_it(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    kill(pause_of(runtime, sandbox))
    await told(runtime, sandbox)


async def test_a_waiting_child_that_no_container_wanted_does_not_hide_it(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    runtime._state.sandboxes[sandbox].next_container_id()  # as of a container that could not be created
    for name in ("first", "second"):  # one that the sandbox's own worker starts, and one that another does
        await run_to_end(runtime, sandbox, container("true", name=name))
    kill(pause_of(runtime, sandbox))
    await told(runtime, sandbox)
