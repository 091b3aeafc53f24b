"""Deletion in the background, one at a time: whoever has put something aside says `begin` and goes on at once.

A few files are deleted in a thread; more are left to a process of idle priority (linux.removal), which nobody has to wait
for: it outlives us, and what it does not get to is deleted the next time.
"""

from __future__ import annotations

import asyncio
import os

from minikube_raw.linux import removal

from .streams import readable


class Emptying:
    """Deletes what lies in the directory `trash` (removal.put_aside)."""

    def __init__(self, trash: str) -> None:
        self._trash = trash
        self._more = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Have what was put aside by now deleted."""
        self._more = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="deletion")

    async def done(self, seconds: float | None = None) -> None:
        """Wait until everything is deleted, or for so many seconds."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=seconds)

    async def _run(self) -> None:
        while self._more:
            self._more = False
            process = await asyncio.to_thread(removal.start_emptying, self._trash)
            if process is not None:
                await _ended(process.pid)
                process.wait()


async def _ended(pid: int) -> None:
    """Wait for a child without a thread."""
    descriptor = os.pidfd_open(pid)
    try:
        await readable(descriptor)
    finally:
        os.close(descriptor)
