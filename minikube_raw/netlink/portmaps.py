"""Host ports: connections to a port of this host lead into a container, by nftables tables of our own (ip and ip6).

A mapping is an element of a map, not a rule: finding it takes the same time among ten and ten thousand, and each operation is one
transaction. Elements carry their owner as comment, by which DEL and GC find them when nothing else is left. Per family:

    prerouting, output → ports…: [mark what is to be masqueraded], address·protocol·port → DNAT, local·protocol·port → DNAT
    postrouting: marked, or from the container itself or this host's loopback → masquerade

Networks with conditions of their own have chain and maps of their own, behind those conditions.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from . import nft_maps, nftables
from .masquerade import Key
from .nft_maps import PROTOCOL_TYPE, REGISTER, SERVICE_TYPE, WORD, Element, concatenated
from .nftables import NFPROTO_IPV4, NFPROTO_IPV6
from .transport import NLM_F_CREATE, Message, NetlinkSocket

TABLE = "minikube_raw_portmap"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
FAMILIES = (NFPROTO_IPV4, NFPROTO_IPV6)
NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT = 0, 3
NF_IP_PRI_NAT_DST = -100
LOOPBACK = "127.0.0.1"
_TO_MASQUERADE = "masquerade"
_BASE = {"prerouting": NF_INET_PRE_ROUTING, "output": NF_INET_LOCAL_OUT}


class Mapping(NamedTuple):
    """One host port; `host_ip` "" is every address of this host."""

    protocol: str
    host_port: int
    container_port: int
    host_ip: str = ""


class Condition(NamedTuple):
    """What a packet has to be besides, as expressions of a rule, and the text that names it."""

    text: str
    expressions: tuple[bytes, ...]


class Forwarding(NamedTuple):
    """The mappings of one attachment in one family; `mark` 0 masquerades only what could not come back otherwise."""

    family: int
    address: str
    mappings: tuple[Mapping, ...]
    snat: bool = True
    mark: int = 0
    conditions: tuple[Condition, ...] = ()

    @property
    def group(self) -> str:
        """What names the chain and the maps of all who have these conditions."""
        words = [condition.text for condition in self.conditions]
        return "-" + hashlib.sha256(" ".join(words).encode()).hexdigest()[:12] if words else ""

    @property
    def chain(self) -> str:
        """The chain with the group's DNAT rules."""
        return f"ports{self.group}"

    def elements(self, owner: str) -> dict[str, list[Element]]:
        """What has to be in each map and set."""
        found: dict[str, list[Element]] = {}

        def put(name: str, key: bytes, value: bytes = b"") -> None:
            found.setdefault(name, []).append(Element(key, value, owner))

        for mapping in self.mappings:
            port = _port_key(mapping)
            target = nft_maps.address_field(self.address) + nft_maps.port_field(mapping.container_port)
            if mapping.host_ip:
                put(f"at-address{self.group}", nft_maps.address_field(mapping.host_ip) + port, target)
            else:
                put(f"at-any{self.group}", port, target)
            if self.mark:
                put(f"marked{self.group}-{self.mark}", port)
        if self.snat:
            own = nft_maps.address_field(self.address)
            put(_TO_MASQUERADE, own + own)  # its own port by way of the host: the answer must not go straight back
            if self.family == NFPROTO_IPV4:
                put(_TO_MASQUERADE, nft_maps.address_field(LOOPBACK) + own)
        return found


def _port_key(mapping: Mapping) -> bytes:
    return nft_maps.protocol_field(PROTOCOLS[mapping.protocol]) + nft_maps.port_field(mapping.host_port)


def ensure(key: Key, forwardings: Sequence[Forwarding]) -> None:
    """Puts the mappings in force, in one transaction; what an attachment that is gone had of them is taken over."""
    with nftables.open_socket() as netlink:
        messages: list[Message] = []
        for forwarding in forwardings:
            messages += _missing_rules(netlink, forwarding)
            for name, wanted in forwarding.elements(key.comment).items():
                keys = {element.key for element in wanted}
                there = [
                    each.key for each in nft_maps.elements(netlink, forwarding.family, TABLE, name) if each.key in keys
                ]
                if there:
                    messages.append(nft_maps.delete_keys(forwarding.family, TABLE, name, there))
                messages.append(nft_maps.add_elements(forwarding.family, TABLE, name, wanted))
        nftables.batch(netlink, messages)


def _missing_rules(netlink: NetlinkSocket, forwarding: Forwarding) -> list[Message]:
    """Chains, maps and rules that are not there yet; a rule is known by its comment."""
    family, chain = forwarding.family, forwarding.chain
    comments = {name: nft_maps.rule_comments(netlink, family, TABLE, name) for name in (*_BASE, "postrouting", chain)}
    messages = [nftables.add_table(family, TABLE), *_sets(forwarding)]
    messages += [
        nftables.add_base_chain(family, TABLE, name, "nat", hook, NF_IP_PRI_NAT_DST) for name, hook in _BASE.items()
    ]
    messages.append(
        nftables.add_base_chain(
            family, TABLE, "postrouting", "nat", nftables.NF_INET_POST_ROUTING, nftables.NF_IP_PRI_NAT_SRC
        )
    )
    messages.append(nftables.add_chain(family, TABLE, chain))
    rules = [(where, comment, rule) for where, comment, rule in _rules(forwarding) if comment not in comments[where]]
    if not rules:
        return []
    return messages + [_rule(family, where, comment, rule) for where, comment, rule in rules]


def _sets(forwarding: Forwarding) -> list[Message]:
    family, group = forwarding.family, forwarding.group
    length, address_type = nftables.ADDRESS_LAYOUT[family][2:]
    port = (concatenated(PROTOCOL_TYPE, SERVICE_TYPE), 2 * WORD)
    address_port = (concatenated(address_type, PROTOCOL_TYPE, SERVICE_TYPE), length + 2 * WORD)
    target = (concatenated(address_type, SERVICE_TYPE), length + WORD)
    pair = (concatenated(address_type, address_type), 2 * length)
    made = [
        nft_maps.add_set(family, TABLE, f"at-any{group}", key=port, value=target),
        nft_maps.add_set(family, TABLE, f"at-address{group}", key=address_port, value=target),
        nft_maps.add_set(family, TABLE, _TO_MASQUERADE, key=pair),
    ]
    if forwarding.mark:
        made.append(nft_maps.add_set(family, TABLE, f"marked{group}-{forwarding.mark}", key=port))
    return made


def _rules(forwarding: Forwarding) -> Iterator[tuple[str, str, list[bytes]]]:
    """Each rule with its chain and the comment that names it."""
    family, group, chain = forwarding.family, forwarding.group, forwarding.chain
    words = nftables.ADDRESS_LAYOUT[family][2] // WORD
    local = nft_maps.destination_is_local()
    nat = nft_maps.destination_nat(family)
    if forwarding.mark:
        key, name = _load_port(REGISTER), f"marked{group}-{forwarding.mark}"
        yield chain, name, [*local, *key, nft_maps.look_up(name), *nft_maps.set_mark(forwarding.mark)]
        marked = [*nft_maps.has_mark(forwarding.mark), nftables.masquerade()]
        yield "postrouting", f"mark {forwarding.mark:#x}", marked
    address = nftables.load_address(family, source=False, register=REGISTER)
    by_address = [address, *_load_port(REGISTER + words), nft_maps.look_up_value(f"at-address{group}"), nat]
    yield chain, "at an address", by_address
    yield chain, "at any address", [*local, *_load_port(REGISTER), nft_maps.look_up_value(f"at-any{group}"), nat]
    for base in _BASE:
        conditions = [each for condition in forwarding.conditions for each in condition.expressions]
        yield base, chain, [*conditions, nftables.jump(chain)]
    source = nftables.load_address(family, source=True, register=REGISTER)
    destination = nftables.load_address(family, source=False, register=REGISTER + words)
    pair = [source, destination, nft_maps.look_up(_TO_MASQUERADE), nftables.masquerade()]
    yield "postrouting", _TO_MASQUERADE, pair


def _load_port(register: int) -> list[bytes]:
    protocol = nft_maps.load_meta(nft_maps.NFT_META_L4PROTO, register)
    return [protocol, nft_maps.load_destination_port(register + 1)]


def _rule(family: int, chain: str, comment: str, expressions: list[bytes]) -> Message:
    """A rule at the chain's end; one that marks goes to its beginning, before the packet's way is decided."""
    added = nftables.add_rule(family, TABLE, chain, *expressions, comment=comment)
    return added._replace(flags=NLM_F_CREATE) if comment.startswith("mark") else added


def remove(key: Key) -> list[int]:
    """Removes an attachment's mappings; none is fine. Returns the host ports of its UDP mappings."""
    return _remove_where(lambda owner: owner == key)


def keep_only(network: str, valid: set[tuple[str, str]]) -> None:
    """Removes every mapping of the network that is not of a valid (container id, ifname)."""
    _remove_where(lambda owner: owner.network == network and (owner.container_id, owner.ifname) not in valid)


def _remove_where(doomed: Callable[[Key], bool]) -> list[int]:
    udp: list[int] = []
    with nftables.open_socket() as netlink:
        messages = []
        for family in FAMILIES:
            for name in nft_maps.set_names(netlink, family, TABLE):
                found = nft_maps.elements(netlink, family, TABLE, name)
                gone = [each.key for each in found if (owner := _owner(each.comment)) and doomed(owner)]
                if gone:
                    messages.append(nft_maps.delete_keys(family, TABLE, name, gone))
                    udp += _udp_ports(name, gone)
        if messages:
            with suppress(FileNotFoundError):  # somebody flushed the ruleset since we looked: gone is gone
                nftables.batch(netlink, messages)
    return udp


def _owner(comment: str) -> Key | None:
    words = comment.split(" ")
    return Key(*words) if len(words) == 3 else None


def _udp_ports(name: str, keys: Sequence[bytes]) -> list[int]:
    """The ports in keys that end in protocol and port."""
    if not name.startswith("at-"):
        return []
    tails = [key[-2 * WORD :] for key in keys]
    return [int.from_bytes(tail[WORD : WORD + 2], "big") for tail in tails if tail[0] == PROTOCOLS["udp"]]


def missing(key: Key, forwardings: Sequence[Forwarding]) -> str:
    """What of the mappings is not in force, in words; "" when all is."""
    with nftables.open_socket() as netlink:
        for forwarding in forwardings:
            if _missing_rules(netlink, forwarding):
                return f"rules of chain {forwarding.chain}"
            for name, wanted in forwarding.elements(key.comment).items():
                if set(wanted) - set(nft_maps.elements(netlink, forwarding.family, TABLE, name)):
                    return f"elements of {name}"
    return ""


def remove_if_empty() -> None:
    """Removes the tables when no mapping is left of anybody."""
    with nftables.open_socket() as netlink:
        for family in FAMILIES:
            names = nft_maps.set_names(netlink, family, TABLE)
            if names and not any(nft_maps.elements(netlink, family, TABLE, name) for name in names):
                nftables.batch(netlink, [nftables.delete_table(family, TABLE)])


def probe() -> None:
    """Raises OSError where the kernel has no nf_tables."""
    with nftables.open_socket() as netlink:
        nft_maps.set_names(netlink, NFPROTO_IPV4, TABLE)


def family_of(address: str) -> int:
    """The nftables family of an address."""
    return NFPROTO_IPV6 if ipaddress.ip_address(address).version == 6 else NFPROTO_IPV4
