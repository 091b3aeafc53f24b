"""A log directory on a disk that is full: the container waits, and nothing it wrote is lost once there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtime_node import Node, container, ended, eventually, running_node

from minikube_raw.linux import pipes
from minikube_raw.runtime.copying import PIPE_SIZE
from minikube_raw.runtime.cri import ContainerState, ContainerStatus
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


class SmallDisk(Node):
    """A node whose logs lie on a file system of its own."""

    def start_launcher(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.logs)], check=True)
        super().start_launcher()

    def fill(self, *, but: int) -> None:
        """Take all the room but so many bytes."""
        room = os.statvfs(self.logs)
        (self.logs / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize - but))

    def make_room(self) -> None:
        (self.logs / "filler").unlink()

    def waits(self, container_id: str, stream: str) -> bool:
        """Whether a container's pipe is as full as it gets, so that its writer sleeps."""
        fd = os.open(self.run / "containers" / container_id / stream, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return pipes.waiting(fd) > PIPE_SIZE - 8192
        finally:
            os.close(fd)

    def kill_everything(self) -> None:
        super().kill_everything()
        subprocess.run(["umount", "-l", str(self.logs)], check=True)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[SmallDisk, Runtime]]:
    async with running_node(tmp_path, SmallDisk) as (node, runtime):
        assert isinstance(node, SmallDisk)
        yield node, runtime


async def start(node: Node, runtime: Runtime, script: str) -> ContainerStatus:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", "-c", script))
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert status is not None
    return status


def numbers(node: Node, status: ContainerStatus, stream: str) -> list[int]:
    return [int(line) for line in node.output(status, stream).split()]


async def test_the_container_waits_for_room_and_no_line_is_missing_or_doubled(
    small: tuple[SmallDisk, Runtime],
) -> None:
    node, runtime = small
    node.fill(but=65_536)
    status = await start(node, runtime, "seq 1 60000 & seq 1 300000 >&2; wait; exit 3")  # more than the pipes hold
    await eventually(lambda: node.waits(status.id, "stderr"))
    waiting = await runtime.container_status(status.id)
    assert waiting is not None
    assert waiting.state is ContainerState.RUNNING

    node.make_room()
    assert (await ended(runtime, status.id, 30)).exit_code == 3
    assert numbers(node, status, "stdout") == list(range(1, 60_001))
    assert numbers(node, status, "stderr") == list(range(1, 300_001))


async def test_what_a_container_wrote_before_it_ended_reaches_the_log_when_there_is_room(
    small: tuple[SmallDisk, Runtime],
) -> None:
    node, runtime = small
    node.fill(but=4096)
    status = await start(node, runtime, "seq 1 5000; seq 1 5000 >&2; exit 4")
    assert (await ended(runtime, status.id)).exit_code == 4, "its end is told while the disk is full"
    assert len(node.log(status).splitlines()) < 10_000

    node.make_room()
    await eventually(lambda: len(node.log(status).splitlines()) == 10_000)
    for stream in ("stdout", "stderr"):
        assert numbers(node, status, stream) == list(range(1, 5001))


async def test_a_container_is_removed_from_a_full_disk_as_from_any(small: tuple[SmallDisk, Runtime]) -> None:
    node, runtime = small
    node.fill(but=4096)
    status = await start(node, runtime, "seq 1 5000")
    await ended(runtime, status.id)
    await runtime.remove_container(status.id)
    await runtime.remove_pod_sandbox(status.sandbox_id)
    assert await runtime.list_pod_sandboxes() == []
