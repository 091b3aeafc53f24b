"""Gives every node a range of pod addresses of its own: stable as long as the Node object lives, never overlapping.

Freed ranges are reused as late as possible, so that routes of a node that has just gone are not those of a new one.
"""

from __future__ import annotations

import ipaddress

from minikube_raw.api.core import Node
from minikube_raw.client.events import NORMAL, reference
from minikube_raw.client.resources import NODES
from minikube_raw.controllers.controller import Context, Controller

Network = ipaddress.IPv4Network


class Ranges:
    """Which /`mask` blocks of `cluster` are taken. Raises ValueError when the mask does not fit."""

    def __init__(self, cluster: str, mask: int) -> None:
        self._cluster = ipaddress.IPv4Network(cluster)
        self._size = 1 << (32 - mask)
        self._mask = mask
        self._count = 1 << (mask - self._cluster.prefixlen)
        self._taken: dict[int, str] = {}
        self._next = 0

    def take(self, owner: str) -> Network | None:
        """Return a free block for `owner`, the one longest free; None when all are taken."""
        for offset in range(self._count):
            index = (self._next + offset) % self._count
            if index not in self._taken:
                self._taken[index] = owner
                self._next = (index + 1) % self._count
                return Network((int(self._cluster.network_address) + index * self._size, self._mask))
        return None

    def occupy(self, network: str, owner: str) -> bool:
        """Mark what a node has already; False when another one has (part of) it. Ranges elsewhere do not concern us."""
        indices = self._indices(network)
        if any(self._taken.get(index, owner) != owner for index in indices):
            return False
        self._taken.update(dict.fromkeys(indices, owner))
        return True

    def release(self, owner: str) -> bool:
        """Free everything of `owner`; whether it had anything."""
        before = len(self._taken)
        self._taken = {index: holder for index, holder in self._taken.items() if holder != owner}
        return len(self._taken) < before

    def _indices(self, network: str) -> range:
        wanted = Network(network, strict=False)
        if not wanted.overlaps(self._cluster):
            return range(0)
        start = max(int(wanted.network_address) - int(self._cluster.network_address), 0) // self._size
        end = (int(wanted.broadcast_address) - int(self._cluster.network_address)) // self._size
        return range(start, min(end + 1, self._count))


class NodeIPAMController:
    """Writes spec.podCIDR of new nodes; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._nodes = context.informers.of(NODES)
        self._recorder = context.recorder("cidrAllocator")
        self._ranges = Ranges(context.options.cluster_cidr, context.options.node_cidr_mask)
        self._chosen: dict[str, str] = {}
        # One worker: choosing a block and writing it down must not interleave with another choice.
        self._controller = Controller("nodeipam", self._reconcile, context, workers=1)
        self._nodes.add_handler(self._node_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, name: str) -> float | None:
        node = self._nodes.get(name)
        if node is None or node.spec.pod_cidr:
            self._chosen.pop(name, None)
            return None
        if name not in self._chosen:
            network = self._ranges.take(name)
            if network is None:
                message = f"Node {name} status is now: CIDRNotAvailable"
                self._recorder.event(reference(NODES, node), NORMAL, "CIDRNotAvailable", message)
                return None
            self._chosen[name] = str(network)
        spec = {"podCIDR": self._chosen[name], "podCIDRs": [self._chosen[name]]}
        await self._client.patch(NODES, name, {"metadata": {"uid": node.metadata.uid}, "spec": spec})
        return None

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None and self._ranges.release(old.metadata.name):
                self._chosen.pop(old.metadata.name, None)
                self._look_at_waiting()
            return
        if new.spec.pod_cidr:
            self._ranges.occupy(new.spec.pod_cidr, new.metadata.name)
        else:
            self._controller.queue.add(new.metadata.name)

    def _look_at_waiting(self) -> None:
        for name, node in self._nodes.cache.items():
            if not node.spec.pod_cidr:
                self._controller.queue.add(name)
