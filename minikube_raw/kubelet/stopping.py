"""Ends a pod's containers side by side, in the time its deletion leaves them; a shorter time holds at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from minikube_raw.runtime import cri


async def stop_all(
    runtime: cri.RuntimeService,
    running: list[cri.ContainerStatus],
    grace: Callable[[], float],
    changed: asyncio.Event,
) -> None:
    """Return when all have ended. `grace()` is asked again whenever `changed` is set."""
    first = grace()
    async with asyncio.TaskGroup() as tasks:
        stopping = [tasks.create_task(runtime.stop_container(each.id, first)) for each in running]
        hastening = tasks.create_task(_hasten(runtime, running, grace, changed, first))
        await asyncio.wait(stopping)
        hastening.cancel()


async def _hasten(
    runtime: cri.RuntimeService,
    running: list[cri.ContainerStatus],
    grace: Callable[[], float],
    changed: asyncio.Event,
    present: float,
) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            changed.clear()
            await changed.wait()
            if grace() < present:
                present = grace()
                await asyncio.gather(*(runtime.stop_container(each.id, present) for each in running))
