"""The one reconcile loop, and what every controller is given.

A controller is a function from a key to "look again in so many seconds, or when something changes". It compares wish and
finding as they are now; events only say which key to look at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock
from minikube_raw.client.events import EventRecorder
from minikube_raw.client.informer import Informers
from minikube_raw.client.rest import Client
from minikube_raw.client.workqueue import WorkQueue
from minikube_raw.controllers.options import Options

log = logging.getLogger(__name__)

Reconcile = Callable[[str], Awaitable[float | None]]


class Context(msgspec.Struct, frozen=True):
    """What all controllers of a process share. `recorders` are run by the manager."""

    client: Client
    informers: Informers
    clock: Clock
    options: Options
    recorders: dict[str, EventRecorder] = {}

    def recorder(self, component: str) -> EventRecorder:
        """Return the recorder of a component, one per name."""
        if component not in self.recorders:
            self.recorders[component] = EventRecorder(self.client, component, clock=self.clock)
        return self.recorders[component]


class Controller:
    """Runs `reconcile` over the keys of `queue`, several keys at a time, each key one at a time."""

    def __init__(self, name: str, reconcile: Reconcile, context: Context, *, workers: int = 5) -> None:
        self.name = name
        self.queue = WorkQueue(clock=context.clock)
        self._reconcile = reconcile
        self._informers = context.informers
        self._workers = workers

    async def run(self) -> None:
        """Work until cancelled, once every informer holds its first list: half a picture would make wrong decisions."""
        await self._informers.wait_synced()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._workers):
                tasks.create_task(self._work(), name=f"{self.name} {number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                again = await self._reconcile(key)
            except (StatusError, OSError) as error:
                delay = self.queue.add_rate_limited(key)
                # A conflict is how a controller learns that its copy was old; it is part of normal work.
                level = logging.DEBUG if isinstance(error, StatusError) and error.code == 409 else logging.INFO
                log.log(level, "%s: %s failed, again in %.3f s: %s", self.name, key, delay, error)
            except Exception:
                # A defect met by one object must not stop the work on all others.
                delay = self.queue.add_rate_limited(key)
                log.exception("%s: %s failed, again in %.3f s", self.name, key, delay)
            else:
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, again)
            finally:
                self.queue.done(key)
