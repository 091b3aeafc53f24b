"""The end of one pod: its containers stopped in order, its sandbox taken down, its end shown, and what it had on the node removed.

A pod that has ended keeps its containers and logs as long as its object is there; one that is deleted keeps nothing. Every
step may be repeated. Called by `podworker`, which decides that it is time.
"""

from __future__ import annotations

import asyncio
import glob
import shutil
from pathlib import Path
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import syncpod
from minikube_raw.kubelet.holds import Holds
from minikube_raw.kubelet.probing import Prober
from minikube_raw.kubelet.reporting import Reporter
from minikube_raw.kubelet.stopping import Stop, Stopper
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.wish import Wish
from minikube_raw.runtime import cri

Json = dict[str, Any]


class PodEnd:
    """Ends one pod (by uid) for its worker. `changed` says that the grace may have become shorter."""

    def __init__(
        self,
        uid: str,
        tools: Tools,
        wish: Wish,
        reporter: Reporter,
        prober: Prober,
        holds: Holds,
        changed: asyncio.Event,
    ) -> None:
        self._uid, self._tools, self._wish = uid, tools, wish
        self._reporter, self._prober, self._holds = reporter, prober, holds
        self._stopper = Stopper(tools, changed)
        self._cleaned = False
        self.done = False  # nothing of the pod runs any more, and its volumes are given back
        self._log_directories: set[str] = set()

    async def end(self, pod: Pod) -> None:
        """Stop everything, then show why. Nothing is removed: the containers' logs stay as long as the object."""
        found = await self._tools.find(self._uid)
        self._reporter.report(pod, found)
        await self._stop_all(pod, found)
        await self.finish(pod)

    async def finish(self, pod: Pod) -> None:
        """All main containers have ended for good: stop sidecars and sandbox, then show the terminal phase."""
        found = await self._tools.find(self._uid)
        if found.running():
            self._reporter.report(pod, found)
            await self._stop_all(pod, found)
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._reporter.terminated = True
        self._reporter.report(pod, await self._tools.find(self._uid))
        await self._release_volumes()
        self._over()

    async def keep(self, pod: Pod) -> None:
        """A pod that is Succeeded or Failed already: nothing of it runs; its containers stay for their logs."""
        self._reporter.terminated = True
        self._over()
        self._prober.stop()
        found = await self._tools.find(self._uid)
        self._tools.links.follow(self._uid, found.containers)
        for sandbox in found.sandboxes:
            if sandbox.state is cri.SandboxState.READY:
                await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        if found.sandboxes:
            self._reporter.report(pod, found)
        await self._release_volumes()

    async def remove_dead(self) -> None:
        """Let go of the containers and logs of a pod that has ended; its status stays as it is."""
        found = await self._tools.find(self._uid)
        for sandbox in found.sandboxes:
            await self._tools.runtime.remove_pod_sandbox(sandbox.id)
        if found.sandboxes:
            self._tools.links.follow(self._uid, ())
            await self._remove_logs()

    async def terminate(self, pod: Pod | None) -> bool:
        """Stop everything with the grace the deletion gives, show the end, delete the object; True when all is gone."""
        if not self._cleaned:
            await self._stop_and_remove(pod)
        if self._wish.wanted:
            return False
        self._tools.statuses.forget(self._uid)
        await self._remove_logs()
        return True

    async def stop_one(
        self, pod: Pod, container_id: str, message: str, own: int | None = None, *, hook: bool = True
    ) -> None:
        """Stop one container; `own` is the grace of the probe that failed."""
        found = await self._tools.find(self._uid)
        running = [each for each in found.running() if each.id == container_id]
        ips = found.sandbox.ips if found.sandbox is not None else ()
        stops = [Stop(each, message, hook) for each in running]
        await self._stopper.stop(pod, stops, lambda: self._wish.grace(running, own), ips)

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _stop_and_remove(self, pod: Pod | None) -> None:
        found = await self._tools.find(self._uid)
        if found.running():
            if pod is not None and self._wish.wanted:
                self._reporter.report(pod, found, terminating=True)
            await self._stop_all(pod, found)
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._reporter.terminated = True
        self._over()
        if pod is not None and self._wish.wanted:
            to_see = found.sandboxes or not _has_ended(self._reporter.known)
            self._reporter.tell_end(pod, await self._tools.find(self._uid) if to_see else None)
        await self._clean_up(pod, found)
        self._cleaned = True

    async def _stop_all(self, pod: Pod | None, found: syncpod.Found) -> None:
        """Every container, in the pod's order; a readiness that changes meanwhile is shown."""
        running = found.running()

        async def meanwhile() -> None:
            if pod is not None and self._wish.wanted:
                self._reporter.report(pod, await self._tools.find(self._uid), terminating=True)

        if pod is not None:
            self._prober.follow(pod, found, ending=True)
        ips = found.sandbox.ips if found.sandbox is not None else ()
        stops = [Stop(each, f"Stopping container {each.name}") for each in running]
        await self._stopper.stop(pod, stops, lambda: self._wish.grace(running), ips, meanwhile)
        self._prober.stop()

    async def _release_volumes(self) -> None:
        """Nothing reads a pod's volumes once it has ended, and they may be what fills the disk."""
        ending = self._wish.ending
        if ending is None or not ending.keeps_volumes:
            await self._tools.preparation.release_volumes(self._uid)

    def _over(self) -> None:
        self.done = True
        self._tools.room.release(self._uid)
        self._tools.probed.forget(self._uid)

    async def _clean_up(self, pod: Pod | None, found: syncpod.Found) -> None:
        """Remove what the pod has on the node, but its logs: they can be read as long as the object is there."""
        for sandbox in found.sandboxes:
            self._log_directories.add(sandbox.config.log_directory)
            await self._tools.runtime.remove_pod_sandbox(sandbox.id)
        self._tools.links.follow(self._uid, ())
        await self._tools.preparation.release(self._uid, pod)
        self._holds.cancel()
        self._prober.stop()
        self._tools.probed.forget(self._uid)

    async def _remove_logs(self) -> None:
        left = {str(each) for each in Path(self._tools.logs_dir).glob(f"*_{glob.escape(self._uid)}")}
        for directory in self._log_directories | left:
            await asyncio.to_thread(shutil.rmtree, directory, True)


def _has_ended(status: Json) -> bool:
    return status.get("phase") in ("Succeeded", "Failed")
