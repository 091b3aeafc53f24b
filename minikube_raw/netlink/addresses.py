"""IP addresses of devices, IPv4 and IPv6 through the same functions."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from .transport import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket, from_pyroute2, to_pyroute2

IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200


class Address(NamedTuple):
    """An address on the device with index `device`, as CIDR ("10.244.1.1/24")."""

    device: int
    cidr: str


def family_of(text: str) -> int:
    """AF_INET or AF_INET6 of an address or CIDR."""
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def _message(index: int, cidr: str) -> ifaddrmsg:
    interface = ipaddress.ip_interface(cidr)
    message = ifaddrmsg()
    message["family"] = family_of(cidr)
    message["index"] = index
    message["prefixlen"] = interface.network.prefixlen
    attributes: list[tuple[str, Any]] = [("IFA_ADDRESS", str(interface.ip)), ("IFA_LOCAL", str(interface.ip))]
    if interface.version == 4 and interface.network.prefixlen < 31:
        attributes.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    if interface.version == 6:
        # duplicate address detection would leave the address unusable for a second; host-local already proved it unique
        attributes.append(("IFA_FLAGS", IFA_F_NODAD))
    message["attrs"] = attributes
    return message


def add(index: int, cidr: str) -> Message:
    """A message that gives the device an address; one that is there already is fine."""
    return from_pyroute2(
        _message(index, cidr), RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "address add", cidr, (errno.EEXIST,)
    )


def delete(index: int, cidr: str) -> Message:
    """A message that takes an address away; a missing address or device is fine."""
    return from_pyroute2(
        _message(index, cidr), RTM_DELADDR, 0, "address delete", cidr, (errno.EADDRNOTAVAIL, errno.ENODEV)
    )


def dump(netlink: NetlinkSocket, *, index: int = 0, family: int = socket.AF_UNSPEC) -> list[Address]:
    """The addresses of one device, or of all."""
    request = ifaddrmsg()
    request["family"] = family
    request["index"] = index
    found = []
    for body in netlink.dump(from_pyroute2(request, RTM_GETADDR, 0, "address dump", index or "all")):
        message = to_pyroute2(ifaddrmsg, body)
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append(Address(message["index"], f"{address}/{message['prefixlen']}"))
    return found
