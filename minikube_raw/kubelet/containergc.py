"""Removes what containers leave behind once they have been restarted: the kubelet's container garbage collection.

Of each container the newest run and the one before it stay, for its status and for `kubectl logs --previous`; older ones go, with
their logs. A pod that goes takes everything along without us. Source: pkg/kubelet/kuberuntime/kuberuntime_gc.go.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress

from minikube_raw.client.clock import Clock, sleep
from minikube_raw.kubelet import logfiles
from minikube_raw.runtime import cri

log = logging.getLogger(__name__)
COLLECT_SECONDS = 10.0
KEPT_RUNS = 2


class ContainerGC:
    """Looks for old runs from time to time."""

    def __init__(self, runtime: cri.RuntimeService, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await sleep(self._clock, COLLECT_SECONDS)
            await self.collect()

    async def collect(self) -> None:
        """Remove every run that is too old. What fails is tried again the next time."""
        pods = {sandbox.id: sandbox.config.uid for sandbox in await self._runtime.list_pod_sandboxes()}
        for old in old_runs(await self._runtime.list_containers(), pods):
            try:
                await self._runtime.remove_container(old.id)
                await asyncio.to_thread(_remove_log, old.log_path)
            except (OSError, cri.RuntimeServiceError) as error:
                log.warning("run %d of container %s could not be removed: %s", old.attempt, old.name, error)


def old_runs(containers: Iterable[cri.ContainerStatus], pods: dict[str, str]) -> list[cri.ContainerStatus]:
    """The runs that have ended and are followed by two newer ones of the same container; `pods` are uids by sandbox."""
    runs: dict[tuple[str, str], list[cri.ContainerStatus]] = {}
    for each in containers:
        runs.setdefault((pods.get(each.sandbox_id, each.sandbox_id), each.name), []).append(each)
    old = []
    for found in runs.values():
        newest_first = sorted(found, key=lambda each: (each.attempt, each.created_at), reverse=True)
        old += [each for each in newest_first[KEPT_RUNS:] if each.state is cri.ContainerState.EXITED]
    return old


def _remove_log(path: str) -> None:
    if path:
        for name in (*logfiles.rotated(path), path):
            with suppress(FileNotFoundError):
                os.unlink(name)
