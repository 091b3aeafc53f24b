"""Starts that a crash interrupted between a container's root and its program: whoever takes over starts the same container."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

import pytest
from runtime_node import Node, container, ended, eventually, kill, parent, waits_for_packet

from minikube_raw.linux import features
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime.cri import ContainerConfig, PodSandboxConfig, RuntimeServiceError
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


class HeldUp(NamedTuple):
    """A start that cannot go on: the layers are mounted, the first process waits for leave to run, the log cannot be opened yet."""

    sandbox: str
    container: str
    first: int
    log: Path
    starting: asyncio.Task[None]


async def hold_up(node: Node, runtime: Runtime, pod: PodSandboxConfig, config: ContainerConfig) -> HeldUp:
    sandbox = await runtime.run_pod_sandbox(pod)
    created = await runtime.create_container(sandbox, config)
    request = runtime._state.containers[created].record.request
    log, mounted = Path(request["logPath"]), Path(request["rootfs"]["work"], "work/incompat/volatile")
    group = manager(request["cgroup"])
    log.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(log)  # opening it waits for a reader
    starting = asyncio.create_task(runtime.start_container(created))
    await eventually(lambda: mounted.exists() and [waits_for_packet(pid) for pid in group.procs()] == [True])
    return HeldUp(sandbox, created, *group.procs(), log, starting)


async def interrupt(node: Node, runtime: Runtime, pod: PodSandboxConfig, config: ContainerConfig) -> tuple[str, str]:
    """Kills the keeper of a start that is held up; (sandbox, container)."""
    held = await hold_up(node, runtime, pod, config)
    kill(parent(held.first))
    with pytest.raises(RuntimeServiceError, match="went away"):
        await held.starting
    held.log.unlink()
    return held.sandbox, held.container


async def test_a_first_process_that_is_killed_before_its_program_runs_is_told_so(node: Node, runtime: Runtime) -> None:
    held = await hold_up(node, runtime, node.pod(), container("true"))
    kill(held.first)
    reader = os.open(held.log, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RuntimeServiceError, match="the process was killed before its program started"):
        await held.starting
    os.close(reader)


async def start_again(runtime: Runtime, sandbox: str, created: str) -> None:
    await eventually(lambda: not runtime._state.sandboxes[sandbox].replacing)
    await runtime.start_container(created)


async def test_the_next_keeper_starts_a_container_whose_layers_were_mounted_already(
    node: Node, runtime: Runtime
) -> None:
    config = container("sh", "-c", "echo once; exit 5")
    sandbox, created = await interrupt(node, runtime, node.pod(), config)
    await start_again(runtime, sandbox, created)
    status = await ended(runtime, created)
    assert (status.exit_code, node.output(status)) == (5, "once\n")


async def test_the_next_kubelet_starts_a_container_whose_layers_were_mounted_already(
    node: Node, runtime: Runtime
) -> None:
    sandbox, created = await interrupt(node, runtime, node.pod(), container("sh", "-c", "echo once; exit 5"))
    await runtime.close()
    fresh = node.make_runtime()
    await fresh.start()
    await start_again(fresh, sandbox, created)
    status = await ended(fresh, created)
    assert (status.exit_code, node.output(status)) == (5, "once\n")
    await fresh.close()


@pytest.fixture(params=["detached", "attached"])
def layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel that wants layers attached, too; for a launcher that starts afterwards."""
    if request.param == "attached":
        monkeypatch.setenv("MINIKUBE_RAW_NO_OVERLAY_DETACHED_LAYERS", "1")


@pytest.mark.skipif(not features.idmapped_mounts(), reason="this kernel has no idmapped mounts")
async def test_the_next_keeper_starts_a_container_of_users_of_its_own_whose_layers_were_mounted_already(
    layers: None, node: Node, runtime: Runtime
) -> None:
    config = container("sh", "-c", "touch /made; exit 5")
    sandbox, created = await interrupt(node, runtime, node.pod(user_namespace=True), config)
    await start_again(runtime, sandbox, created)
    assert (await ended(runtime, created)).exit_code == 5


async def test_input_of_a_container_that_was_started_again_ends_with_whoever_gave_it(
    node: Node, runtime: Runtime
) -> None:
    config = container("cat", stdin=True, stdin_once=True)
    sandbox, created = await interrupt(node, runtime, node.pod(), config)
    await start_again(runtime, sandbox, created)
    session = await runtime.attach(created)
    assert session.stdin is not None
    os.write(session.stdin, b"all of it\n")
    session.close()
    status = await ended(runtime, created)
    assert (status.exit_code, node.output(status)) == (0, "all of it\n")


async def test_a_container_that_ended_with_its_keeper_before_that_had_said_that_it_runs_is_not_started_again(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", "-c", "echo once; exec sleep 1000"))
    await runtime.start_container(created)
    status, known = await runtime.container_status(created), runtime._state.containers[created]
    assert status is not None
    await eventually(lambda: os.path.exists(status.log_path) and node.output(status) == "once\n")
    known.record.started_at, known.identity = 0, None  # as if the keeper's answer had not come
    kill(parent(status.pid))
    kill(status.pid)
    assert (await ended(runtime, created)).exit_code == 137
    assert node.output(status) == "once\n"
