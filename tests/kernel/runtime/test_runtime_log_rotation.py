"""Rotation under a container that writes as fast as it can: every line is in the files exactly once, and so a follower sees it."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from runtime_node import Node, container

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet import logfiles, podlogs
from minikube_raw.kubelet.logfiles import Reading
from minikube_raw.kubelet.logrotation import LogRotation, RotationPolicy
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root
BURSTS, BURST = 40, 10_000


class Follower:
    """Looks again at each rotation and at the container's end."""

    def __init__(self, path: str) -> None:
        self.reading = Reading(path)
        self.ended = False
        self._changed = asyncio.Event()

    def has_ended(self) -> bool:
        return self.ended

    def next_change(self) -> asyncio.Event:
        self._changed.clear()
        return self._changed

    def rotated(self, path: str, name: str) -> None:
        self.reading.rotated_to(name)
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()


def lines_in(path: str) -> list[bytes]:
    """What was written, without stamps; a line whose writer was stopped within it may be in pieces."""
    pieces = []
    for name in (*logfiles.rotated(path), path):
        data = Path(name).read_bytes()
        for record in (gzip.decompress(data) if name.endswith(".gz") else data).splitlines():
            _stamp, _stream, tag, content = record.split(b" ", 3)
            pieces.append(content + (b"\n" if tag == b"F" else b""))
    return b"".join(pieces).splitlines()


async def test_no_line_is_lost_or_doubled_by_rotation(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    script = f"i=0; while [ $i -lt {BURSTS} ]; do seq $((i * {BURST} + 1)) $((i * {BURST} + {BURST})); i=$((i + 1)); sleep 0.02; done"
    created = await runtime.create_container(sandbox, container("sh", "-c", script))
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert status is not None
    follower, clock = Follower(status.log_path), ManualClock()
    rotation = LogRotation(runtime, RotationPolicy(1 << 16, 1000), clock, follower.rotated)
    followed = asyncio.create_task(collect(follower))

    ended = runtime._state.containers[created].ended
    while not ended.is_set():
        clock.advance(1)
        await rotation.look()
        await asyncio.sleep(0.01)
    follower.end()

    expected = list(range(1, BURSTS * BURST + 1))
    assert len(logfiles.rotated(status.log_path)) > 3
    assert [int(line) for line in lines_in(status.log_path)] == expected
    assert [int(line) for line in (await asyncio.wait_for(followed, 30)).split()] == expected


async def collect(follower: Follower) -> bytes:
    """What a follower sees, who pauses at each piece."""
    seen = b""
    async for chunk in podlogs.read(follower.reading, podlogs.LogOptions(follow=True), follower):
        seen += chunk
        await asyncio.sleep(0.001)
    return seen
