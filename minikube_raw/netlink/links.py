"""Bridges, veth pairs and VXLAN devices: messages that make them, and `ensure_*` functions that find, compare and
repair.

ensure_x follows flannel's shape: look, create what is missing, recreate what differs in a way the kernel cannot change,
look again. The kernel decides; nothing is remembered between calls. What each ADD and DEL of a pod sends is packed by hand:
pyroute2 takes ten times as long for it.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from .transport import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket, attribute, attributes, from_pyroute2, u32

IFF_UP = 0x1
IFF_PROMISC = 0x100
IFNAMSIZ = 16
RTEXT_FILTER_SKIP_STATS = 1 << 3
# struct ifinfomsg (rtnetlink(7)) and linux/if_link.h
IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 4, 5, 10, 16, 18
IFLA_EXT_MASK = 29
IFLA_IFALIAS, IFALIAS_BYTES = 20, 255
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 26, 8, 1
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1  # linux/veth.h
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = (
    1,
    3,
    4,
    7,
    15,
    17,
)
OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")


@dataclass(frozen=True)
class Link:
    """What the kernel says about a device; `operstate` as in `ip link` ("UP", "LOWERLAYERDOWN", …), `data` its kind's
    attributes, by number and undecoded. `peer` is a veth's other end, by index in the namespace that has it (0: none).
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    flags: int
    operstate: str
    data: Mapping[int, bytes]
    peer: int

    @property
    def up(self) -> bool:
        """Whether the device is administratively up."""
        return bool(self.flags & IFF_UP)


def link_message(
    *, index: int = 0, attributes: list[tuple[str, Any]], up: bool | None = None, promiscuous: bool | None = None
) -> ifinfmsg:
    """An ifinfmsg with the flags that are asked for; None leaves a flag as it is."""
    message = ifinfmsg()
    message["index"] = index
    message["flags"], message["change"] = _flags(up=up, promiscuous=promiscuous)
    message["attrs"] = attributes
    return message


def _flags(*, up: bool | None, promiscuous: bool | None = None) -> tuple[int, int]:
    """Flags and change mask of those that are asked for."""
    flags = changed = 0
    for wanted, bit in ((up, IFF_UP), (promiscuous, IFF_PROMISC)):
        if wanted is not None:
            changed |= bit
            flags |= bit if wanted else 0
    return flags, changed


def _get_message(*, name: str = "", index: int = 0) -> Message:
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    body += attribute(IFLA_EXT_MASK, u32(RTEXT_FILTER_SKIP_STATS)) + (_name(name) if name else b"")
    return Message(RTM_GETLINK, 0, body, "link get", name or str(index))


def get(netlink: NetlinkSocket, name: str = "", *, index: int = 0) -> Link | None:
    """The device of that name or index, None when there is none."""
    body = netlink.get(_get_message(name=name, index=index))
    return None if body is None else parse(body)


def dump(netlink: NetlinkSocket, *, master: int = 0) -> list[Link]:
    """All devices, or those enslaved to the device with index `master`."""
    attributes: list[tuple[str, Any]] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
    if master:
        attributes.append(("IFLA_MASTER", master))
    message = from_pyroute2(link_message(attributes=attributes), RTM_GETLINK, 0, "link dump", master or "all")
    return [parse(body) for body in netlink.dump(message)]


def parse(body: bytes) -> Link:
    """Decodes an RTM_NEWLINK body: the few attributes a Link has of the sixty the kernel sends."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = dict(attributes(body, IFINFOMSG.size))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=_text(found[IFLA_IFNAME]),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        master=_number(found.get(IFLA_MASTER)),
        flags=flags,
        operstate=OPERSTATES[found.get(IFLA_OPERSTATE, b"\0")[0]],
        data=dict(attributes(info.get(IFLA_INFO_DATA, b""))),
        peer=_number(found.get(IFLA_LINK)),
    )


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def create(
    name: str, kind: str, *, data: dict[str, Any] | None = None, mac: str = "", mtu: int = 0, up: bool = True
) -> Message:
    """A message that makes a device of a kind; EEXIST is the caller's to judge."""
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data:
        info.append(("IFLA_INFO_DATA", {"attrs": list(data.items())}))
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})]
    if mac:
        attributes.append(("IFLA_ADDRESS", mac))
    if mtu:
        attributes.append(("IFLA_MTU", mtu))
    message = link_message(attributes=attributes, up=up or None)
    return from_pyroute2(message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "link add", f"{name} type {kind}")


def add_veth(
    name: str,
    *,
    peer_name: str,
    peer_netns: int,
    mac: str = "",
    peer_mac: str = "",
    mtu: int = 0,
    master: int = 0,
    up: bool = True,
) -> Message:
    """A message that makes a veth pair: `name` here, up unless told otherwise, in `master`; its peer in the namespace with
    descriptor `peer_netns`.

    The peer is down: the kernel refuses IFF_UP on it before the pair is whole (ENOTCONN).
    """
    peer = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(peer_name)
    peer += attribute(IFLA_NET_NS_FD, u32(peer_netns)) + _properties(peer_mac, mtu)
    info = attribute(IFLA_INFO_KIND, b"veth\0") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, *_flags(up=up or None)) + _name(name) + _properties(mac, mtu)
    body += attribute(IFLA_MASTER, u32(master)) if master else b""
    body += attribute(IFLA_LINKINFO, info)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "link add", f"{name} type veth peer {peer_name}")


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")


def _properties(mac: str, mtu: int) -> bytes:
    """The attributes of those that are given."""
    packed = attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) if mac else b""
    return packed + (attribute(IFLA_MTU, u32(mtu)) if mtu else b"")


def change(
    index: int,
    *,
    name: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    up: bool | None = None,
    promiscuous: bool | None = None,
    netns: int | None = None,
) -> Message:
    """A message that changes a device; `master` 0 releases it from its bridge, `netns` moves it into that namespace."""
    flags, changed = _flags(up=up, promiscuous=promiscuous)
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, changed) + (_name(name) if name else b"")
    body += _properties(mac, mtu)
    body += attribute(IFLA_MASTER, u32(master)) if master is not None else b""
    body += attribute(IFLA_NET_NS_FD, u32(netns)) if netns is not None else b""
    return Message(RTM_NEWLINK, 0, body, "link set", name or str(index))


def bridge_port(name: str, *, hairpin: bool | None = None, isolated: bool | None = None) -> Message:
    """A message that sets a bridge port's options: hairpin sends a frame back out of the port it came in by."""
    options: list[tuple[str, Any]] = []
    if hairpin is not None:
        options.append(("IFLA_BRPORT_MODE", int(hairpin)))
    if isolated is not None:
        options.append(("IFLA_BRPORT_ISOLATED", int(isolated)))
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": options})]}
    message = link_message(attributes=[("IFLA_IFNAME", name), ("IFLA_LINKINFO", info)])
    return from_pyroute2(message, RTM_NEWLINK, 0, "link set bridge port", name)


def without_link_local(name: str) -> Message:
    """A message after which a device that is down gives itself no IPv6 address when it comes up; it can be given some.

    With one of its own it tells the whole link so, in half a dozen multicast packets, each of which a bridge hands to every
    port: as much work as there are pods. A kernel without IPv6 is fine.
    """
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(name)
    body += attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
    return Message(RTM_NEWLINK, 0, body, "link set addrgenmode none", name, (errno.EAFNOSUPPORT,))


def bring_up(name: str) -> Message:
    """A message that sets a device up."""
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + _name(name)
    return Message(RTM_NEWLINK, 0, body, "link set up", name)


def alias(name: str, text: str) -> Message:
    """A message that writes beside a device what it is for, cut at 255 bytes: `ip link` shows it, the kernel ignores it."""
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    body += _name(name) + attribute(IFLA_IFALIAS, text.encode()[:IFALIAS_BYTES])
    return Message(RTM_NEWLINK, 0, body, "link set alias", name)


def delete(name: str, *, missing_ok: bool = True) -> Message:
    """A message that deletes a device by name; a veth's peer goes with it (14-26 ms, the kernel waits for RCU)."""
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(name)
    return Message(RTM_DELLINK, 0, body, "link delete", name, (errno.ENODEV,) if missing_ok else ())


def ensure_bridge(
    netlink: NetlinkSocket, name: str, *, mtu: int = 0, mac: str = "", promiscuous: bool | None = None
) -> Link:
    """Finds or makes a bridge that is up; an existing one keeps its MAC. Raises FileExistsError if the name is
    another kind's.

    The MAC of a new one is set explicitly, from the name unless given, so that it does not follow its ports' addresses.
    """
    link = get(netlink, name)
    if link is None:
        # EEXIST: somebody made it since we looked
        message = create(name, "bridge", mac=mac or mac_from("bridge", name), mtu=mtu)._replace(ignore=(errno.EEXIST,))
        netlink.request(message)
        link = _get_existing(netlink, name)
    if link.kind != "bridge":
        raise FileExistsError(errno.EEXIST, f"{name} exists and is no bridge but {link.kind or 'a plain device'}")
    wanted_promiscuous = promiscuous if promiscuous and not link.flags & IFF_PROMISC else None
    if not link.up or (mtu and link.mtu != mtu) or wanted_promiscuous:
        netlink.request(change(link.index, up=True, mtu=mtu, promiscuous=wanted_promiscuous))
        link = _get_existing(netlink, name)
    return link


def _get_existing(netlink: NetlinkSocket, name: str) -> Link:
    link = get(netlink, name)
    if link is None:
        raise FileNotFoundError(errno.ENODEV, f"device {name} vanished while it was being set up")
    return link


def ensure_vxlan(
    netlink: NetlinkSocket, name: str, *, vni: int, local: str, uplink: int, port: int, mac: str, mtu: int
) -> Link:
    """Finds or makes a VXLAN device (nolearning, up) with these properties; one that differs where it cannot be
    changed is remade.

    `uplink` is the index of the device that carries the packets, `local` this node's address on it, `port` the UDP
    port.
    """
    packed = ipaddress.ip_address(local).packed
    found_as = {
        IFLA_VXLAN_ID: struct.pack("=I", vni),
        IFLA_VXLAN_LINK: struct.pack("=I", uplink),
        IFLA_VXLAN_PORT: struct.pack(">H", port),
        IFLA_VXLAN_LEARNING: b"\0",
        (IFLA_VXLAN_LOCAL6 if ":" in local else IFLA_VXLAN_LOCAL): packed,
    }
    wanted = {
        "IFLA_VXLAN_ID": vni,
        "IFLA_VXLAN_LINK": uplink,
        "IFLA_VXLAN_PORT": port,
        "IFLA_VXLAN_LEARNING": 0,
        ("IFLA_VXLAN_LOCAL6" if ":" in local else "IFLA_VXLAN_LOCAL"): local,
    }
    link = get(netlink, name)
    if link is not None and (
        link.kind != "vxlan" or any(link.data.get(kind) != value for kind, value in found_as.items())
    ):
        netlink.request(delete(name))
        link = None
    if link is None:
        netlink.request(create(name, "vxlan", data=wanted, mac=mac, mtu=mtu)._replace(ignore=(errno.EEXIST,)))
        link = _get_existing(netlink, name)
    if not link.up or link.mac != mac or link.mtu != mtu:
        netlink.request(change(link.index, up=True, mac=mac, mtu=mtu))
        link = _get_existing(netlink, name)
    return link


def mac_from(*parts: str) -> str:
    """A locally administered unicast MAC address that is a function of `parts` (46 bits of their SHA-256)."""
    digest = bytearray(hashlib.sha256("\0".join(parts).encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in digest)
