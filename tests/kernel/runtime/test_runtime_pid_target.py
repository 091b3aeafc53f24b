"""A container that joins another's PID namespace, as `kubectl debug --target` asks."""

from __future__ import annotations

import pytest
from runtime_node import Node, container, run_to_end

from minikube_raw.runtime.cri import ContainerState, RuntimeServiceError
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


async def test_a_targeting_container_sees_the_targets_processes_and_outlives_nothing(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    target = await runtime.create_container(sandbox, container("sleep", "1234", name="target"))
    await runtime.start_container(target)

    look = "cat /proc/1/cmdline | head -c 10; readlink /proc/1/root; test $$ -gt 1 && exit 4"
    seen = await run_to_end(runtime, sandbox, container("sh", "-c", look, name="dbg", pid_target=target))

    assert (seen.exit_code, node.output(seen)) == (4, "sleep\x001234/\n")
    status = await runtime.container_status(target)
    assert status is not None
    assert status.state is ContainerState.RUNNING


async def test_a_target_that_has_ended_cannot_be_joined(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    target = await run_to_end(runtime, sandbox, container("true", name="target"))

    wish = container("true", name="dbg", pid_target=target.id)
    late = await runtime.create_container(sandbox, wish)
    with pytest.raises(RuntimeServiceError, match="does not run"):
        await runtime.start_container(late)
