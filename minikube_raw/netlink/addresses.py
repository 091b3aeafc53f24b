"""IP addresses of devices, IPv4 and IPv6 through the same functions."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from .transport import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket, attribute, from_pyroute2, to_pyroute2, u32

# struct ifaddrmsg (rtnetlink(7)) and linux/if_addr.h
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200


class Address(NamedTuple):
    """An address on the device with index `device`, as CIDR ("10.244.1.1/24")."""

    device: int
    cidr: str


def family_of(text: str) -> int:
    """AF_INET or AF_INET6 of an address or CIDR."""
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def _body(index: int, cidr: str) -> bytes:
    interface = ipaddress.ip_interface(cidr)
    length, packed = interface.network.prefixlen, interface.ip.packed
    body = IFADDRMSG.pack(family_of(cidr), length, 0, 0, index)
    body += attribute(IFA_ADDRESS, packed) + attribute(IFA_LOCAL, packed)
    if interface.version == 4 and length < 31:
        body += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    if interface.version == 6:
        # duplicate address detection would leave the address unusable for a second; host-local already proved it unique
        body += attribute(IFA_FLAGS, u32(IFA_F_NODAD))
    return body


def add(index: int, cidr: str) -> Message:
    """A message that gives the device an address; one that is there already is fine."""
    flags = NLM_F_CREATE | NLM_F_EXCL
    return Message(RTM_NEWADDR, flags, _body(index, cidr), "address add", cidr, (errno.EEXIST,))


def delete(index: int, cidr: str) -> Message:
    """A message that takes an address away; a missing address or device is fine."""
    ignored = (errno.EADDRNOTAVAIL, errno.ENODEV)
    return Message(RTM_DELADDR, 0, _body(index, cidr), "address delete", cidr, ignored)


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
