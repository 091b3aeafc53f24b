"""What a pod's worker may not try yet and why, with the one timer that makes it look again. Times are the clock's seconds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from minikube_raw.client.clock import Clock, Timer
from minikube_raw.kubelet.circumstances import Waiting


class Held(msgspec.Struct, frozen=True):
    """Why a container cannot be started now, and when to try again."""

    waiting: Waiting
    until: float


class Holds:
    """Holds by container name; "" is the pod itself. `look_again` is called when one may be over."""

    def __init__(self, clock: Clock, look_again: Callable[[], None]) -> None:
        self._clock = clock
        self._look_again = look_again
        self._held: dict[str, Held] = {}
        self._timer: Timer | None = None

    def hold(self, name: str, waiting: Waiting, until: float) -> None:
        """Do not try a container (or, named "", the pod) again before `until`."""
        self._held[name] = Held(waiting, until)
        self.look_again_at(until)

    def is_held(self, name: str) -> bool:
        """Whether it is too early to try."""
        held = self._held.get(name)
        return held is not None and self._clock.now() < held.until

    def waiting(self) -> dict[str, Waiting]:
        """What each container waits for, as its status shows it, also while it is being tried again."""
        return {name: each.waiting for name, each in self._held.items() if name}

    def release(self, name: str) -> None:
        """It has been made: nothing is in its way any more."""
        self._held.pop(name, None)

    def release_all_but(self, reason: str) -> None:
        """Try again whatever waits for another reason."""
        self._held = {name: each for name, each in self._held.items() if each.waiting.reason == reason}

    def look_again_at(self, when: float) -> None:
        """Keep the earliest timer only; a look too many does no harm."""
        self.cancel()
        now = self._clock.now()
        self._timer = self._clock.call_later(max(min([when, *self._pending(now)]) - now, 0), self._fired)

    def cancel(self) -> None:
        """The worker ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _fired(self) -> None:
        self._timer = None
        self._look_again()
        if later := self._pending(self._clock.now()):
            self.look_again_at(min(later))

    def _pending(self, now: float) -> list[float]:
        return [each.until for each in self._held.values() if each.until > now]
