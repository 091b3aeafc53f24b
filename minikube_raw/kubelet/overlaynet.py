"""The node's share of the pod network: a VXLAN device, entries for every peer node, masquerading, and the CNI configuration.

Level-triggered: ensure() and sync() look at the kernel, repair what differs and may be called at any time; they block for
milliseconds, so the agent calls them in a thread. Peers come from Node objects, whose annotations say where each node's tunnel ends.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minikube_raw.linux import sysctl
from minikube_raw.netlink import NetlinkSocket, addresses, links, masquerade, overlay
from minikube_raw.netlink.overlay import Changes, Peer

VTEP_MAC_ANNOTATION = "minikube-raw.io/vtep-mac"
PUBLIC_IP_ANNOTATION = "minikube-raw.io/public-ip"
NETWORK_NAME = "minikube-raw"
BRIDGE = "cni0"
HOST_PORTS = {"type": "portmap", "capabilities": {"portMappings": True}}  # does nothing for pods without

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tunnel:
    """This node's end: what its annotations tell the others, and the MTU its pods may use."""

    device: str
    vtep_mac: str
    public_ip: str
    mtu: int

    @property
    def annotations(self) -> dict[str, str]:
        """For the Node object's metadata."""
        return {VTEP_MAC_ANNOTATION: self.vtep_mac, PUBLIC_IP_ANNOTATION: self.public_ip}


def peer_from_node(node: Mapping[str, Any]) -> Peer | None:
    """The peer a Node object (JSON) describes; None while it has no podCIDR or has not announced its tunnel yet."""
    annotations = node["metadata"].get("annotations") or {}
    subnet = (node.get("spec") or {}).get("podCIDR")
    public_ip, mac = annotations.get(PUBLIC_IP_ANNOTATION), annotations.get(VTEP_MAC_ANNOTATION)
    if not subnet or not public_ip or not mac:
        return None
    return Peer(node["metadata"]["name"], public_ip, subnet, mac)


class OverlayNetwork:
    """The overlay as one node keeps it; `exclude` are networks that pods reach under their own address (cluster CIDR, underlay).

    `node_ip` is this node's address on the underlay; the device that holds it is the uplink.
    """

    def __init__(
        self, node_name: str, node_ip: str, *, vni: int = 1, port: int = overlay.PORT, exclude: Sequence[str] = ()
    ) -> None:
        self._node_name = node_name
        self._node_ip = node_ip
        self._vni = vni
        self._port = port
        self._exclude = tuple(exclude)

    def ensure(self, pod_cidr: str) -> Tunnel:
        """Makes or repairs the device, its address, forwarding and masquerading for this node's pods. Raises OSError."""
        with NetlinkSocket() as netlink:
            device = overlay.ensure_device(netlink, public_ip=self._node_ip, vni=self._vni, port=self._port)
            overlay.ensure_address(netlink, device, pod_cidr)
        sysctl.ensure(sysctl.FORWARDING[addresses.family_of(pod_cidr)], "1")
        if not masquerade.subnet_present(pod_cidr):
            masquerade.ensure_subnet(pod_cidr, exclude=(pod_cidr, *self._exclude))
        return Tunnel(device.name, device.mac, self._node_ip, device.mtu)

    def sync(self, peers: Iterable[Peer]) -> Changes:
        """Programmes the kernel for exactly these peers (this node's own entry is skipped); repairs flushed entries.

        Raises FileNotFoundError when the device is gone: call ensure() first, which makes it again.
        """
        usable = [peer for peer in peers if peer.name != self._node_name and self._usable(peer)]
        with NetlinkSocket() as netlink:
            device = links.get(netlink, f"vxlan.{self._vni}")
            if device is None:
                raise FileNotFoundError(f"device vxlan.{self._vni} does not exist")
            changes = overlay.sync(netlink, device, usable)
        for error in changes.errors:
            log.warning("overlay network: %s", error)
        return changes

    def _usable(self, peer: Peer) -> bool:
        """One node's nonsense in its annotations must not cut off the others."""
        try:
            ipaddress.ip_network(peer.subnet)
            ipaddress.ip_address(peer.public_ip)
            octets = bytes.fromhex(peer.vtep_mac.replace(":", ""))
        except ValueError as error:
            log.warning("overlay network: node %s is left out: %s", peer.name, error)
            return False
        if len(octets) != 6 or peer.public_ip == self._node_ip:
            log.warning("overlay network: node %s is left out: %s at %s", peer.name, peer.vtep_mac, peer.public_ip)
            return False
        return True

    def remove(self) -> None:
        """Removes the device, with it every entry on it, and the masquerading."""
        with NetlinkSocket() as netlink:
            netlink.request(links.delete(f"vxlan.{self._vni}"))
        masquerade.remove_subnet()


def conflist(pod_cidr: str, mtu: int, *, data_dir: str) -> dict[str, Any]:
    """The node's CNI configuration: a bridge as every pod's default gateway, addresses of the node's podCIDR.

    Masquerading is the node's (ensure), not each pod's: a pod's ADD and DEL need no nftables commit. `data_dir` is where
    host-local keeps its records.
    """
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "mtu": mtu,
        "capabilities": {"ips": True, "mac": True},
        "ipam": {"type": "host-local", "dataDir": data_dir, "ranges": [[{"subnet": pod_cidr}]]},
    }
    return {"cniVersion": "1.1.0", "name": NETWORK_NAME, "plugins": [bridge, {"type": "loopback"}, HOST_PORTS]}
