"""Tells the API server of this node: the Node object, its status when something changed, a Lease every ten seconds.

A node that was removed registers again. Statuses are written only when they say something new; being alive is the Lease's
matter (durations are the kubelet's: nodeLeaseDurationSeconds 40, renewed four times within).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from minikube_raw.api.core import Node
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, sleep
from minikube_raw.client.leases import LeaseHolder
from minikube_raw.client.resources import NODES
from minikube_raw.client.rest import Client, PatchType
from minikube_raw.kubelet import node

log = logging.getLogger(__name__)
Json = dict[str, Any]
LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
_RETRY_SECONDS = 0.2
_FIRST_STATUS_SECONDS = 2.0


class Registration:
    """One node's entry. `status` gives the present NodeStatus from the conditions written last."""

    def __init__(self, client: Client, wanted: Json, status: Callable[[dict[str, Json]], Json], clock: Clock) -> None:
        self.name = str(wanted["metadata"]["name"])
        self._client = client
        self._wanted = wanted
        self._status = status
        self._clock = clock
        self._written: Json = {}
        self._changed = asyncio.Event()

    async def register(self) -> Node:
        """Create the Node, or bring labels and annotations of the one that is there up to date. Raises StatusError, OSError."""
        try:
            present = await self._client.get(NODES, self.name)
        except StatusError as error:
            if error.code != 404:
                raise
            return await self._client.create(NODES, self._wanted)
        conditions = [msgspec.to_builtins(each) for each in present.status.conditions]
        self._written = {"conditions": conditions}
        return await self.annotate({})

    async def annotate(self, annotations: dict[str, str]) -> Node:
        """Add annotations to those that the node registers with, now and whenever it has to register again."""
        meta = self._wanted["metadata"]
        meta["annotations"] |= annotations
        body = {"metadata": {"labels": meta["labels"], "annotations": meta["annotations"]}}
        return await self._client.patch(NODES, self.name, body, kind=PatchType.MERGE)

    def seen(self, present: Node) -> None:
        """Compare with what the server shows: a node that was out of reach is declared Unknown, and has to say that it is back."""
        shown = {each.type: each.status for each in present.status.conditions}
        ours = {each["type"]: each["status"] for each in self._written.get("conditions", ())}
        if any(shown.get(kind) != status for kind, status in ours.items()):
            self._written = {"conditions": [msgspec.to_builtins(each) for each in present.status.conditions]}
            self._changed.set()

    def status_changed(self) -> None:
        """Look at the status at once, not only at the next heartbeat."""
        self._changed.set()

    async def keep_status(self) -> None:
        """Write the status whenever it says something new, for ever.

        The first one waits a moment for the network: a node whose kubelet was restarted would else be NotReady for the
        blink of an eye, and its pods be marked for eviction.
        """
        pause = _FIRST_STATUS_SECONDS
        while True:
            timer = self._clock.call_later(pause, self._changed.set)
            await self._changed.wait()
            timer.cancel()
            self._changed.clear()
            await self._try_writing()
            pause = RENEW_SECONDS

    async def keep_lease(self) -> None:
        """Renew the Lease for ever; a server that is away is tried again more often."""
        lease: LeaseHolder | None = None
        while True:
            try:
                lease = lease or await self._lease()
                await lease.renew()
                await sleep(self._clock, RENEW_SECONDS)
            except (OSError, StatusError) as error:
                log.warning("the node's Lease was not renewed: %s", error)
                await sleep(self._clock, _RETRY_SECONDS if lease is None else 1.0)

    async def _lease(self) -> LeaseHolder:
        present = await self._client.get(NODES, self.name)
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": present.metadata.uid}
        return LeaseHolder(
            self._client, LEASE_NAMESPACE, self.name, self.name, duration=LEASE_SECONDS, owner=owner, clock=self._clock
        )

    async def _try_writing(self) -> None:
        try:
            await self._write_status()
        except StatusError as error:
            log.warning("the node's status was not written: %s", error)
            if error.code == 404:
                self._written = {}
                await self._register_again()
        except OSError as error:
            log.warning("the node's status was not written: %s", error)
            self._clock.call_later(_RETRY_SECONDS, self._changed.set)

    async def _register_again(self) -> None:
        try:
            await self.register()
            self._changed.set()
        except (OSError, StatusError) as error:
            log.warning("the node could not be registered again: %s", error)

    async def _write_status(self) -> None:
        before = {each["type"]: each for each in self._written.get("conditions", ())}
        status = self._status(before)
        if not node.differs(self._written, status):
            return
        await self._client.patch(NODES, self.name, {"status": status}, kind=PatchType.STRATEGIC, subresource="status")
        self._written = status
