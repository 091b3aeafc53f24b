"""Brings the pod network of this node up once its podCIDR is known, and follows the other nodes as they come and go.

`overlaynet` programmes the kernel, this follows Node objects and says when the network is ready. What CNI writes down lies
in the run directory: interfaces, addresses and namespaces end with the boot too, and no address stays taken after it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.api.core import Node
from minikube_raw.client.clock import Clock, sleep
from minikube_raw.client.informer import Informer
from minikube_raw.cni.libcni import Network
from minikube_raw.kubelet.overlaynet import OverlayNetwork, conflist, peer_from_node
from minikube_raw.linux.durability import write_file
from minikube_raw.netlink.overlay import Peer

log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
REPAIR_SECONDS = 10.0


class PodNetwork:
    """One node's pod network. `announce` tells the API server where our tunnel ends."""

    def __init__(
        self,
        node_name: str,
        overlay: OverlayNetwork,
        nodes: Informer[Node],
        run_dir: Path,
        memory: Path,
        clock: Clock,
    ) -> None:
        """`memory` is the file that keeps the podCIDR for a time without an API server."""
        self._node_name = node_name
        self._memory = memory
        self._overlay = overlay
        self._nodes = nodes
        self._run_dir = run_dir
        self._clock = clock
        self._own_cidr = ""
        self._changed = asyncio.Event()
        nodes.add_handler(lambda old, new: self._changed.set())

    async def recall(self) -> Network | None:
        """The network as it was when the API server last told our podCIDR; None when it never has. For pods that need none."""
        try:
            pod_cidr = self._memory.read_text().strip()
        except OSError:
            return None
        network, _ = await self._make(pod_cidr)
        return network

    async def bring_up(self) -> tuple[Network, dict[str, str]]:
        """Wait for our podCIDR and make the network; returns it and the annotations that tell others of us."""
        pod_cidr = await self._pod_cidr()
        network, annotations = await self._make(pod_cidr)
        await asyncio.to_thread(write_file, self._memory, f"{pod_cidr}\n".encode(), sync=True)
        return network, annotations

    async def _make(self, pod_cidr: str) -> tuple[Network, dict[str, str]]:
        self._own_cidr = pod_cidr
        tunnel = await self._retry(lambda: self._overlay.ensure(pod_cidr))
        config = conflist(pod_cidr, tunnel.mtu, data_dir=str(self._run_dir / "cni" / "networks"))
        network = make_network(config, self._run_dir)
        self._changed.set()
        return network, tunnel.annotations

    async def follow_peers(self) -> None:
        """Keep device, routes and entries to the other nodes as the Node objects say, for ever.

        Nobody tells us when somebody else flushes or deletes them, so we look from time to time.
        """
        while True:
            timer = self._clock.call_later(REPAIR_SECONDS, self._changed.set)
            await self._changed.wait()
            timer.cancel()
            self._changed.clear()
            peers = [peer_from_node(msgspec.to_builtins(node)) for node in self._nodes.cache.values()]
            await self._retry(functools.partial(self._repair, [each for each in peers if each is not None]))

    def _repair(self, peers: list[Peer]) -> None:
        self._overlay.ensure(self._own_cidr)
        self._overlay.sync(peers)

    async def _pod_cidr(self) -> str:
        while True:
            self._changed.clear()
            node = self._nodes.get(self._node_name)
            if node is not None and node.spec.pod_cidr:
                return node.spec.pod_cidr
            await self._changed.wait()

    async def _retry(self, work: Callable[[], Any]) -> Any:
        while True:
            try:
                return await asyncio.to_thread(work)
            except OSError as error:
                log.warning("the overlay network could not be programmed: %s", error)
                await sleep(self._clock, _RETRY_SECONDS)


def make_network(config: dict[str, Any], run_dir: Path) -> Network:
    """A CNI network of our own plugins with its records in the node's run directory, beside its configuration."""
    directory = run_dir / "cni"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "10-minikube-raw.conflist").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    return Network(config, (), directory / "cache")
