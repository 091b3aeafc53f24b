"""Which images a node deletes: those that no container holds, the longest unused first, when their disk is nearly full.

Rules and words are the kubelet's (pkg/kubelet/images/image_gc_manager.go). An image counts as used while any container of
this host holds it, running or not. What was freed is read from the file system: images share layers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from minikube_raw.client.clock import Clock, sleep
from minikube_raw.kubelet.images import ImageSource, NodeImage
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.disk_usage import FileSystem

log = logging.getLogger(__name__)
PERIOD = 300.0
_OFF = 100  # a high threshold of 100 % is never exceeded
_EVERYTHING = 1 << 62


class _Known(msgspec.Struct):
    """When an image was first seen and last used; 0 for one that was here before this kubelet."""

    detected: float
    used: float = 0.0


class ImageCollector:
    """The image garbage collection of one node. `disk` reads the file system that images lie on."""

    def __init__(
        self,
        options: KubeletOptions,
        images: ImageSource,
        disk: Callable[[], FileSystem],
        told: Callable[[str, str], None],
        clock: Clock,
    ) -> None:
        self._images, self._disk, self._told, self._clock = images, disk, told, clock
        self._high = options.image_gc_high_threshold_percent
        self._low = options.image_gc_low_threshold_percent
        self._youngest = options.image_minimum_gc_age
        self._oldest = options.image_maximum_gc_age
        self._began = clock.now()
        self._known: dict[str, _Known] = {}
        self._lock = asyncio.Lock()
        self._first = True
        self._failed = False

    async def run(self) -> None:
        """Look every five minutes until cancelled."""
        while True:
            try:
                await self.collect()
            except Exception:
                log.exception("images: another look in %.0f s", PERIOD)  # the top of the loop
            await sleep(self._clock, PERIOD)

    async def collect(self) -> None:
        """Delete what has not been used for too long; then, above the high threshold, enough to come to the low one."""
        async with self._lock:
            failure = await asyncio.to_thread(self._collect)
        again, self._failed = self._failed, bool(failure)
        if failure:
            self._told("FreeDiskSpaceFailed", failure)
        if failure and again:
            self._told("ImageGCFailed", failure)

    async def delete_unused(self) -> int:
        """Delete every image that nobody holds and that is not brand-new; the bytes this freed."""
        async with self._lock:
            return await asyncio.to_thread(self._free, _EVERYTHING)

    def _collect(self) -> str:
        """Why there is still too little room, or ""."""
        for image in self._unused():
            if self._oldest and self._clock.now() - self._last_use(image) > self._oldest:
                self._delete(image)
        disk = self._disk()
        used = 100 - disk.available * 100 // disk.capacity if disk.capacity else 0
        if self._high >= _OFF or used < self._high:
            return ""
        wanted = disk.capacity * (100 - self._low) // 100 - disk.available
        freed = self._free(wanted)
        if freed >= wanted:
            return ""
        return (
            f"Insufficient free disk space on the node's image filesystem ({used}% of {_size(disk.capacity)} used). "
            f"Failed to free sufficient space by deleting unused images (freed {freed} bytes). "
            "Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
        )

    def _free(self, wanted: int) -> int:
        """Delete unused images until `wanted` bytes are free again; the bytes that are."""
        before = self._disk().available
        freed = 0
        for image in self._unused():
            if self._clock.now() - self._known[image.id].detected < self._youngest:
                continue  # it may have been fetched for a container that is about to start
            self._delete(image)
            freed = max(self._disk().available - before, 0)
            if freed >= wanted:
                break
        return freed

    def _delete(self, image: NodeImage) -> None:
        if self._images.remove(image.id):
            self._known.pop(image.id, None)
            log.info("image %s is removed: unused", (*image.references, image.id)[0])

    def _unused(self) -> list[NodeImage]:
        """Take note of what is there and what is used; the others, longest unused first."""
        now, held, images = self._clock.now(), self._images.held(), self._images.list()
        first, self._first = self._first, False
        self._known = {each.id: self._known.get(each.id) or _Known(detected=0.0 if first else now) for each in images}
        for each in images:
            if each.digest in held:
                self._known[each.id].used = now
        free = [each for each in images if each.digest not in held]
        return sorted(free, key=lambda each: (self._known[each.id].used, self._known[each.id].detected))

    def _last_use(self, image: NodeImage) -> float:
        """When an image's age begins: an unused one's with its detection, and none before this kubelet."""
        known = self._known.get(image.id) or _Known(detected=0.0)
        return max(known.used, known.detected, self._began)


def _size(count: int) -> str:
    """Bytes for people, as formatSize writes them."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"
