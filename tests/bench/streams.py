"""Streams of one container: the round trip of an exec, how soon an end is noticed, and how many lines a log takes.

Below the API: what kubectl and TLS cost on top is theirs. The writer is a static binary that writes blocks of whole lines, as a
program with a buffer does; lines are counted in the log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from minikube_raw.oci.images import ImageStore
from minikube_raw.runtime.cri import ContainerConfig, PodSandboxConfig
from minikube_raw.runtime.service import Runtime
from tests.bench import podstart, report

ROUNDS = 60
LINES = 4_000_000
TALKER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc == 1) return 0;
    long lines = atol(argv[1]);
    if (!lines) pause();
    for (long line = 0; line < lines; line++) printf("%049ld\n", line);
    return 0;
}
"""


def measure() -> list[report.Section]:
    """Start a pod of our own and talk to it."""
    with tempfile.TemporaryDirectory(prefix="mkr-bench-") as name:
        folder = Path(name)
        store = ImageStore(folder / "images")
        store.load(podstart.build_image(folder, {"talker": TALKER}))
        figures = asyncio.run(_measure(folder, store))
    intro = f"One pod without a cluster around it; load average {report.load()} at the end."
    return [report.Section("Streams", intro, figures)]


async def _measure(folder: Path, store: ImageStore) -> list[report.Figure]:
    async with podstart.runtime(folder, store) as runtime:
        config = PodSandboxConfig(
            name="talker", namespace="bench", uid="talker", log_directory=f"{folder}/logs", cgroup_parent="pods/talker"
        )
        pod = _Pod(runtime, store, await runtime.run_pod_sandbox(config))
        figures = [
            report.Figure(
                "exec of a static binary, asked → its exit code", report.milliseconds(await pod.execs()), "≤ 15 ms"
            ),
            report.Figure("SIGKILL → the end is recorded and told", report.milliseconds(await pod.ends()), "≤ 5 ms"),
            await pod.lines(),
        ]
        await runtime.stop_pod_sandbox(pod.sandbox)
        await runtime.remove_pod_sandbox(pod.sandbox)
    return figures


class _Pod:
    """A sandbox in which containers are started one after the other."""

    def __init__(self, runtime: Runtime, store: ImageStore, sandbox: str) -> None:
        image = store.resolve(podstart.IMAGE)
        assert image is not None
        self._runtime, self._image, self.sandbox = runtime, image.id, sandbox
        self._attempt = 0
        self._changed = asyncio.Event()
        runtime.on_change(lambda _uid: self._changed.set())

    async def _start(self, *command: str) -> str:
        self._attempt += 1
        log = f"{self._attempt}.log"
        config = ContainerConfig(name="main", attempt=self._attempt, image=self._image, command=command, log_path=log)
        container = await self._runtime.create_container(self.sandbox, config)
        await self._runtime.start_container(container)
        return container

    async def _ended(self, container: str) -> str:
        """Wait for a container's end; returns its log."""
        while True:
            self._changed.clear()
            status = await self._runtime.container_status(container)
            assert status is not None
            if status.finished_at:
                return status.log_path
            await self._changed.wait()

    async def execs(self) -> Sequence[float]:
        """Seconds from asking for a command to its exit code."""
        container = await self._start("/talker", "0")
        times = []
        for _ in range(ROUNDS):
            began = time.monotonic()
            await self._runtime.exec_sync(container, ["/talker"])
            times.append(time.monotonic() - began)
        await self._runtime.stop_container(container, 0)
        return times

    async def ends(self) -> Sequence[float]:
        """Seconds from the death of a first process to our knowing of it."""
        times = []
        for _ in range(ROUNDS):
            container = await self._start("/talker", "0")
            status = await self._runtime.container_status(container)
            assert status is not None
            began = time.monotonic()
            os.kill(status.pid, signal.SIGKILL)
            await self._ended(container)
            times.append(time.monotonic() - began)
        return times

    async def lines(self) -> report.Figure:
        """One container's lines per second into its log, until it has ended and all is there."""
        began = time.monotonic()
        log = await self._ended(await self._start("/talker", str(LINES)))
        seconds = time.monotonic() - began
        written = await asyncio.to_thread(_count_lines, log)
        note = f"{LINES:,} lines of 50 bytes; {LINES - written:,} lost"
        return report.Figure(
            "log of one container", f"{LINES / seconds:,.0f} lines/s", "≥ 200,000 lines/s, none lost", note
        )


def _count_lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
