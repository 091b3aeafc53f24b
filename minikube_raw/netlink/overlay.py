"""A VXLAN device per node and what leads through it: one neighbour entry, one FDB entry and one route per peer.

As flannel does it: no learning, no ARP, no multicast; packets for a peer's subnet go to a gateway that exists only as a
permanent neighbour entry, whose MAC an FDB entry sends to the peer's address. sync() compares wish and kernel, so it
joins, follows, repairs and removes alike. UDP port 8472 is the kernel's own default and flannel's; IANA's 4789 is
often taken by the fabric a virtual machine lives in.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import addresses, links, routes
from .links import Link
from .routes import Neighbour, Route
from .transport import Message, NetlinkSocket

PORT = 8472
OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70  # outer IP, UDP, VXLAN and inner Ethernet headers


@dataclass(frozen=True)
class Peer:
    """Another node: its address on the underlay, its pods' subnet (CIDR) and its VXLAN device's MAC."""

    name: str
    public_ip: str
    subnet: str
    vtep_mac: str

    @property
    def gateway(self) -> str:
        """The subnet's own number, which no pod has: the address behind which the peer's device stands."""
        return str(ipaddress.ip_network(self.subnet).network_address)


@dataclass(frozen=True)
class Changes:
    """What a sync did: the objects written and removed, as text, and the errors it met."""

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    errors: tuple[OSError, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed or self.errors)


def vtep_mac(public_ip: str) -> str:
    """The MAC of a node's VXLAN device, a function of its underlay address: one to one for IPv4, 46 bits of a hash for IPv6.

    A node that is set up again keeps it, so peers' entries stay right.
    """
    address = ipaddress.ip_address(public_ip)
    if address.version == 6:
        return links.mac_from("vtep", str(address))
    return "5e:76:" + address.packed.hex(":")


def find_uplink(netlink: NetlinkSocket, public_ip: str) -> Link:
    """The device that holds the address. Raises OSError when none does."""
    for found in addresses.dump(netlink):
        if found.cidr.partition("/")[0] == public_ip:
            link = links.get(netlink, index=found.device)
            if link is not None:
                return link
    raise OSError(f"no device has the address {public_ip}, which is to carry the overlay network")


def ensure_device(netlink: NetlinkSocket, *, public_ip: str, vni: int, port: int = PORT, mtu: int = 0) -> Link:
    """Finds, makes or repairs the device vxlan.<VNI>; its MTU is the uplink's less the headers unless given."""
    uplink = find_uplink(netlink, public_ip)
    overhead = OVERHEAD_IPV6 if ":" in public_ip else OVERHEAD_IPV4
    return links.ensure_vxlan(
        netlink,
        f"vxlan.{vni}",
        vni=vni,
        local=public_ip,
        uplink=uplink.index,
        port=port,
        mac=vtep_mac(public_ip),
        mtu=mtu or uplink.mtu - overhead,
    )


def ensure_address(netlink: NetlinkSocket, device: Link, subnet: str) -> None:
    """Gives the device the first number of this node's subnet as a host address, and takes other ones away.

    It is the source of packets that the node itself sends to pods elsewhere.
    """
    network = ipaddress.ip_network(subnet)
    wanted = f"{network.network_address}/{network.max_prefixlen}"
    others = [
        found.cidr
        for found in addresses.dump(netlink, index=device.index)
        if found.cidr != wanted and not found.cidr.startswith("fe80:")
    ]
    netlink.request(*(addresses.delete(device.index, cidr) for cidr in others), addresses.add(device.index, wanted))


def sync(netlink: NetlinkSocket, device: Link, peers: Iterable[Peer]) -> Changes:
    """Makes the kernel's entries on the device equal to the peers: writes missing and changed ones, removes the rest.

    One entry's failure does not stop the others; what failed is in Changes.errors and is tried again by the next call.
    """
    return _apply(netlink, *plan(netlink, device, peers))


def plan(netlink: NetlinkSocket, device: Link, peers: Iterable[Peer]) -> tuple[list[Message], list[Message]]:
    """What sync would remove and what it would write, as messages; both are empty when wish and kernel agree."""
    wanted = list(peers)
    families = (socket.AF_INET, socket.AF_INET6)
    stale, missing = _routes(netlink, device.index, wanted, families)
    for more_stale, more_missing in (
        _fdb(netlink, device.index, wanted),
        _neighbours(netlink, device.index, wanted, families),
    ):
        stale += more_stale
        missing = more_missing + missing  # a route comes last, when what it leads to is there
    return stale, missing


def _apply(netlink: NetlinkSocket, stale: Sequence[Message], missing: Sequence[Message]) -> Changes:
    messages = [*stale, *missing]
    errors = netlink.attempt(messages) if messages else []
    done = [message for message, error in zip(messages, errors, strict=True) if error is None]
    return Changes(
        written=tuple(f"{message.what} {message.subject}" for message in done if message in missing),
        removed=tuple(f"{message.what} {message.subject}" for message in done if message in stale),
        errors=tuple(error for error in errors if error is not None),
    )


def _routes(
    netlink: NetlinkSocket, device: int, peers: Sequence[Peer], families: Sequence[int]
) -> tuple[list[Message], list[Message]]:
    wanted = {peer.subnet: Route(peer.subnet, device, peer.gateway, onlink=True) for peer in peers}
    found = {
        route.destination: route
        for family in families
        for route in routes.dump(netlink, index=device, family=family)
        if route.gateway  # the kernel's own routes on the device (fe80::/64) have none
    }
    stale = [routes.delete(route) for destination, route in found.items() if destination not in wanted]
    return stale, [routes.replace(route) for destination, route in wanted.items() if found.get(destination) != route]


def _neighbours(
    netlink: NetlinkSocket, device: int, peers: Sequence[Peer], families: Sequence[int]
) -> tuple[list[Message], list[Message]]:
    wanted = {Neighbour(device, peer.gateway, peer.vtep_mac) for peer in peers}
    found = {entry for family in families for entry in routes.dump_neighbours(netlink, device, family=family)}
    kept = {entry.address for entry in wanted}
    stale = [routes.delete_neighbour(entry) for entry in sorted(found) if entry.address not in kept]
    return stale, [routes.replace_neighbour(entry) for entry in sorted(wanted - found)]


def _fdb(netlink: NetlinkSocket, device: int, peers: Sequence[Peer]) -> tuple[list[Message], list[Message]]:
    wanted = {Neighbour(device, peer.public_ip, peer.vtep_mac) for peer in peers}
    found = set(routes.dump_fdb(netlink, device))
    return (
        [routes.delete_fdb(entry) for entry in sorted(found - wanted)],
        [routes.replace_fdb(entry) for entry in sorted(wanted - found)],
    )
