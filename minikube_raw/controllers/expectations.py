"""What a controller has done that its cache does not show yet, so that it does not do it again.

Without this a ReplicaSet that has just created three pods would look at a cache without them and create three more.
An expectation that is never met (its event fell into a relist) is given up after five minutes.
"""

from __future__ import annotations

from minikube_raw.client.clock import Clock

TIMEOUT = 300.0


class Expectations:
    """Pending creations and deletions per controller key, by pod key and pod uid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[str, dict[str, float]] = {}

    def expect(self, key: str, what: str) -> None:
        """Wait for `what` (a pod's key for a creation, its uid for a deletion) to be seen."""
        self._pending.setdefault(key, {})[what] = self._clock.monotonic() + TIMEOUT

    def seen(self, key: str, what: str) -> None:
        """The watch has shown `what`, or it will never happen."""
        pending = self._pending.get(key)
        if pending is not None:
            pending.pop(what, None)
            if not pending:
                del self._pending[key]

    def met(self, key: str) -> bool:
        """Whether the cache shows everything done so far."""
        now = self._clock.monotonic()
        return all(deadline <= now for deadline in self._pending.get(key, {}).values())

    def forget(self, key: str) -> None:
        """The controller's object is gone."""
        self._pending.pop(key, None)
