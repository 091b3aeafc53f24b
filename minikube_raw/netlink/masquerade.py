"""Masquerading (source NAT) of pod traffic that leaves the cluster, in nftables tables of our own.

Two ways in: ensure() and remove() for single attachments, as CNI's ipMasq wants it, and ensure_subnet() for a whole
node at once, which costs an ADD nothing (a commit takes the kernel milliseconds). Each is one transaction.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterable, Sequence
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


def _network_chain(network: str) -> str:
    """Chain names have no length to spare (31 bytes with nft's oldest kernels), network names do."""
    return "net-" + hashlib.sha256(network.encode()).hexdigest()[:16]


def ensure(key: Key, cidrs: Sequence[str], *, exclude: Sequence[str] = ()) -> None:
    """Masquerades what comes from these addresses (CIDR: with their subnet) unless it goes to their subnet, `exclude`
    or multicast.
    """
    messages: list[Message] = []
    for family, own in _by_family(cidrs).items():
        chain = _network_chain(key.network)
        spared = [nftables.network_of(cidr) for cidr in own] + _by_family(exclude).get(family, []) + [MULTICAST[family]]
        messages += _base(family)
        messages += _exempting_chain(family, TABLE, chain, spared)
        messages += [nftables.add_jump(family, TABLE, MAP, cidr.partition("/")[0], chain, key.comment) for cidr in own]
    with nftables.open_socket() as netlink:
        for family, own in _by_family(cidrs).items():
            # an element left by somebody else's failed DEL would keep its old comment
            stale = nftables.dump_elements(netlink, family, TABLE, MAP)
            if again := [ip for ip in (cidr.partition("/")[0] for cidr in own) if ip in stale]:
                messages.insert(0, nftables.delete_elements(family, TABLE, MAP, again))
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
        for cidr in dict.fromkeys(spared)
    ]
    return [
        nftables.add_chain(family, table, chain),
        nftables.flush_chain(family, table, chain),
        *returns,
        nftables.add_rule(family, table, chain, nftables.masquerade()),
    ]


def _remove_where(network: str, doomed: Iterable[tuple[str, str]] | None, kept: set[tuple[str, str]]) -> None:
    """Removes the entries of a network: those of `doomed`, or with None all that are not in `kept`."""
    listed = None if doomed is None else set(doomed)
    with nftables.open_socket() as netlink:
        messages = []
        for family in MULTICAST:
            addresses = []
            for address, comment in nftables.dump_elements(netlink, family, TABLE, MAP).items():
                owner_network, _, owner = comment.partition(" ")
                container_id, _, ifname = owner.partition(" ")
                mine = owner_network == network
                gone = (container_id, ifname) not in kept if listed is None else (container_id, ifname) in listed
                if mine and gone:
                    addresses.append(address)
            if addresses:
                messages.append(nftables.delete_elements(family, TABLE, MAP, addresses))
        if messages:
            nftables.batch(netlink, messages)


def remove(key: Key) -> None:
    """Removes an attachment's entries; none is fine. Neither its namespace nor its addresses need be known."""
    try:
        _remove_where(key.network, [(key.container_id, key.ifname)], set())
    except OSError as error:
        if error.errno != errno.ENOENT:  # somebody flushed the ruleset between look and batch: gone is gone
            raise


def keep_only(network: str, valid: set[tuple[str, str]]) -> None:
    """Removes every entry of the network that is not of a valid (container id, ifname)."""
    _remove_where(network, None, valid)


def present(key: Key, cidrs: Sequence[str]) -> bool:
    """Whether every address still has its entry and the rules behind it."""
    with nftables.open_socket() as netlink:
        for family, own in _by_family(cidrs).items():
            elements = nftables.dump_elements(netlink, family, TABLE, MAP)
            if any(elements.get(cidr.partition("/")[0]) != key.comment for cidr in own):
                return False
            chains = (BASE_CHAIN, _network_chain(key.network))
            if not all(nftables.has_rules(netlink, family, TABLE, chain) for chain in chains):
                return False
    return True


def ensure_subnet(subnet: str, *, exclude: Sequence[str], table: str = SUBNET_TABLE) -> None:
    """Masquerades what comes from the subnet unless it goes to `exclude` or multicast; replaces what was there
    before.
    """
    family = NFPROTO[family_of(subnet)]
    spared = [*_by_family(exclude).get(family, []), MULTICAST[family]]
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
