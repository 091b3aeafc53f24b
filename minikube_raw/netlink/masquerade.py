"""Masquerading (source NAT) of pod traffic that leaves the cluster, in nftables tables of our own.

Two ways in: ensure() and remove() for single attachments, as CNI's ipMasq wants it, and ensure_subnet() for a whole
node at once, which costs an ADD nothing (a commit takes the kernel milliseconds). Each is one transaction.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from . import nftables
from .addresses import family_of
from .transport import Message

TABLE = "minikube_raw_cni"
SUBNET_TABLE = "minikube_raw_node"
BASE_CHAIN = "postrouting"
MAP = "attachments"
NFPROTO: dict[int, int] = {socket.AF_INET: nftables.NFPROTO_IPV4, socket.AF_INET6: nftables.NFPROTO_IPV6}
MULTICAST = {nftables.NFPROTO_IPV4: "224.0.0.0/4", nftables.NFPROTO_IPV6: "ff00::/8"}


class Key(NamedTuple):
    """Whose entry it is; kept as the entry's comment, by which DEL finds it when nothing else is left."""

    network: str
    container_id: str
    ifname: str

    @property
    def comment(self) -> str:
        """What `nft list ruleset` shows beside the address."""
        return " ".join(self)


def _by_family(cidrs: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for cidr in cidrs:
        found.setdefault(NFPROTO[family_of(cidr)], []).append(cidr)
    return found


def _chain_name(spared: Sequence[str]) -> str:
    """A chain is named after what it spares, so one that exists and has rules is right; names end at 31 bytes on old kernels."""
    return "except-" + hashlib.sha256(" ".join(spared).encode()).hexdigest()[:16]


def _spared(family: int, cidrs: Sequence[str], exclude: Sequence[str]) -> list[str]:
    own_networks = [nftables.network_of(cidr) for cidr in cidrs]
    return list(dict.fromkeys([*own_networks, *_by_family(exclude).get(family, []), MULTICAST[family]]))


def _ip(cidr: str) -> str:
    return cidr.partition("/")[0]


def ensure(key: Key, cidrs: Sequence[str], *, exclude: Sequence[str] = ()) -> None:
    """Masquerades what comes from these addresses (CIDR: with their subnet) unless it goes to their subnet, `exclude` or
    multicast. Rules that are there already are left alone: a commit that removes any waits for RCU (10 ms, measured).
    """
    with nftables.open_socket() as netlink:
        messages: list[Message] = []
        for family, own in _by_family(cidrs).items():
            spared = _spared(family, own, exclude)
            chain = _chain_name(spared)
            if not all(nftables.has_rules(netlink, family, TABLE, name) for name in (BASE_CHAIN, chain)):
                messages += _base(family)
                messages += _exempting_chain(family, TABLE, chain, spared)
            known = [
                _ip(cidr) for cidr in own if nftables.get_element(netlink, family, TABLE, MAP, _ip(cidr)) is not None
            ]
            if known:  # left by an ADD whose DEL never came; its comment names another owner
                messages.append(nftables.delete_elements(family, TABLE, MAP, known))
            messages += [nftables.add_jump(family, TABLE, MAP, _ip(cidr), chain, key.comment) for cidr in own]
        nftables.batch(netlink, messages)


def _base(family: int) -> list[Message]:
    return [
        nftables.add_table(family, TABLE),
        nftables.add_base_chain(
            family, TABLE, BASE_CHAIN, "nat", nftables.NF_INET_POST_ROUTING, nftables.NF_IP_PRI_NAT_SRC
        ),
        nftables.add_verdict_map(family, TABLE, MAP),
        nftables.flush_chain(family, TABLE, BASE_CHAIN),
        nftables.add_rule(
            family, TABLE, BASE_CHAIN, nftables.load_address(family, source=True), nftables.look_up_verdict(MAP)
        ),
    ]


def _exempting_chain(family: int, table: str, chain: str, spared: Sequence[str]) -> list[Message]:
    """A chain that returns for the spared destinations and masquerades the rest; its rules are replaced."""
    returns = [
        nftables.add_rule(
            family, table, chain, *nftables.match_network(family, cidr, source=False), nftables.return_verdict()
        )
        for cidr in spared
    ]
    return [
        nftables.add_chain(family, table, chain),
        nftables.flush_chain(family, table, chain),
        *returns,
        nftables.add_rule(family, table, chain, nftables.masquerade()),
    ]


def remove(key: Key) -> None:
    """Removes an attachment's entries; none is fine. Neither its namespace nor its addresses need be known."""
    _remove_where(lambda owner: owner == key)


def keep_only(network: str, valid: set[tuple[str, str]]) -> None:
    """Removes every entry of the network that is not of a valid (container id, ifname)."""
    _remove_where(lambda owner: owner.network == network and (owner.container_id, owner.ifname) not in valid)


def _remove_where(doomed: Callable[[Key], bool]) -> None:
    with nftables.open_socket() as netlink:
        messages = []
        for family in MULTICAST:
            listed = nftables.dump_elements(netlink, family, TABLE, MAP)
            gone = [address for address, comment in listed.items() if (key := _key_of(comment)) and doomed(key)]
            if gone:
                messages.append(nftables.delete_elements(family, TABLE, MAP, gone))
        if messages:
            with suppress(FileNotFoundError):  # somebody flushed the ruleset since we looked: gone is gone
                nftables.batch(netlink, messages)


def _key_of(comment: str) -> Key | None:
    words = comment.split(" ")
    return Key(*words) if len(words) == 3 else None


def present(key: Key, cidrs: Sequence[str], *, exclude: Sequence[str] = ()) -> bool:
    """Whether every address still has its entry and the rules behind it."""
    with nftables.open_socket() as netlink:
        for family, own in _by_family(cidrs).items():
            chains = (BASE_CHAIN, _chain_name(_spared(family, own, exclude)))
            if not all(nftables.has_rules(netlink, family, TABLE, chain) for chain in chains):
                return False
            if any(nftables.get_element(netlink, family, TABLE, MAP, _ip(cidr)) != key.comment for cidr in own):
                return False
    return True


def ensure_subnet(subnet: str, *, exclude: Sequence[str], table: str = SUBNET_TABLE) -> None:
    """Masquerades what comes from the subnet unless it goes to `exclude` or multicast; replaces what was there
    before.
    """
    family = NFPROTO[family_of(subnet)]
    spared = _spared(family, [], exclude)
    messages = [
        nftables.add_table(family, table),
        nftables.delete_table(family, table),
        nftables.add_table(family, table),
        *_exempting_chain(family, table, "pods", spared),
        nftables.add_base_chain(
            family, table, BASE_CHAIN, "nat", nftables.NF_INET_POST_ROUTING, nftables.NF_IP_PRI_NAT_SRC
        ),
        nftables.add_rule(
            family,
            table,
            BASE_CHAIN,
            *nftables.match_network(family, subnet, source=True),
            nftables.jump("pods"),
        ),
    ]
    with nftables.open_socket() as netlink:
        nftables.batch(netlink, messages)


def subnet_present(subnet: str, *, table: str = SUBNET_TABLE) -> bool:
    """Whether ensure_subnet's rules are in force (somebody may have flushed the ruleset)."""
    family = NFPROTO[family_of(subnet)]
    with nftables.open_socket() as netlink:
        return all(nftables.has_rules(netlink, family, table, chain) for chain in (BASE_CHAIN, "pods"))


def remove_subnet(family: int = socket.AF_INET, *, table: str = SUBNET_TABLE) -> None:
    """Removes ensure_subnet's table."""
    protocol = NFPROTO[family]
    with nftables.open_socket() as netlink:
        nftables.batch(netlink, [nftables.add_table(protocol, table), nftables.delete_table(protocol, table)])
