"""Routes, neighbour entries and forwarding database (FDB) entries.

Neighbour and FDB entries written here are permanent: they spare the first packet's ARP, and they do not count against
the neighbour table's limit (gc_thresh3), which all network namespaces of a host share.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_DELROUTE, RTM_GETNEIGH, RTM_GETROUTE, RTM_NEWNEIGH, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from .addresses import family_of
from .transport import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    attribute,
    from_pyroute2,
    to_pyroute2,
    u32,
)

# struct rtmsg and struct ndmsg (rtnetlink(7)), linux/rtnetlink.h and linux/neighbour.h
RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source lengths, tos, table, protocol, scope, type, flags
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_METRICS, RTAX_MTU = 1, 4, 5, 7, 8, 2
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
NDA_DST, NDA_LLADDR = 1, 2
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


def _route_body(route: Route) -> bytes:
    network = ipaddress.ip_network(route.destination, strict=False)
    scope = RT_SCOPE_UNIVERSE if route.gateway or network.version == 6 else RT_SCOPE_LINK
    flags = RTNH_F_ONLINK if route.onlink else 0
    body = RTMSG.pack(
        family_of(route.destination), network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, flags
    )
    body += attribute(RTA_OIF, u32(route.device))
    if network.prefixlen:
        body += attribute(RTA_DST, network.network_address.packed)
    if route.gateway:
        body += attribute(RTA_GATEWAY, _packed(route.gateway))
    if route.source:
        body += attribute(RTA_PREFSRC, _packed(route.source))
    if route.mtu:
        body += attribute(RTA_METRICS, attribute(RTAX_MTU, u32(route.mtu)))
    return body


def _packed(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def _described(route: Route) -> str:
    return f"{route.destination} via {route.gateway}" if route.gateway else f"{route.destination} dev {route.device}"


def add(route: Route) -> Message:
    """A message that adds a route; one to the same destination with the same metric is EEXIST."""
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _route_body(route), "route add", _described(route))


def replace(route: Route) -> Message:
    """A message that makes this the route to its destination."""
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route_body(route), "route replace", _described(route))


def delete(route: Route) -> Message:
    """A message that removes a route; a missing one is fine."""
    ignored = (errno.ESRCH, errno.ENODEV)
    return Message(RTM_DELROUTE, 0, _route_body(route), "route delete", _described(route), ignored)


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


def _neighbour_body(entry: Neighbour, *, fdb: bool) -> bytes:
    family = AF_BRIDGE if fdb else family_of(entry.address)
    body = NDMSG.pack(family, entry.device, NUD_PERMANENT, NTF_SELF if fdb else 0, 0)
    body += attribute(NDA_DST, _packed(entry.address))
    return body + (attribute(NDA_LLADDR, bytes.fromhex(entry.mac.replace(":", ""))) if entry.mac else b"")


def replace_neighbour(entry: Neighbour) -> Message:
    """A message that writes a permanent neighbour entry, whatever was there."""
    body, subject = _neighbour_body(entry, fdb=False), f"{entry.address} lladdr {entry.mac}"
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "neighbour replace", subject)


def delete_neighbour(entry: Neighbour) -> Message:
    """A message that removes a neighbour entry; a missing one is fine."""
    body, ignored = _neighbour_body(entry._replace(mac=""), fdb=False), (errno.ENOENT, errno.ENODEV)
    return Message(RTM_DELNEIGH, 0, body, "neighbour delete", entry.address, ignored)


def replace_fdb(entry: Neighbour) -> Message:
    """A message that writes a permanent FDB entry on a VXLAN device: frames for `mac` travel to the node at
    `address`.
    """
    body, subject = _neighbour_body(entry, fdb=True), f"{entry.mac} dst {entry.address}"
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "fdb replace", subject)


def delete_fdb(entry: Neighbour) -> Message:
    """A message that removes an FDB entry; a missing one is fine."""
    body, subject = _neighbour_body(entry, fdb=True), f"{entry.mac} dst {entry.address}"
    return Message(RTM_DELNEIGH, 0, body, "fdb delete", subject, (errno.ENOENT, errno.ENODEV))


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
