"""Who waits for files to change: one inotify descriptor on the event loop, shared by log followers and manifests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from minikube_raw.linux import inotify

_LOG = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE
DIRECTORY = inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM | inotify.IN_DELETE


class FileWatcher:
    """Opened when first used; `close` ends it."""

    def __init__(self) -> None:
        self._fd = -1
        self._callbacks: dict[int, list[Callable[[], None]]] = {}

    def watch(self, path: str, callback: Callable[[], None], mask: int = _LOG) -> Callable[[], None]:
        """Call `callback` when something in a directory changes; returns what ends that. Raises OSError."""
        if self._fd < 0:
            self._fd = inotify.inotify_init()
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        watch = inotify.add_watch(self._fd, path, mask)
        self._callbacks.setdefault(watch, []).append(callback)
        return lambda: self._unwatch(watch, callback)

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        for watch in {event.watch for event in inotify.read_events(self._fd)}:
            for callback in list(self._callbacks.get(watch, ())):
                callback()

    def _unwatch(self, watch: int, callback: Callable[[], None]) -> None:
        callbacks = self._callbacks.get(watch, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks and self._callbacks.pop(watch, None) is not None and self._fd >= 0:
            inotify.remove_watch(self._fd, watch)
