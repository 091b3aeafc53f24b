"""Mirror pods: objects on the API server that show what static pods do; deleting one changes nothing but the object.

Level-triggered: the informer tells which mirrors there are, `run` creates what is missing and deletes what is old, and a
server that is away is tried again. It also is the workers' StatusSink: a static pod's status goes to its mirror. The
rules are those of pkg/kubelet/pod/mirror_client.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from minikube_raw.api.core import Node, Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, sleep
from minikube_raw.client.resources import PODS
from minikube_raw.client.rest import Client
from minikube_raw.kubelet import pods
from minikube_raw.kubelet.pods import is_static
from minikube_raw.kubelet.staticpods import HASH, MIRROR
from minikube_raw.kubelet.tools import StatusSink

log = logging.getLogger(__name__)
Json = dict[str, Any]
_RETRY_FIRST, _RETRY_MAX = 0.2, 5.0


def is_mirror(pod: Pod) -> bool:
    """Whether an object only shows a static pod."""
    return MIRROR in pod.metadata.annotations


class Mirrors:
    """The mirrors of one node. `static` gives the static pods as plain data by namespace/name."""

    def __init__(
        self,
        client: Client,
        statuses: StatusSink,
        static: Callable[[], Mapping[str, Json]],
        node: Callable[[], Node],
        clock: Clock,
    ) -> None:
        self._client, self._statuses, self._static, self._node, self._clock = client, statuses, static, node, clock
        self._mirrors: dict[str, Pod] = {}
        self._shown: dict[str, Json] = {}  # by the static pod's uid: the status shown last
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """The static pods, or the node's object, may have changed."""
        self._changed.set()

    def seen(self, old: Pod | None, new: Pod | None) -> None:
        """The informer's word on a mirror."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._statuses.forget(old.metadata.uid)
            self._mirrors.pop(pods.key(old), None)
        if new is not None:
            first = pods.key(new) not in self._mirrors
            self._mirrors[pods.key(new)] = new
            shown = self._shown.get(new.metadata.annotations[MIRROR])
            if first and shown is not None:
                self._show(new, shown)
        self._changed.set()

    async def run(self) -> None:
        """Keep the mirrors as they should be, until cancelled."""
        delay = _RETRY_FIRST
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._reconcile()
                delay = _RETRY_FIRST
            except (OSError, StatusError) as error:
                log.warning("mirror pods: %s", error)
                await sleep(self._clock, delay)
                delay = min(delay * 2, _RETRY_MAX)
                self._changed.set()

    async def _reconcile(self) -> None:
        wanted = self._static()
        for key, mirror in list(self._mirrors.items()):
            wish = wanted.get(key)
            meta = mirror.metadata
            current = wish is not None and meta.annotations[MIRROR] == wish["metadata"]["uid"]
            if not current or meta.deletion_timestamp is not None:
                await self._delete(mirror)
        for key, wish in wanted.items():
            if key not in self._mirrors:
                await self._create(wish)

    async def _delete(self, mirror: Pod) -> None:
        meta = mirror.metadata
        try:
            await self._client.delete(PODS, meta.name, meta.namespace, grace_period=0, uid=meta.uid)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def _create(self, wish: Json) -> None:
        """Create a mirror; a refusal is about the manifest and is not tried again before something changes."""
        node = self._node()
        if not node.metadata.uid:
            return  # the informer has yet to bring the node's object, and says so then
        meta = {key: value for key, value in wish["metadata"].items() if key != "uid"}
        meta["annotations"] = {**meta["annotations"], MIRROR: wish["metadata"]["annotations"][HASH]}
        owner = {"apiVersion": "v1", "kind": "Node", "name": node.metadata.name, "uid": node.metadata.uid}
        meta["ownerReferences"] = [owner | {"controller": True}]
        try:
            await self._client.create(PODS, {**wish, "metadata": meta}, meta["namespace"])
        except StatusError as error:
            if error.code == 409:
                return
            if error.code not in (400, 403, 404, 422):
                raise
            log.warning("mirror pod %s/%s is refused: %s", meta["namespace"], meta["name"], error)

    # -- the workers' statuses ---------------------------------------------------------------------------------------

    def set(self, pod: Pod, status: Json, server_has: Json) -> None:
        """See StatusSink."""
        if not is_static(pod):
            self._statuses.set(pod, status, server_has)
            return
        self._shown[pod.metadata.uid] = status
        mirror = self._mirrors.get(pods.key(pod))
        if mirror is not None and mirror.metadata.annotations[MIRROR] == pod.metadata.uid:
            self._show(mirror, status)

    def delete(self, pod: Pod) -> None:
        """See StatusSink. A static pod has no object of its own."""
        if not is_static(pod):
            self._statuses.delete(pod)

    def forget(self, uid: str) -> None:
        """See StatusSink."""
        self._shown.pop(uid, None)
        self._statuses.forget(uid)

    def _show(self, mirror: Pod, status: Json) -> None:
        has: Json = msgspec.json.decode(msgspec.json.encode(mirror.status))
        self._statuses.set(mirror, status, has)
