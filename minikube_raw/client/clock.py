"""Time as something that can be passed in: loops ask a Clock, so that tests and simulations move it.

The real clock is the event loop's timer. Nothing in here polls; a timer fires once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from minikube_raw.api import times


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless once it has fired."""
        ...


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for waiting."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` once, on the event loop, after `seconds`."""
        ...


class SystemClock:
    """The host's clocks and the running event loop's timers."""

    def now(self) -> float:
        """Seconds since the epoch, as the host has them."""
        return time.time()

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC: an hour's jump of the host's date does not move it."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """The event loop's call_later."""
        return asyncio.get_running_loop().call_later(seconds, callback)


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock that stands still until `advance` moves it; timers fire in order, each at its own time."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._elapsed = 0.0
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds since the epoch, as moved."""
        return self._now

    def monotonic(self) -> float:
        """Seconds moved so far."""
        return self._elapsed

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Remember `callback`; `advance` runs it."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._elapsed + max(seconds, 0.0), next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, running the timers that fall due, also those that these start."""
        end = self._elapsed + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._move_to(max(due, self._elapsed))
            if timer.callback is not None:
                timer.callback()
        self._move_to(end)

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as a corrected date does."""
        self._now += seconds

    def _move_to(self, elapsed: float) -> None:
        self._now += elapsed - self._elapsed
        self._elapsed = elapsed


async def sleep(clock: Clock, seconds: float) -> None:
    """asyncio.sleep on a Clock."""
    fired = asyncio.Event()
    timer = clock.call_later(seconds, fired.set)
    try:
        await fired.wait()
    finally:
        timer.cancel()


def timestamp(seconds: float) -> str:
    """Write seconds since the epoch as metav1.Time."""
    return times.time(datetime.fromtimestamp(seconds, UTC))


def micro_timestamp(seconds: float) -> str:
    """Write seconds since the epoch as metav1.MicroTime, as Leases carry it."""
    return times.micro_time(datetime.fromtimestamp(seconds, UTC))


def seconds_of(text: str | None) -> float | None:
    """Return the seconds since the epoch of a metav1.Time or MicroTime; None for an absent one."""
    return times.parse(text).timestamp() if text else None
