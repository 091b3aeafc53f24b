"""Routes, neighbour entries and forwarding database (FDB) entries.

Neighbour and FDB entries written here are permanent: they spare the first packet's ARP, and they do not count against
the neighbour table's limit (gc_thresh3), which all network namespaces of a host share.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_DELROUTE, RTM_GETNEIGH, RTM_GETROUTE, RTM_NEWNEIGH, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from .addresses import family_of
from .transport import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, NetlinkSocket, from_pyroute2, to_pyroute2

AF_BRIDGE = 7
NUD_PERMANENT = 0x80
NTF_SELF = 0x02
RTNH_F_ONLINK = 4
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST = 1


class Route(NamedTuple):
    """A unicast route through the device with index `device`; `destination` is a CIDR ("0.0.0.0/0" for the default),
    `gateway` "" means directly on the device.
    """

    destination: str
    device: int
    gateway: str = ""
    onlink: bool = False
    mtu: int = 0
    source: str = ""


class Neighbour(NamedTuple):
    """An entry of a device (by index); `address` is an IP address for a neighbour entry, the tunnel end's IP for an
    FDB entry.
    """

    device: int
    address: str
    mac: str


def _route_message(route: Route) -> rtmsg:
    network = ipaddress.ip_network(route.destination, strict=False)
    message = rtmsg()
    message["family"] = family_of(route.destination)
    message["dst_len"] = network.prefixlen
    message["table"], message["proto"], message["type"] = RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST
    message["scope"] = RT_SCOPE_UNIVERSE if route.gateway or network.version == 6 else RT_SCOPE_LINK
    message["flags"] = RTNH_F_ONLINK if route.onlink else 0
    attributes: list[tuple[str, Any]] = [("RTA_OIF", route.device)]
    if network.prefixlen:
        attributes.append(("RTA_DST", str(network.network_address)))
    if route.gateway:
        attributes.append(("RTA_GATEWAY", route.gateway))
    if route.source:
        attributes.append(("RTA_PREFSRC", route.source))
    if route.mtu:
        attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", route.mtu)]}))
    message["attrs"] = attributes
    return message


def _described(route: Route) -> str:
    return f"{route.destination} via {route.gateway}" if route.gateway else f"{route.destination} dev {route.device}"


def add(route: Route) -> Message:
    """A message that adds a route; one to the same destination with the same metric is EEXIST."""
    return from_pyroute2(_route_message(route), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "route add", _described(route))


def replace(route: Route) -> Message:
    """A message that makes this the route to its destination."""
    return from_pyroute2(
        _route_message(route), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, "route replace", _described(route)
    )


def delete(route: Route) -> Message:
    """A message that removes a route; a missing one is fine."""
    message = _route_message(route)
    return from_pyroute2(message, RTM_DELROUTE, 0, "route delete", _described(route), (errno.ESRCH, errno.ENODEV))


def dump(netlink: NetlinkSocket, *, index: int = 0, family: int = socket.AF_INET) -> list[Route]:
    """The unicast routes of the main table, through one device if `index` is given."""
    request = rtmsg()
    request["family"] = family
    request["table"] = RT_TABLE_MAIN
    request["attrs"] = [("RTA_OIF", index)] if index else []
    found = []
    for body in netlink.dump(from_pyroute2(request, RTM_GETROUTE, 0, "route dump", index or "all")):
        message = to_pyroute2(rtmsg, body)
        if message["type"] != RTN_UNICAST or message["table"] != RT_TABLE_MAIN:
            continue
        if index and message.get_attr("RTA_OIF") != index:
            continue
        found.append(_parse_route(message, family))
    return found


def _parse_route(message: Any, family: int) -> Route:
    anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        destination=f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}",
        device=message.get_attr("RTA_OIF") or 0,
        gateway=message.get_attr("RTA_GATEWAY") or "",
        onlink=bool(message["flags"] & RTNH_F_ONLINK),
        mtu=(metrics.get_attr("RTAX_MTU") if metrics is not None else 0) or 0,
        source=message.get_attr("RTA_PREFSRC") or "",
    )


def uplink_to(netlink: NetlinkSocket, address: str) -> Route | None:
    """The route the kernel would take to `address` (index and source address), None when it is unreachable."""
    request = rtmsg()
    request["family"] = family_of(address)
    request["dst_len"] = 128 if ":" in address else 32
    request["attrs"] = [("RTA_DST", address)]
    try:
        body = netlink.get(from_pyroute2(request, RTM_GETROUTE, 0, "route get", address))
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return None
        raise
    if body is None:
        return None
    message = to_pyroute2(rtmsg, body)
    return _parse_route(message, family_of(address))


def _neighbour_message(entry: Neighbour, *, fdb: bool) -> ndmsg:
    message = ndmsg()
    message["family"] = AF_BRIDGE if fdb else family_of(entry.address)
    message["ifindex"] = entry.device
    message["state"] = NUD_PERMANENT
    message["flags"] = NTF_SELF if fdb else 0
    attributes: list[tuple[str, Any]] = [("NDA_DST", entry.address)]
    if entry.mac:
        attributes.append(("NDA_LLADDR", entry.mac))
    message["attrs"] = attributes
    return message


def replace_neighbour(entry: Neighbour) -> Message:
    """A message that writes a permanent neighbour entry, whatever was there."""
    message = _neighbour_message(entry, fdb=False)
    return from_pyroute2(
        message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, "neighbour replace", f"{entry.address} lladdr {entry.mac}"
    )


def delete_neighbour(entry: Neighbour) -> Message:
    """A message that removes a neighbour entry; a missing one is fine."""
    message = _neighbour_message(entry._replace(mac=""), fdb=False)
    return from_pyroute2(message, RTM_DELNEIGH, 0, "neighbour delete", entry.address, (errno.ENOENT, errno.ENODEV))


def replace_fdb(entry: Neighbour) -> Message:
    """A message that writes a permanent FDB entry on a VXLAN device: frames for `mac` travel to the node at
    `address`.
    """
    message = _neighbour_message(entry, fdb=True)
    return from_pyroute2(
        message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, "fdb replace", f"{entry.mac} dst {entry.address}"
    )


def delete_fdb(entry: Neighbour) -> Message:
    """A message that removes an FDB entry; a missing one is fine."""
    message = _neighbour_message(entry, fdb=True)
    return from_pyroute2(
        message, RTM_DELNEIGH, 0, "fdb delete", f"{entry.mac} dst {entry.address}", (errno.ENOENT, errno.ENODEV)
    )


def dump_neighbours(
    netlink: NetlinkSocket, index: int, *, family: int = socket.AF_INET, permanent: bool = True
) -> list[Neighbour]:
    """The neighbour entries of a device, only permanent ones unless told otherwise."""
    return _dump_neighbours(netlink, index, family, permanent)


def dump_fdb(netlink: NetlinkSocket, index: int) -> list[Neighbour]:
    """The permanent FDB entries of a VXLAN device."""
    return [entry for entry in _dump_neighbours(netlink, index, AF_BRIDGE, True) if entry.address and entry.mac]


def _dump_neighbours(netlink: NetlinkSocket, index: int, family: int, permanent: bool) -> list[Neighbour]:
    request = ndmsg()
    request["family"] = family
    # the FDB dump filters by the header's device, the neighbour dump by an attribute (rtnetlink(7), strict checking)
    if family == AF_BRIDGE:
        request["ifindex"] = index
    else:
        request["attrs"] = [("NDA_IFINDEX", index)]
    found = []
    for body in netlink.dump(from_pyroute2(request, RTM_GETNEIGH, 0, "neighbour dump", index)):
        message = to_pyroute2(ndmsg, body)
        if message["ifindex"] == index and (message["state"] & NUD_PERMANENT or not permanent):
            found.append(Neighbour(index, message.get_attr("NDA_DST") or "", message.get_attr("NDA_LLADDR") or ""))
    return found
