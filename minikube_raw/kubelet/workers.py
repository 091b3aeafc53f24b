"""The pod workers of a node: one task per pod uid, made when a pod is first seen, gone when nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import preemption
from minikube_raw.kubelet.classshares import ClassShares
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import key
from minikube_raw.kubelet.podworker import PodWorker
from minikube_raw.kubelet.tools import Tools

_DELETION_SECONDS = 10.0


class PodWorkers:
    """Workers by uid. Tasks belong to the task group given, so that they end with the kubelet."""

    def __init__(
        self,
        tools: Tools,
        tasks: asyncio.TaskGroup,
        shares: ClassShares,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self._tools = tools
        self._shares = shares
        self._on_gone = on_gone
        self._tasks = tasks
        tools.room.on_release(self._room_freed)
        tools.room.on_preempt(self._preempt)
        self._workers: dict[str, PodWorker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._some_ended = asyncio.Event()

    def update(self, pod: Pod) -> None:
        """A pod is wished for, or its wish has changed."""
        self._shares.add(pod)
        worker = self._workers.get(pod.metadata.uid)
        if worker is None:
            self._start(PodWorker(pod.metadata.uid, self._tools, pod))
        else:
            worker.update(pod)

    def has_another(self, pod: Pod) -> bool:
        """Whether a pod of the same name is still here: what replaces it waits until it is gone (`on_gone`)."""
        others = (each.pod for each in self._workers.values() if each.uid != pod.metadata.uid)
        return any(other is not None and key(other) == key(pod) for other in others)

    def remove(self, uid: str) -> None:
        """A pod is not wished for any more; a worker that has never heard of it looks whether something is left.

        Its room is free at once, though it may still be ending: the scheduler, which sees objects alone, gives it away now.
        """
        self._tools.room.release(uid)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(None)

    def end(self, uid: str, ending: Ending) -> None:
        """Stop a pod as a whole and show it as Failed; nothing happens when there is no such pod, or it has ended."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.end(ending)

    def running(self) -> list[Pod]:
        """The pods that have not ended."""
        return [each.pod for each in self._workers.values() if each.pod is not None and not each.ended]

    async def until_ended(self, uids: Collection[str]) -> None:
        """Wait until nothing of these pods runs, and their volumes are given back."""
        while any(not self._workers[uid].ended for uid in uids if uid in self._workers):
            self._some_ended.clear()
            await self._some_ended.wait()

    async def remove_dead(self) -> None:
        """Delete the containers of pods that have ended, and what is still being deleted of others."""
        for worker in list(self._workers.values()):
            await worker.remove_dead()
        await self._tools.runtime.removals_done(_DELETION_SECONDS)
        await self._tools.preparation.settled(_DELETION_SECONDS)

    async def close(self) -> None:
        """Let go of all pods, whatever state they are in."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look_again(self, uid: str) -> None:
        """Something about a pod may have changed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.look_again()

    def objects_changed(self, uid: str) -> None:
        """Something a pod refers to changed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.objects_changed()

    def _preempt(self, pod: Pod) -> None:
        self._tools.record(pod, "Warning", preemption.PREEMPTING, preemption.MESSAGE)
        self.end(pod.metadata.uid, preemption.PREEMPTED)

    def _room_freed(self) -> None:
        self._some_ended.set()
        for worker in self._workers.values():
            worker.room_freed()

    def get(self, uid: str) -> PodWorker | None:
        """The worker of a pod."""
        return self._workers.get(uid)

    def all(self) -> Collection[PodWorker]:
        """Every worker."""
        return self._workers.values()

    async def adopt_leftovers(self, directories: Collection[str]) -> None:
        """Give a worker to everything on the node that no wish names: pods deleted while no kubelet ran are cleaned up."""
        self._tools.preparation.empty_trash()
        left = {sandbox.config.uid for sandbox in await self._tools.runtime.list_pod_sandboxes()} | set(directories)
        for uid in left - self._workers.keys():
            worker = PodWorker(uid, self._tools)
            worker.update(None)
            self._start(worker)
        self._tools.links.sweep(self._workers.keys())

    def _start(self, worker: PodWorker) -> None:
        self._workers[worker.uid] = worker
        self._running[worker.uid] = self._tasks.create_task(self._run(worker), name=f"pod {worker.uid}")

    async def _run(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.pop(worker.uid, None)
            self._running.pop(worker.uid, None)
            self._shares.remove(worker.uid)
            self._tools.room.release(worker.uid)
            self._some_ended.set()
            if self._on_gone is not None:
                self._on_gone()
