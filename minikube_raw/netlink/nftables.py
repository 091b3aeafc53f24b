"""nftables in atomic batches: messages for tables, chains, sets, elements and rules, and the expressions rules are
made of.

Nothing of pyroute2's here, whose helpers are one transaction each and mask addresses wrongly; a batch holds as a
whole or not at all. Numbers are from linux/netfilter/nf_tables.h. A commit costs the kernel milliseconds (RCU), so
one per operation.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence

from . import transport
from .transport import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    NetlinkSocket,
    attributes,
)

NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
(
    NFT_MSG_NEWTABLE,
    NFT_MSG_GETTABLE,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_GETCHAIN,
    NFT_MSG_DELCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_GETRULE,
    NFT_MSG_DELRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_GETSET,
    NFT_MSG_DELSET,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_GETSETELEM,
    NFT_MSG_DELSETELEM,
) = range(15)
NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
NF_INET_POST_ROUTING = 4
NF_IP_PRI_NAT_SRC = 100
NFT_REG_VERDICT, NFT_REG_1 = 0, 1
NFT_PAYLOAD_NETWORK_HEADER = 1
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFT_RETURN, NFT_JUMP = -5, -3
NFT_SET_MAP = 0x8
NFT_DATA_VERDICT = 0xFFFFFF00
NLA_F_NESTED = 0x8000
USERDATA_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT and NFTNL_UDATA_SET_ELEM_COMMENT: what `nft list` shows as comment
# where source and destination address lie in the network header, and the type nft shows for them
ADDRESS_LAYOUT = {NFPROTO_IPV4: (12, 16, 4, 7), NFPROTO_IPV6: (8, 24, 16, 8)}


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute; text is zero-terminated, numbers are 32 bits big-endian, as nf_tables wants them."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack(">i" if value < 0 else ">I", value)
    return transport.attribute(kind, value)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    body = b"".join(parts)
    return struct.pack("=HH", 4 + len(body), kind | NLA_F_NESTED) + body


def batch(netlink: NetlinkSocket, messages: Sequence[Message]) -> None:
    """Applies all messages or none (NFNL_MSG_BATCH_BEGIN … END). Raises OSError for the first that was refused.

    `netlink` is a socket of family NETLINK_NETFILTER.
    """
    bracket = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    begin = Message(NFNL_MSG_BATCH_BEGIN, 0, bracket, "nft", "begin", answered=False)
    end = Message(NFNL_MSG_BATCH_END, 0, bracket, "nft", "end", answered=False)
    netlink.request(begin, *messages, end)


def message(
    kind: int, family: int, body: Iterable[bytes], what: str, subject: str, flags: int = 0, ignore: tuple[int, ...] = ()
) -> Message:
    """One nf_tables message: nfgenmsg header and attributes."""
    header = struct.pack(">BBH", family, 0, 0)
    return Message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, header + b"".join(body), f"nft {what}", subject, ignore)


def add_table(family: int, table: str) -> Message:
    """Makes the table unless it is there."""
    return message(NFT_MSG_NEWTABLE, family, [attribute(1, table)], "add table", table, NLM_F_CREATE)


def delete_table(family: int, table: str) -> Message:
    """Removes the table and all in it; in a batch after add_table it never fails."""
    return message(NFT_MSG_DELTABLE, family, [attribute(1, table)], "delete table", table)


def add_chain(family: int, table: str, chain: str) -> Message:
    """Makes a chain to jump to, unless it is there."""
    return message(
        NFT_MSG_NEWCHAIN, family, [attribute(1, table), attribute(3, chain)], "add chain", chain, NLM_F_CREATE
    )


def add_base_chain(family: int, table: str, chain: str, kind: str, hook: int, priority: int) -> Message:
    """Makes a chain the kernel calls at a hook ("nat" at postrouting, …), unless it is there."""
    body = [
        attribute(1, table),
        attribute(3, chain),
        nested(4, attribute(1, hook), attribute(2, priority)),
        attribute(7, kind),
    ]
    return message(NFT_MSG_NEWCHAIN, family, body, "add chain", chain, NLM_F_CREATE)


def flush_chain(family: int, table: str, chain: str) -> Message:
    """Removes all rules of a chain."""
    return message(NFT_MSG_DELRULE, family, [attribute(1, table), attribute(2, chain)], "flush chain", chain)


def delete_chain(family: int, table: str, chain: str) -> Message:
    """Removes a chain nothing jumps to."""
    body = [attribute(1, table), attribute(3, chain)]
    return message(NFT_MSG_DELCHAIN, family, body, "delete chain", chain)


def add_rule(family: int, table: str, chain: str, *expressions: bytes, comment: str = "") -> Message:
    """Appends a rule."""
    body = [attribute(1, table), attribute(2, chain), nested(4, *(nested(1, each) for each in expressions))]
    if comment:
        body.append(attribute(7, userdata(comment)))
    return message(NFT_MSG_NEWRULE, family, body, "add rule", f"{chain} {comment}".strip(), NLM_F_CREATE | NLM_F_APPEND)


def add_verdict_map(family: int, table: str, name: str) -> Message:
    """Makes a map from addresses of the family to verdicts, unless it is there."""
    length, shown_type = ADDRESS_LAYOUT[family][2:]
    body = [
        attribute(1, table),
        attribute(2, name),
        attribute(3, NFT_SET_MAP),
        attribute(4, shown_type),
        attribute(5, length),
        attribute(6, NFT_DATA_VERDICT),
        attribute(7, 0),
        attribute(10, 1),  # the kernel wants an id, by which rules of the same batch may refer to the set
    ]
    return message(NFT_MSG_NEWSET, family, body, "add map", name, NLM_F_CREATE)


def _elements(table: str, name: str, elements: Iterable[bytes]) -> list[bytes]:
    return [attribute(1, table), attribute(2, name), nested(3, *(nested(1, element) for element in elements))]


def _key(address: str) -> bytes:
    return nested(1, attribute(1, ipaddress.ip_address(address).packed))


def add_jump(family: int, table: str, name: str, address: str, chain: str, comment: str) -> Message:
    """Maps an address to a jump, with a comment."""
    verdict = nested(2, nested(2, attribute(1, NFT_JUMP), attribute(2, chain)))
    element = _key(address) + verdict + attribute(6, userdata(comment))
    return message(NFT_MSG_NEWSETELEM, family, _elements(table, name, [element]), "add element", address, NLM_F_CREATE)


def delete_elements(family: int, table: str, name: str, addresses: Sequence[str]) -> Message:
    """Removes addresses from a map."""
    body = _elements(table, name, [_key(address) for address in addresses])
    return message(NFT_MSG_DELSETELEM, family, body, "delete element", ", ".join(addresses))


def dump_elements(netlink: NetlinkSocket, family: int, table: str, name: str) -> dict[str, str]:
    """The addresses in a set or map with their comments; empty when it is missing."""
    body = [attribute(1, table), attribute(2, name)]
    try:
        answers = netlink.dump(message(NFT_MSG_GETSETELEM, family, body, "list elements", name))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return {}
        raise
    return {address: comment for answer in answers for address, comment in _parse_elements(answer)}


def get_element(netlink: NetlinkSocket, family: int, table: str, name: str, address: str) -> str | None:
    """The comment of an address in a set or map, None when the address, the map or the table is missing."""
    body = _elements(table, name, [_key(address)])
    answer = netlink.get(message(NFT_MSG_GETSETELEM, family, body, "get element", address))
    return None if answer is None else dict(_parse_elements(answer)).get(address)


def _parse_elements(answer: bytes) -> Iterator[tuple[str, str]]:
    listed = next((value for kind, value in attributes(answer, 4) if kind == 3), b"")
    for _, element in attributes(listed):
        parts = dict(attributes(element))
        key = dict(attributes(parts[1]))[1]
        yield str(ipaddress.ip_address(key)), comment_of(parts.get(6, b""))


def has_rules(netlink: NetlinkSocket, family: int, table: str, chain: str) -> bool:
    """Whether a chain exists and has a rule."""
    try:
        body = [attribute(1, table), attribute(2, chain)]
        return bool(netlink.dump(message(NFT_MSG_GETRULE, family, body, "list rules", chain)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise


def userdata(comment: str) -> bytes:
    """A comment as nft(8) stores and shows it; cut to what fits."""
    text = comment.encode()[:250] + b"\0"
    return bytes([USERDATA_COMMENT, len(text)]) + text


def comment_of(data: bytes) -> str:
    """The comment in user data, "" when there is none."""
    if len(data) < 2 or data[0] != USERDATA_COMMENT:
        return ""
    return data[2 : 2 + data[1]].rstrip(b"\0").decode(errors="replace")


def expression(name: str, *parts: bytes) -> bytes:
    """One expression of a rule."""
    return attribute(1, name) + nested(2, *parts)


def load(base: int, offset: int, length: int, register: int) -> bytes:
    """Loads bytes of a header of the packet."""
    return expression("payload", attribute(1, register), attribute(2, base), attribute(3, offset), attribute(4, length))


def load_address(family: int, *, source: bool, register: int = NFT_REG_1) -> bytes:
    """Loads the packet's source or destination address."""
    source_offset, destination_offset, length, _ = ADDRESS_LAYOUT[family]
    return load(NFT_PAYLOAD_NETWORK_HEADER, source_offset if source else destination_offset, length, register)


def equals(value: bytes, register: int = NFT_REG_1, *, operation: int = NFT_CMP_EQ) -> bytes:
    """Goes on only when the register has (with NFT_CMP_NEQ: has not) a value."""
    return expression("cmp", attribute(1, register), attribute(2, operation), nested(3, attribute(1, value)))


def mask_bits(kept: bytes, added: bytes, register: int = NFT_REG_1) -> bytes:
    """Keeps bits of a register and toggles those of `added`."""
    return expression(
        "bitwise",
        attribute(1, register),
        attribute(2, register),
        attribute(3, len(kept)),
        nested(4, attribute(1, kept)),
        nested(5, attribute(1, added)),
    )


def match_network(family: int, cidr: str, *, source: bool, operation: int = NFT_CMP_EQ) -> list[bytes]:
    """Goes on only for packets from (`source`) or to the network, or with NFT_CMP_NEQ for all others."""
    network = ipaddress.ip_network(cidr)
    masked = mask_bits(network.netmask.packed, bytes(len(network.netmask.packed)))
    return [load_address(family, source=source), masked, equals(network.network_address.packed, operation=operation)]


def look_up_verdict(map_name: str) -> bytes:
    """Takes the verdict register 1 has in a map; goes on when it has none."""
    return expression("lookup", attribute(1, map_name), attribute(2, NFT_REG_1), attribute(3, NFT_REG_VERDICT))


def return_verdict() -> bytes:
    """Ends the chain for this packet."""
    return expression("immediate", attribute(1, NFT_REG_VERDICT), nested(2, nested(2, attribute(1, NFT_RETURN))))


def jump(chain: str) -> bytes:
    """Goes on in another chain and comes back."""
    verdict = nested(2, attribute(1, NFT_JUMP), attribute(2, chain))
    return expression("immediate", attribute(1, NFT_REG_VERDICT), nested(2, verdict))


def network_of(cidr: str) -> str:
    """The network of an address with prefix length."""
    return str(ipaddress.ip_interface(cidr).network)


def masquerade() -> bytes:
    """Gives the packet the address of the device it leaves by."""
    return expression("masq")


def open_socket() -> NetlinkSocket:
    """A socket for batch() and the dumps, in the calling thread's network namespace."""
    return NetlinkSocket(NETLINK_NETFILTER)
