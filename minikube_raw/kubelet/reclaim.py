"""What a node gives up before it ends a pod for want of disk: see eviction.Reclaim."""

from __future__ import annotations

from collections.abc import Callable

from minikube_raw.kubelet.imagegc import ImageCollector
from minikube_raw.kubelet.workers import PodWorkers


class Reclaim:
    """Of one node; it has no workers yet while it starts."""

    def __init__(self, workers: Callable[[], PodWorkers | None], images: ImageCollector) -> None:
        self._workers = workers
        self.images = images

    async def dead_containers(self) -> None:
        """See eviction.Reclaim."""
        workers = self._workers()
        if workers is not None:
            await workers.remove_dead()

    async def unused_images(self) -> None:
        """See eviction.Reclaim."""
        await self.images.delete_unused()
