"""Graceful node shutdown: a lock delays the machine's shutdown until the pods have ended, the least important ones first.

While it lasts the node is NotReady and takes no more pods. What a period's pods do not manage in time is left to the machine.
`shutdownperiods` decides, the pods' workers act, `logind` is asked; words and order are the kubelet's (pkg/kubelet/nodeshutdown).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, Protocol

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock, sleep
from minikube_raw.client.events import NORMAL, WARNING
from minikube_raw.kubelet.ending import SHUTDOWN, Ending
from minikube_raw.kubelet.shutdownperiods import Period, grace, phases
from minikube_raw.kubelet.shutdowntimes import ShutdownTimes

log = logging.getLogger(__name__)
NOT_READY = "node is shutting down"
RETRY_SECONDS = 5.0
TELLING_SECONDS = 2.0  # how long the API server is waited for when all pods have ended


class Logind(Protocol):
    """What delays shutdowns: see kubelet.logind. Methods raise OSError (TimeoutError is one) and Refused."""

    async def delay_limit(self) -> float:
        """Seconds that a lock delays a shutdown at most."""
        ...

    async def raise_delay_limit(self, seconds: float) -> str:
        """Make it more; returns the file that was written."""
        ...

    async def is_shutting_down(self) -> bool:
        """Whether a shutdown waits for locks at this moment: no more are given then."""
        ...

    async def inhibit(self) -> Callable[[], None]:
        """Take a lock; returns what releases it. Twice is fine."""
        ...

    async def watch(self) -> AsyncIterator[bool]:
        """From now on: True when a shutdown begins, False when it was called off."""
        ...


class Pods(Protocol):
    """The pods of the node: see workers.PodWorkers."""

    def running(self) -> Collection[Pod]:
        """Those that have not ended."""
        ...

    def end(self, uid: str, ending: Ending) -> None:
        """Stop a pod as a whole."""
        ...

    async def until_ended(self, uids: Collection[str]) -> None:
        """Wait until nothing of them runs and their volumes are given back."""
        ...


class Refused(Exception):
    """Shutdowns of this machine cannot be delayed, or not for so long."""


class NodeShutdown:
    """Watches for one node. `tell(kind, reason, message)` records Events of it, `changed` has its status written."""

    def __init__(
        self,
        periods: Sequence[Period],
        logind: Callable[[], AbstractAsyncContextManager[Logind]],
        pods: Callable[[], Pods],
        *,
        tell: Callable[[str, str, str], None],
        changed: Callable[[], None],
        told: Callable[[], Coroutine[Any, Any, None]],
        times: ShutdownTimes,
        clock: Clock,
    ) -> None:
        self.shutting_down = False
        self._periods, self._logind, self._pods = periods, logind, pods
        self._tell, self._changed, self._told, self._clock = tell, changed, told, clock
        self._times = times
        self._complained = False

    async def run(self) -> None:
        """Work until cancelled; done at once on a node that is not asked to delay shutdowns."""
        while self._periods:
            try:
                async with self._logind() as logind:
                    await self._follow(logind)
            except (OSError, Refused) as error:
                self._complain(str(error))
            await sleep(self._clock, RETRY_SECONDS)

    async def _follow(self, logind: Logind) -> None:
        """Until the bus goes away. A lock is held all the time but after the pods have ended."""
        await self._ask_for_time(logind)
        shutdowns = await logind.watch()
        with ExitStack() as lock:
            if await logind.is_shutting_down():  # whoever was the kubelet before us saw it begin
                await self._shut_down()
            else:
                lock.callback(await logind.inhibit())
            self._complained = False
            async for begins in shutdowns:
                if begins:
                    await self._shut_down()
                    lock.close()
                else:
                    self._tell(NORMAL, "Shutdown", "Shutdown manager detected shutdown cancellation")
                    self._show(False)
                    lock.callback(await logind.inhibit())

    async def _ask_for_time(self, logind: Logind) -> None:
        """Have logind wait as long as all periods last together."""
        wanted, limit = sum(each.seconds for each in self._periods), await logind.delay_limit()
        if limit >= wanted:
            return
        file = await logind.raise_delay_limit(wanted)
        now = await logind.delay_limit()
        if now < wanted:
            raise Refused(
                f"unable to update logind InhibitDelayMaxSec to {wanted:.0f} s (ShutdownGracePeriod) in {file}:"
                f" its current value is {now:.0f} s"
            )
        message = f"logind delays shutdowns by {now:.0f} s instead of {limit:.0f} s at most: {file} says so"
        self._tell(NORMAL, "InhibitDelayRaised", message)

    async def _shut_down(self) -> None:
        self._tell(NORMAL, "Shutdown", "Shutdown manager detected shutdown event")
        self._show(True)
        self._times.begin()
        pods = self._pods()
        for period, leaving in phases(self._periods, pods.running()):
            for pod in leaving:
                pods.end(pod.metadata.uid, msgspec.structs.replace(SHUTDOWN, grace=grace(period, pod)))
            uids = [pod.metadata.uid for pod in leaving]
            if not await self._within(period.seconds, pods.until_ended(uids)):
                log.warning("not all pods of priority %d ended within %d s", period.priority, period.seconds)
        await self._within(TELLING_SECONDS, self._told())
        self._times.end()

    def _show(self, shutting_down: bool) -> None:
        self.shutting_down = shutting_down
        self._changed()

    async def _within(self, seconds: float, work: Coroutine[Any, Any, None]) -> bool:
        """Whether something ended in time; else it is called off."""
        task, timer = asyncio.create_task(work), asyncio.create_task(sleep(self._clock, seconds))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            task.cancel()
            timer.cancel()

    def _complain(self, why: str) -> None:
        """Once, not at every try."""
        if not self._complained:
            self._complained = True
            message = f"pods will have no time to end when this machine shuts down: {why}"
            self._tell(WARNING, "NodeShutdownNotDelayed", message)
