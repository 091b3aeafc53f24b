"""Ends containers of a pod: preStop hook, turn, stop signal, kill, within one grace period that may become shorter meanwhile.

Main containers go side by side; a sidecar waits for them and for the sidecars started after it. A hook and the wait for
one's turn use up the grace, but two seconds are always left between signal and kill. As killContainer in Kubernetes'
kuberuntime manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

import msgspec

from minikube_raw.api.core import Container, Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import hooks
from minikube_raw.kubelet.pods import container, is_sidecar
from minikube_raw.kubelet.probe_actions import Asked
from minikube_raw.kubelet.tools import Tools
from minikube_raw.runtime import cri

MINIMUM_SECONDS = 2.0


class Stop(msgspec.Struct, frozen=True):
    """One container to end; message goes into its Killing Event. `hook`: its preStop hook runs before."""

    status: cri.ContainerStatus
    message: str
    hook: bool = True


class Window:
    """The time a stop may take: what `grace()` says now, counted from its beginning."""

    def __init__(self, clock: Clock, grace: Callable[[], float]) -> None:
        self._clock, self._grace = clock, grace
        self._began = clock.monotonic()
        self._look = asyncio.Event()

    def end(self) -> float:
        """When it is over, on the monotonic clock."""
        return self._began + self._grace()

    def left(self) -> float:
        """Seconds."""
        return self.end() - self._clock.monotonic()

    def look_again(self) -> None:
        """The grace may have become shorter."""
        self._look.set()

    async def changed(self) -> None:
        """Wait for the next look_again(), or the last one that nobody has seen."""
        await self._look.wait()
        self._look.clear()

    async def spend_on(self, work: Coroutine[Any, Any, None]) -> bool:
        """Wait for something as long as there is time, then call it off; whether it ended. Raises what it raises."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and (left := self.left()) > 0:
                self._look.clear()
                timer = self._clock.call_later(left, self._look.set)
                looking = asyncio.create_task(self._look.wait())
                await asyncio.wait({task, looking}, return_when=asyncio.FIRST_COMPLETED)
                looking.cancel()
                timer.cancel()
            if task.done():
                task.result()
                return True
            return False
        finally:
            task.cancel()


class Stopper:
    """Ends the containers of one pod for its worker."""

    def __init__(self, tools: Tools, changed: asyncio.Event) -> None:
        self._tools, self._changed = tools, changed

    async def stop(
        self,
        pod: Pod | None,
        stops: Sequence[Stop],
        grace: Callable[[], float],
        pod_ips: tuple[str, ...] = (),
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Return when all have ended. When `changed` is set, `grace` is asked again and `meanwhile` called."""
        if not stops:
            return
        ended = {each.status.name: asyncio.Event() for each in stops}
        windows = {each.status.name: Window(self._tools.clock, grace) for each in stops}
        for each in stops:
            if pod is not None:
                self._tools.record(pod, "Normal", "Killing", each.message, each.status.name)

        async def stop_one(each: Stop) -> None:
            status = each.status
            try:
                if each.hook:
                    await self._give_notice(pod, status, windows[status.name], ended, pod_ips)
                await self._end(status, windows[status.name])
            except cri.RuntimeServiceError as error:
                if pod is not None:
                    what = f'failed to "KillContainer" for "{status.name}" with {error.reason}: "{error}"'
                    self._tools.record(pod, "Warning", "FailedKillPod", f"error killing pod: {what}")
                raise
            finally:
                ended[status.name].set()

        watching = asyncio.create_task(self._watch(windows.values(), meanwhile))
        # No TaskGroup: one that fails would call off the others, and a cancellation of ours would be lost beside its error.
        stopping = [asyncio.create_task(stop_one(each)) for each in stops]
        try:
            await asyncio.wait(stopping)
        finally:
            for task in (watching, *stopping):
                task.cancel()
        if errors := [error for task in stopping if (error := task.exception()) is not None]:
            raise errors[0]

    async def _watch(self, windows: Collection[Window], meanwhile: Callable[[], Awaitable[None]] | None) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for each in windows:
                each.look_again()
            if meanwhile is not None:
                await meanwhile()

    async def _give_notice(
        self,
        pod: Pod | None,
        status: cri.ContainerStatus,
        window: Window,
        ended: dict[str, asyncio.Event],
        pod_ips: tuple[str, ...],
    ) -> None:
        """Run its hook and wait for its turn."""
        wanted = container(pod, status.name) if pod is not None else None
        if pod is not None and wanted is not None:
            await self._pre_stop(pod, wanted, status, window, pod_ips)
            before = [ended[name] for name in goes_after(pod, status.name) if name in ended]
            if before:
                await window.spend_on(_all_set(before))

    async def _pre_stop(
        self, pod: Pod, wanted: Container, status: cri.ContainerStatus, window: Window, pod_ips: tuple[str, ...]
    ) -> None:
        handler = wanted.lifecycle.pre_stop if wanted.lifecycle is not None else None
        if handler is None:
            return
        address = hooks.address(pod_ips, self._tools.node().ip, host_network=pod.spec.host_network)
        asked = Asked(pod, wanted, status.id, address)
        try:
            done = await window.spend_on(hooks.run(self._tools.runtime, self._tools.clock, asked, handler))
        except hooks.HookError:
            done = False
        if not done:
            self._tools.record(pod, "Warning", "FailedPreStopHook", "PreStopHook failed", wanted.name)

    async def _end(self, status: cri.ContainerStatus, window: Window) -> None:
        """Signal, wait, kill; a grace that becomes shorter holds at once."""
        stop, given = self._tools.runtime.stop_container, window.end()
        stopping = {asyncio.create_task(stop(status.id, _whole(max(window.left(), MINIMUM_SECONDS))))}
        looking = asyncio.create_task(window.changed())
        try:
            while not any(each.done() for each in stopping):
                await asyncio.wait({*stopping, looking}, return_when=asyncio.FIRST_COMPLETED)
                if looking.done():
                    looking = asyncio.create_task(window.changed())
                if window.end() < given:
                    given = window.end()
                    stopping.add(asyncio.create_task(stop(status.id, _whole(max(window.left(), MINIMUM_SECONDS)))))
            await asyncio.gather(*stopping)
        finally:
            looking.cancel()
            for each in stopping:
                each.cancel()


def goes_after(pod: Pod, name: str) -> list[str]:
    """The containers that end before this one: for a sidecar the main ones and every sidecar after it."""
    sidecars = [each.name for each in pod.spec.init_containers if is_sidecar(each)]
    if name not in sidecars:
        return []
    return [*(each.name for each in pod.spec.containers), *sidecars[sidecars.index(name) + 1 :]]


async def _all_set(events: Sequence[asyncio.Event]) -> None:
    for each in events:
        await each.wait()


def _whole(seconds: float) -> float:
    """Whole seconds where it is one but for rounding, so that a grace period that was hardly used is told as it was given."""
    return round(seconds) if abs(seconds - round(seconds)) < 0.05 else seconds
