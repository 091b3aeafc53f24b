"""The package is replaced under running pods: keepers of the release before need nothing of it on the disk, and are served."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, eventually

import minikube_raw
from minikube_raw.runtime.cri import ContainerState
from minikube_raw.runtime.launching import launcher_argv
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root
COUNT = "trap 'exit 9' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"


def release_before(directory: Path) -> Path:
    """A copy of the package whose processes say that they speak an older protocol."""
    package = Path(minikube_raw.__file__).parent
    shutil.copytree(package, directory / "minikube_raw", ignore=shutil.ignore_patterns("__pycache__"))
    wire = directory / "minikube_raw/runtime/wire.py"
    text = wire.read_text()
    assert "\nVERSION = 3 " in text
    wire.write_text(text.replace("\nVERSION = 3 ", "\nVERSION = 1 "))
    return directory


def end_launcher(node: Node) -> None:
    assert node.launcher is not None
    node.launcher.kill()
    node.launcher.wait()


def start_old_launcher(node: Node, release: Path) -> None:
    present = str(Path(minikube_raw.__file__).parents[1])
    argv = launcher_argv(node.run, node.state, node.logs, node.images.images["busybox"][0], cgroup=f"{node.cgroup}/old")
    node.launcher = subprocess.Popen([word.replace(present, str(release)) for word in argv])


async def pod_of_the_release_before(node: Node, release: Path) -> tuple[str, int]:
    """Starts a container that counts under launcher and keeper from `release`, and removes that; the container's id and pid."""
    end_launcher(node)
    start_old_launcher(node, release)
    await node.wait_for_launcher()
    runtime = node.make_runtime()
    await runtime.start()
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", "-c", COUNT))
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert status is not None
    await runtime.close()
    shutil.rmtree(release)
    end_launcher(node)
    return created, status.pid


async def serve_it(node: Node, runtime: Runtime, created: str, pid: int) -> None:
    """What a kubelet of today asks of the container."""
    status = await runtime.container_status(created)
    assert status is not None
    assert (status.state, status.pid) == (ContainerState.RUNNING, pid)
    assert (await runtime.exec_sync(created, ["echo", "hello"])).stdout == b"hello\n"
    had = len(node.output(status).splitlines())
    await eventually(lambda: len(node.output(status).splitlines()) > had)


@pytest.mark.parametrize("keeper_is_killed", [False, True], ids=["the keeper lives", "the keeper is killed too"])
async def test_pods_of_the_release_before_run_on_and_are_served(
    node: Node, runtime: Runtime, tmp_path: Path, keeper_is_killed: bool
) -> None:
    await runtime.close()
    created, pid = await pod_of_the_release_before(node, release_before(tmp_path / "before"))
    node.start_launcher()
    await node.wait_for_launcher()
    today = node.make_runtime()
    await today.start()

    await serve_it(node, today, created, pid)
    if keeper_is_killed:
        await replace_keeper(today)
        await serve_it(node, today, created, pid)
    await today.stop_container(created, 5)

    status = await ended(today, created)
    numbers = node.output(status).split()
    assert numbers == [str(number) for number in range(len(numbers))]
    assert status.exit_code == 9
    await today.close()


async def replace_keeper(runtime: Runtime) -> None:
    """Kills the old release's keeper and waits for one of today's."""
    sandbox = next(iter(runtime._state.sandboxes.values()))
    hello, _ = await runtime._keepers.ask(sandbox, {"op": "hello"})
    assert hello["version"] == 1
    os.kill(hello["pid"], signal.SIGKILL)
    old = sandbox.peer
    await eventually(lambda: sandbox.peer not in (None, old) and not sandbox.replacing)
