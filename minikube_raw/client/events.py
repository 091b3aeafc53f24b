"""The Event recorder: what happened to an object, for people, without ever holding up the loop that tells it.

Equal events raise a count, many alike ones are combined and floods are cut, with client-go's figures
(tools/record/events_cache.go). Events are best effort: when the server is away they are dropped after a few tries, and when
much happens at once they are written later, so that they do not take the CPU from what they tell about.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import msgspec

from minikube_raw.api.core import ObjectReference
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, sleep, timestamp
from minikube_raw.client.informer import Object
from minikube_raw.client.resources import EVENTS
from minikube_raw.client.rest import Client, PatchType, Resource

V = TypeVar("V")
log = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"

_QUEUE_LENGTH = 5000
_CACHE_SIZE = 4096
_SIMILAR_MAX, _SIMILAR_SECONDS = 10, 600.0
_BURST, _REFILL_PER_SECOND = 25.0, 1 / 300
_TRIES, _RETRY_SECONDS = 12, 10.0
_WRITES_AT_ONCE, _WRITES_PER_SECOND = 50.0, 50.0  # by one recorder; the second is a kubelet's --event-qps


def reference(resource: Resource[Any], view: Object, field_path: str = "") -> ObjectReference:
    """Return the reference to an object of a kind, or with `field_path` to a part of it (spec.containers{name})."""
    metadata, kind = view.metadata, resource.kind
    return ObjectReference(
        kind=kind.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        api_version=kind.api_version,
        resource_version=metadata.resource_version,
        field_path=field_path,
    )


class _Recorded(msgspec.Struct):
    """An event object on the server, as far as it matters for counting on."""

    namespace: str
    name: str
    count: int
    first: float


class _Similar(msgspec.Struct):
    messages: set[str]
    last: float


class _Bucket(msgspec.Struct):
    tokens: float
    last: float

    def fill(self, now: float, per_second: float, most: float) -> None:
        self.tokens = min(most, self.tokens + max(now - self.last, 0.0) * per_second)
        self.last = now


class _Recent(Generic[V]):
    """The entries used last, a bounded number of them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def add(self, key: Hashable, entry: V) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > _CACHE_SIZE:
            self._entries.popitem(last=False)

    def get_or_add(self, key: Hashable, entry: V) -> V:
        found = self.get(key)
        if found is None:
            self.add(key, entry)
            return entry
        return found


class EventRecorder:
    """Records events as one component. `event` returns at once; `run` writes them until it is cancelled."""

    # Shared: several recorders may tell about one object at the same moment.
    _last_name = 0

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock | None = None) -> None:
        self._client = client
        self._component, self._host = component, host
        self._clock: Clock = clock or SystemClock()
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUE_LENGTH)
        self._recorded: _Recent[_Recorded] = _Recent()
        self._similar: _Recent[_Similar] = _Recent()
        self._buckets: _Recent[_Bucket] = _Recent()
        self._writes = _Bucket(_WRITES_AT_ONCE, self._clock.monotonic())

    def event(self, about: ObjectReference, type_: str, reason: str, message: str) -> None:
        """Record that `reason` (CamelCase) happened to `about`; `type_` is NORMAL or WARNING. Floods are dropped."""
        now = self._clock.now()
        if not self._allowed(about, now):
            return
        try:
            self._queue.put_nowait({"about": about, "type": type_, "reason": reason, "message": message, "now": now})
        except asyncio.QueueFull:
            log.warning("event dropped, the queue is full: %s %s/%s %s", reason, about.namespace, about.name, message)

    async def run(self) -> None:
        """Write what was recorded until cancelled."""
        while True:
            event = await self._queue.get()
            await self._pace()
            try:
                await self._write(**event)
            except Exception:
                # Events tell about work; whatever is wrong with one of them must not end the work.
                log.exception("event not written: %s", event["reason"])
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until everything recorded so far is written."""
        await self._queue.join()

    def _allowed(self, about: ObjectReference, now: float) -> bool:
        """A token bucket per object: a burst of 25, then one event in five minutes."""
        bucket = self._buckets.get_or_add((about.kind, about.namespace, about.name, about.uid), _Bucket(_BURST, now))
        bucket.fill(now, _REFILL_PER_SECOND, _BURST)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _pace(self) -> None:
        """Wait until one more may be written."""
        self._writes.fill(self._clock.monotonic(), _WRITES_PER_SECOND, _WRITES_AT_ONCE)
        self._writes.tokens -= 1
        if self._writes.tokens < 0:
            await sleep(self._clock, -self._writes.tokens / _WRITES_PER_SECOND)

    async def _write(self, about: ObjectReference, type: str, reason: str, message: str, now: float) -> None:
        key, message = self._combine(about, type, reason, message, now)
        for _ in range(_TRIES):
            try:
                recorded = self._recorded.get(key)
                if recorded is None or not await self._count(recorded, message, now):
                    self._recorded.add(key, await self._create(about, type, reason, message, now))
                return
            except StatusError as error:
                # Refused: its namespace is going away, its object has an odd name; trying again would not help.
                log.info("event refused: %s %s/%s: %s", reason, about.namespace, about.name, error)
                return
            except OSError as error:
                log.info("event not written, again in %.0f s: %s", _RETRY_SECONDS, error)
                await sleep(self._clock, _RETRY_SECONDS)

    def _combine(
        self, about: ObjectReference, type_: str, reason: str, message: str, now: float
    ) -> tuple[Hashable, str]:
        """Return the key that equal events share; from the eleventh message of one reason on all messages share one."""
        group = (about.kind, about.namespace, about.name, about.uid, about.api_version, type_, reason)
        similar = self._similar.get_or_add(group, _Similar(set(), now))
        if now - similar.last > _SIMILAR_SECONDS:
            similar.messages = set()
        similar.last = now
        if len(similar.messages) < _SIMILAR_MAX or message in similar.messages:
            similar.messages.add(message)
            return (*group, about.field_path, message), message
        return group, f"(combined from similar events): {message}"

    async def _count(self, recorded: _Recorded, message: str, now: float) -> bool:
        """Raise the count of an event; False when somebody removed it."""
        body = {"count": recorded.count + 1, "lastTimestamp": timestamp(now), "message": message}
        try:
            await self._client.patch(EVENTS, recorded.name, body, recorded.namespace, kind=PatchType.STRATEGIC)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        recorded.count += 1
        return True

    async def _create(self, about: ObjectReference, type_: str, reason: str, message: str, now: float) -> _Recorded:
        namespace = about.namespace or "default"
        name = f"{about.name}.{self._unique(now):x}"
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
            "type": type_,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        await self._client.create(EVENTS, body, namespace)
        return _Recorded(namespace, name, 1, now)

    def _unique(self, now: float) -> int:
        """Nanoseconds, as client-go names events, never the same twice, whichever recorder of this process asks."""
        EventRecorder._last_name = max(int(now * 1e9), EventRecorder._last_name + 1)
        return EventRecorder._last_name
