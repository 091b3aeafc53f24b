"""The event loop of launcher and keepers: epoll(7), a handler per descriptor, and a few timers.

asyncio would cost each keeper several megabytes; this is all they need. Single-threaded on purpose: these processes fork
and change namespaces. epoll, since poll(2) would look at each of the launcher's connections, one per pod, on each event.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
HUNG_UP = 0  # EPOLLHUP and EPOLLERR are always told
_AT_ONCE = 64


class Loop:
    """Calls handlers of readable (or writable) descriptors until stop()."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._running = True

    def watch(self, fd: int, handler: Callable[[], object], events: int = READABLE) -> None:
        """Calls `handler` whenever `fd` is ready, hung up or broken."""
        self._handlers[fd] = handler
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Ends watching a descriptor; one that is not watched is fine. Call before closing it."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls `function` once, after `seconds`."""
        self._timers.append((time.monotonic() + seconds, function))

    def stop(self) -> None:
        """Makes run() return after the current round."""
        self._running = False

    def run(self) -> None:
        """Serves until stop()."""
        while self._running:
            for fd, _events in self._epoll.poll(self._timeout(), _AT_ONCE):
                handler = self._handlers.get(fd)  # an earlier handler of this round may have forgotten it
                if handler is not None:
                    handler()
            self._run_timers()

    def _timeout(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, min(when for when, _ in self._timers) - time.monotonic())

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        due = [function for when, function in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for function in due:
            function()
