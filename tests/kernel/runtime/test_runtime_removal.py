"""A container that leaves a hundred thousand files: nobody waits for their removal, and all of them go."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from crash_points import CrashNode
from runtime_node import eventually, run_to_end, running_node

from minikube_raw.linux import mounts
from minikube_raw.runtime.cri import ContainerConfig, PodSandboxConfig
from minikube_raw.runtime.service import Runtime

FILES = 100_000
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[tuple[CrashNode, Runtime]]:
    mounts.tmpfs(str(tmp_path))  # so many files are slow on some disks
    try:
        async with running_node(tmp_path, CrashNode) as (node, runtime):
            assert isinstance(node, CrashNode)
            yield node, runtime
    finally:
        mounts.umount_all(str(tmp_path))


def host_pod(node: CrashNode, uid: str) -> PodSandboxConfig:
    return PodSandboxConfig(name=uid, namespace="default", uid=uid, log_directory=str(node.logs / uid))


def prints(node: CrashNode, text: str) -> ContainerConfig:
    return ContainerConfig(name="main", attempt=0, image=node.image, command=("echo", text), log_path="main.log")


def fill(directory: Path, files: int) -> None:
    """Empty files, a thousand to a directory."""
    for part in range(files // 1000):
        (directory / str(part)).mkdir()
        for number in range(1000):
            os.mknod(directory / str(part) / str(number))


def deletions() -> list[psutil.Process]:
    """The processes that delete for us."""
    found = []
    for each in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended, and is a zombie until somebody asks
            found += [each] if "minikube_raw.linux.removal" in " ".join(each.cmdline()) else []
    return found


async def test_other_pods_come_and_go_while_many_files_are_removed(parts: tuple[CrashNode, Runtime]) -> None:
    node, runtime = parts
    full = await runtime.run_pod_sandbox(host_pod(node, "full"))
    left = await run_to_end(runtime, full, prints(node, "filled"))
    layer = Path(runtime.writable_layer(left.id))
    await asyncio.to_thread(fill, layer, FILES)

    await runtime.remove_pod_sandbox(full)
    await eventually(lambda: bool(deletions()))
    (deletion,) = deletions()
    deletion.send_signal(signal.SIGSTOP)  # for as long as this test likes, however quick the disk is
    try:
        assert not layer.exists()
        for name in ("next", "another"):
            sandbox = await runtime.run_pod_sandbox(host_pod(node, name))
            said = await run_to_end(runtime, sandbox, prints(node, name))
            assert node.output(said) == f"{name}\n"
            await runtime.remove_pod_sandbox(sandbox)
        assert await runtime.list_pod_sandboxes() == []
    finally:
        deletion.send_signal(signal.SIGCONT)

    await runtime.removals_done(120)
    left = os.listdir(node.state / "containers")
    assert [name for name in left if not name.startswith(".spare-")] == []  # those wait for the next container


async def test_what_a_kubelet_before_left_in_the_trash_is_removed(parts: tuple[CrashNode, Runtime]) -> None:
    node, runtime = parts
    trash = node.state / "containers/.removed/removed-before"
    await runtime.removals_done(10)
    trash.mkdir(parents=True)
    fill(trash, 3000)

    await runtime.start()
    await runtime.removals_done(120)

    assert os.listdir(node.state / "containers") == []
