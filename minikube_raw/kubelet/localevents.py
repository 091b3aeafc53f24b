"""Events of pods on a node without a master: the last of them in memory, repeated ones counted, for `pod events`.

An API server would keep them an hour; here they last as long as the agent, whose log has them all.
"""

from __future__ import annotations

import logging
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock, timestamp
from minikube_raw.kubelet import pods

log = logging.getLogger(__name__)
Json = dict[str, Any]
KEPT = 1000


class LocalEvents:
    """An EventSink that can be asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: dict[tuple[str, ...], Json] = {}

    def record(self, pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        """Keep an Event; the same one again counts."""
        log.info("%s %s %s %s %s", pods.key(pod), container, kind, reason, message)
        meta, now = pod.metadata, timestamp(self._clock.now())
        key = (meta.uid, kind, reason, message, container)
        before = self._events.pop(key, None)
        about: Json = {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
        path = pods.field_path(pod, container)
        self._events[key] = {
            "involvedObject": about | ({"fieldPath": path} if path else {}),
            "type": kind,
            "reason": reason,
            "message": message,
            "count": before["count"] + 1 if before else 1,
            "firstTimestamp": before["firstTimestamp"] if before else now,
            "lastTimestamp": now,
        }
        if len(self._events) > KEPT:
            del self._events[next(iter(self._events))]

    def as_list(self) -> Json:
        """A core/v1 EventList, the latest last."""
        return {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": list(self._events.values())}
