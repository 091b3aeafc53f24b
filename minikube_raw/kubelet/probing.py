"""Runs the probes of one pod's containers: one timer per probe, each run a short task, verdicts by container id.

`follow` compares with what runs now, as everything in the kubelet does; `changed` is called when a verdict changes what the
pod's worker would say or do. What the results mean is `probes`' business, how to ask is `probe_actions`'.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

from minikube_raw.api.core import Container, Pod, Probe
from minikube_raw.client.clock import Timer
from minikube_raw.kubelet import hooks, probe_actions, probes
from minikube_raw.kubelet.pods import container
from minikube_raw.kubelet.probes import Kind, Outcome, Result, Streak
from minikube_raw.kubelet.syncpod import Found
from minikube_raw.kubelet.tools import Tools
from minikube_raw.runtime import cri

TRIES = 3  # when asking itself fails, which says nothing of the container


class Prober:
    """The probes of one pod."""

    def __init__(
        self,
        tools: Tools,
        changed: Callable[[], None],
        *,
        before: Mapping[str, tuple[bool, bool]] = {},
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`before`: see said_before()."""
        self._tools, self._changed, self._before, self._jitter = tools, changed, before, jitter
        self._runs: dict[str, _ContainerProbes] = {}

    def follow(self, pod: Pod, found: Found, *, ending: bool = False) -> None:
        """Probe what runs and nothing else.

        While the pod ends only readiness goes on: a container on its way out is not restarted, but may stop being ready.
        """
        running = {each.id: each for each in found.running()}
        ips = found.ready_sandbox.ips if found.ready_sandbox is not None else ()
        address = hooks.address(ips, self._tools.node().ip, host_network=pod.spec.host_network)
        for gone in self._runs.keys() - running.keys():
            self._runs.pop(gone).stop()
        for container_id, status in running.items():
            wanted = container(pod, status.name)
            if wanted is None or not probes.probes_of(wanted):
                continue
            known = self._runs.get(container_id)
            if known is None:
                said = self._before.get(container_id)
                known = _ContainerProbes(self._tools, status, wanted, said, self._changed, self._jitter)
                self._runs[container_id] = known
            known.follow(pod, wanted, address, ending=ending)

    def unready(self) -> frozenset[str]:
        """Ids of containers that their readiness probe does not let be ready."""
        return frozenset(name for name, each in self._runs.items() if not each.ready)

    def not_started(self) -> frozenset[str]:
        """Ids of containers whose startup probe has not succeeded."""
        return frozenset(name for name, each in self._runs.items() if not each.started)

    def failed(self) -> dict[str, str]:
        """Containers to be restarted: id → the probe that failed."""
        return {name: each.failed.value for name, each in self._runs.items() if each.failed is not None}

    def stop(self) -> None:
        """Ask nothing any more."""
        for each in self._runs.values():
            each.stop()
        self._runs.clear()


def said_before(status: Mapping[str, Any]) -> dict[str, tuple[bool, bool]]:
    """What a PodStatus says of running containers, by id: (started, ready). A restarted kubelet goes on from there."""
    said = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {
        each["containerID"].partition("://")[2]: (bool(each.get("started")), bool(each.get("ready")))
        for each in said
        if each.get("containerID") and "running" in each.get("state", {})
    }


class _ContainerProbes:
    """The probes of one run of a container."""

    def __init__(
        self,
        tools: Tools,
        status: cri.ContainerStatus,
        wanted: Container,
        before: tuple[bool, bool] | None,
        changed: Callable[[], None],
        jitter: Callable[[], float],
    ) -> None:
        self._tools, self._status, self._changed, self._jitter = tools, status, changed, jitter
        self._probes = probes.probes_of(wanted)
        self._tickers: dict[Kind, _Ticker] = {}
        started, ready = before or (False, False)
        self.started = started or Kind.STARTUP not in self._probes
        self.ready = Kind.READINESS not in self._probes or (ready and self.started)
        self.failed: Kind | None = None
        self._adopted = before is not None
        self._asked: probe_actions.Asked | None = None

    def follow(self, pod: Pod, wanted: Container, address: str, *, ending: bool) -> None:
        """Have the right probes running."""
        self._asked = probe_actions.Asked(pod, wanted, self._status.id, address)
        due = self._due(ending=ending)
        for kind in self._tickers.keys() - due:
            self._tickers.pop(kind).stop()
        for kind in due - self._tickers.keys():
            self._tickers[kind] = _Ticker(self, kind, self._probes[kind], self._first(kind))

    def _due(self, *, ending: bool) -> set[Kind]:
        if ending or self.failed is not None:
            return {Kind.READINESS} & self._probes.keys() if self.started else set()
        if not self.started:
            return {Kind.STARTUP}
        return self._probes.keys() - {Kind.STARTUP}

    def _first(self, kind: Kind) -> float:
        """Seconds until the first run; after a restart of the kubelet they are spread over the period."""
        probe = self._probes[kind]
        if self._adopted:
            return self._jitter() * probe.period_seconds
        return probes.next_due(kind, probe, self.age(), ran=False)

    def age(self) -> float:
        """Seconds since the container started."""
        return max(self._tools.clock.now() - self._status.started_at / 1e9, 0.0)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """One timer on the node's clock."""
        return self._tools.clock.call_later(seconds, callback)

    async def ask(self, kind: Kind, probe: Probe) -> Result:
        """Run a probe once, and tell what it said."""
        asked = self._asked
        assert asked is not None
        for _ in range(TRIES):
            began = self._tools.clock.now()
            result = await probe_actions.run(self._tools.runtime, asked, probe)
            if result.outcome is not Outcome.UNKNOWN:
                break
        if result.outcome is not Outcome.UNKNOWN:
            self._tools.probed.add(
                asked.pod, asked.container.name, kind, result, max(self._tools.clock.now() - began, 0.0)
            )
        told = probes.event(kind, result)
        if told is not None:
            self._tools.record(asked.pod, "Warning", told[0], told[1], asked.container.name)
        return result

    def judge(self, kind: Kind, *, succeeded: bool) -> None:
        """A probe has reached a threshold."""
        before = (self.started, self.ready, self.failed)
        if kind is Kind.READINESS:
            self.ready = succeeded
        elif not succeeded:
            self.failed = kind
        elif kind is Kind.STARTUP:
            self.started = True
        if before != (self.started, self.ready, self.failed):
            self._changed()

    def stop(self) -> None:
        """Ask nothing any more."""
        for each in self._tickers.values():
            each.stop()
        self._tickers.clear()


class _Ticker:
    """One probe's timer, and the task of the run that is under way."""

    def __init__(self, owner: _ContainerProbes, kind: Kind, probe: Probe, first: float) -> None:
        self._owner, self._kind, self._probe = owner, kind, probe
        self._streak = Streak()
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        if first > 0:
            self._timer = owner.later(first, self._fire)
        else:
            self._fire()

    def stop(self) -> None:
        """No run any more; one under way is called off."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _fire(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        result = await self._owner.ask(self._kind, self._probe)
        self._task = None
        self._timer = self._owner.later(
            probes.next_due(self._kind, self._probe, self._owner.age(), ran=True), self._fire
        )
        if result.outcome is Outcome.UNKNOWN:
            return
        self._streak = self._streak.after(result.succeeded)
        verdict = self._streak.verdict(self._probe)
        if verdict is not None:
            self._owner.judge(self._kind, succeeded=verdict)
