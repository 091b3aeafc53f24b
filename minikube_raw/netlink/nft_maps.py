"""nftables maps and sets whose keys are several fields at once, and the expressions that fill, look up and use such keys.

Fields lie in registers of 32 bits, each field from a new register on; keys and values are given as the bytes found there.
Numbers are from linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .nftables import (
    ADDRESS_LAYOUT,
    NFT_MSG_DELSETELEM,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_SET_MAP,
    attribute,
    comment_of,
    equals,
    expression,
    load,
    mask_bits,
    message,
    nested,
    userdata,
)
from .transport import NLM_F_CREATE, Message, NetlinkSocket, attributes

REGISTER = 8  # NFT_REG32_00; the next ones follow
WORD = 4  # bytes of a register
PROTOCOL_TYPE, SERVICE_TYPE = 12, 13  # inet_proto and inet_service, as nft numbers types
TYPE_BITS = 6
NFT_PAYLOAD_TRANSPORT_HEADER = 2
NFT_META_MARK, NFT_META_IIFNAME, NFT_META_L4PROTO = 3, 6, 16
NFT_FIB_RESULT_ADDRTYPE, NFT_FIB_F_DADDR, RTN_LOCAL = 3, 2, 2
NFT_NAT_DNAT = 1
IFNAME_BYTES = 16


class Element(NamedTuple):
    """What is in a map (or, without value, in a set), with the comment that says whose it is."""

    key: bytes
    value: bytes = b""
    comment: str = ""


def concatenated(*types: int) -> int:
    """The type of several fields at once."""
    number = 0
    for each in types:
        number = number << TYPE_BITS | each
    return number


def address_field(address: str) -> bytes:
    """An address as registers hold it."""
    return ipaddress.ip_address(address).packed


def protocol_field(number: int) -> bytes:
    """A transport protocol's number as a register holds it."""
    return bytes([number, 0, 0, 0])


def port_field(port: int) -> bytes:
    """A port as a register holds it."""
    return struct.pack(">HH", port, 0)


def add_set(
    family: int, table: str, name: str, *, key: tuple[int, int], value: tuple[int, int] | None = None
) -> Message:
    """Makes a set, or with `value` a map, unless it is there. `key` and `value` are (type, bytes)."""
    body = [attribute(1, table), attribute(2, name), attribute(3, NFT_SET_MAP if value else 0)]
    body += [attribute(4, key[0]), attribute(5, key[1])]
    if value:
        body += [attribute(6, value[0]), attribute(7, value[1])]
    body.append(attribute(10, 1))  # the kernel wants an id, by which rules of the same batch may refer to the set
    return message(NFT_MSG_NEWSET, family, body, "add map" if value else "add set", name, NLM_F_CREATE)


def _listed(table: str, name: str, elements: Iterable[bytes]) -> list[bytes]:
    return [attribute(1, table), attribute(2, name), nested(3, *(nested(1, element) for element in elements))]


def add_elements(family: int, table: str, name: str, elements: Sequence[Element]) -> Message:
    """Puts elements in; one whose key is there with another value is refused with EBUSY, or EEXIST."""
    encoded = []
    for element in elements:
        parts = nested(1, attribute(1, element.key))
        if element.value:
            parts += nested(2, attribute(1, element.value))
        encoded.append(parts + attribute(6, userdata(element.comment)))
    return message(NFT_MSG_NEWSETELEM, family, _listed(table, name, encoded), "add elements", name, NLM_F_CREATE)


def delete_keys(family: int, table: str, name: str, keys: Iterable[bytes]) -> Message:
    """Takes elements out."""
    body = _listed(table, name, (nested(1, attribute(1, key)) for key in keys))
    return message(NFT_MSG_DELSETELEM, family, body, "delete elements", name)


def elements(netlink: NetlinkSocket, family: int, table: str, name: str) -> list[Element]:
    """What is in a set or map; nothing when it is missing."""
    try:
        answers = netlink.dump(
            message(NFT_MSG_GETSETELEM, family, [attribute(1, table), attribute(2, name)], "list elements", name)
        )
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return [element for answer in answers for element in _parse(answer)]


def set_names(netlink: NetlinkSocket, family: int, table: str) -> list[str]:
    """The sets and maps of a table; none when it is missing."""
    try:
        answers = netlink.dump(message(NFT_MSG_GETSET, family, [attribute(1, table)], "list sets", table))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return [dict(attributes(answer, 4))[2].rstrip(b"\0").decode() for answer in answers]


def _parse(answer: bytes) -> list[Element]:
    listed = next((value for kind, value in attributes(answer, 4) if kind == 3), b"")
    found = []
    for _, encoded in attributes(listed):
        parts = dict(attributes(encoded))
        value = dict(attributes(parts[2]))[1] if 2 in parts else b""
        found.append(Element(dict(attributes(parts[1]))[1], value, comment_of(parts.get(6, b""))))
    return found


def rule_comments(netlink: NetlinkSocket, family: int, table: str, chain: str) -> list[str]:
    """The comments of a chain's rules; none when it is missing."""
    try:
        answers = netlink.dump(
            message(NFT_MSG_GETRULE, family, [attribute(1, table), attribute(2, chain)], "list rules", chain)
        )
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return [comment_of(dict(attributes(answer, 4)).get(7, b"")) for answer in answers]


def load_meta(key: int, register: int) -> bytes:
    """Loads a property of the packet that is in none of its headers."""
    return expression("meta", attribute(1, register), attribute(2, key))


def load_destination_port(register: int) -> bytes:
    """Loads the destination port, which TCP, UDP and SCTP have at the same place."""
    return load(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)


def destination_is_local() -> list[bytes]:
    """Goes on only for packets to an address of this host."""
    fib = expression(
        "fib", attribute(1, REGISTER), attribute(2, NFT_FIB_RESULT_ADDRTYPE), attribute(3, NFT_FIB_F_DADDR)
    )
    return [fib, equals(struct.pack("=I", RTN_LOCAL), REGISTER)]


def look_up(name: str) -> bytes:
    """Goes on only when the key from REGISTER on is in a set."""
    return expression("lookup", attribute(1, name), attribute(2, REGISTER))


def look_up_value(name: str) -> bytes:
    """Loads the value of the key from REGISTER on, over the key; goes on only when it has one."""
    return expression("lookup", attribute(1, name), attribute(2, REGISTER), attribute(3, REGISTER))


def destination_nat(family: int) -> bytes:
    """Sends the packet to the address and port that lie from REGISTER on."""
    words = ADDRESS_LAYOUT[family][2] // WORD
    return expression(
        "nat",
        attribute(1, NFT_NAT_DNAT),
        attribute(2, family),
        attribute(3, REGISTER),
        attribute(5, REGISTER + words),
    )


def set_mark(mark: int) -> list[bytes]:
    """Sets a bit of the packet's mark."""
    return [
        load_meta(NFT_META_MARK, REGISTER),
        mask_bits(struct.pack("=I", ~mark & 0xFFFFFFFF), struct.pack("=I", mark), REGISTER),
        expression("meta", attribute(3, REGISTER), attribute(2, NFT_META_MARK)),
    ]


def has_mark(mark: int) -> list[bytes]:
    """Goes on only for packets with a bit of the mark."""
    bit = struct.pack("=I", mark)
    return [load_meta(NFT_META_MARK, REGISTER), mask_bits(bit, bytes(WORD), REGISTER), equals(bit, REGISTER)]


def match_input_device(name: str, *, operation: int) -> list[bytes]:
    """Goes on only for packets that came in by a device, or with NFT_CMP_NEQ by another."""
    return [
        load_meta(NFT_META_IIFNAME, REGISTER),
        equals(name.encode().ljust(IFNAME_BYTES, b"\0"), REGISTER, operation=operation),
    ]
