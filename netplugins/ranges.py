"""Address ranges of host-local: the configuration's rules as a pure table, no files.

A range set is a list of ranges; every set gives an attachment one address. What is here decides which addresses may be
given and in which order they are tried; which are taken is the store's to know.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import errors, results
from .errors import CNIError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Range:
    """The addresses first..last of a subnet; its gateway is never given away."""

    subnet: IPNetwork
    first: IPAddress
    last: IPAddress
    gateway: IPAddress

    def __contains__(self, address: IPAddress) -> bool:
        return self.subnet.version == address.version and self.first <= address <= self.last  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


RangeSet = tuple[Range, ...]


def invalid(message: str, details: str = "") -> CNIError:
    """A configuration error of host-local."""
    return CNIError(errors.INVALID_CONFIG, message, details)


def parse_sets(ipam: dict[str, Any], runtime_ranges: list[Any], cni_version: str) -> list[RangeSet]:
    """The range sets of a configuration: runtimeConfig.ipRanges first, then the old-style subnet, then `ranges`."""
    sets = [parse_set(entries) for entries in runtime_ranges]
    if ipam.get("subnet"):
        sets.append(parse_set([ipam]))
    sets += [parse_set(entries) for entries in ipam.get("ranges") or []]
    if not sets:
        raise invalid("no IP ranges specified", 'write "ranges": [[{"subnet": "10.0.0.0/24"}]] under "ipam"')
    _refuse_overlaps([entry for entries in sets for entry in entries])
    if not results.at_least(cni_version, "0.3.0"):
        families = [entries[0].subnet.version for entries in sets]
        if len(set(families)) < len(families):
            raise invalid(f"cniVersion {cni_version} supports only one range set per address family")
    return sets


def parse_set(entries: list[dict[str, Any]]) -> RangeSet:
    """One range set; raises CNIError 7 for an empty one or one of both families."""
    if not entries:
        raise invalid("empty range set")
    parsed = tuple(parse_range(entry) for entry in entries)
    if len({entry.subnet.version for entry in parsed}) > 1:
        raise invalid("mixed address families in one range set", "give IPv4 and IPv6 a range set each")
    return parsed


def parse_range(entry: dict[str, Any]) -> Range:
    """One range with its defaults: gateway and first address .1 (the gateway is skipped), last the one before
    broadcast.
    """
    try:
        subnet = ipaddress.ip_network(entry["subnet"])
        first = ipaddress.ip_address(entry.get("rangeStart") or subnet[1])
        last = ipaddress.ip_address(entry.get("rangeEnd") or subnet[-2 if subnet.version == 4 else -1])
        gateway = ipaddress.ip_address(entry.get("gateway") or subnet[1])
    except (KeyError, ValueError, IndexError) as error:
        raise invalid(f"invalid range {entry.get('subnet')!r}", str(error)) from error
    if subnet.num_addresses <= 2:
        raise invalid(f"subnet {subnet} is too small to allocate from")
    for address in (first, last):
        if address.version != subnet.version or address not in subnet:
            raise invalid(f"{address} is not in subnet {subnet}")
    if subnet.version == 4 and last == subnet.broadcast_address:
        last -= 1
    if first > last:  # type: ignore[operator]  # same family, checked above
        raise invalid(f"range {first}-{last} ends before it starts")
    return Range(subnet, first, last, gateway)


def _refuse_overlaps(entries: list[Range]) -> None:
    ordered = sorted(entries, key=lambda entry: (entry.subnet.version, int(entry.first)))
    for before, after in itertools.pairwise(ordered):
        if after.first in before:
            raise invalid(f"ranges {before} and {after} overlap")


def candidates(entries: RangeSet, last_reserved: IPAddress | None) -> Iterator[tuple[IPAddress, Range]]:
    """Every address of the set with its range, once, beginning after the last one given (round-robin)."""
    position = next((number for number, entry in enumerate(entries) if last_reserved and last_reserved in entry), None)
    if position is None or last_reserved is None:
        for entry in entries:
            yield from _between(entry, entry.first, entry.last)
        return
    current = entries[position]
    yield from _between(current, last_reserved + 1, current.last)
    for entry in entries[position + 1 :] + entries[:position]:
        yield from _between(entry, entry.first, entry.last)
    yield from _between(current, current.first, last_reserved)


def _between(entry: Range, first: IPAddress, last: IPAddress) -> Iterator[tuple[IPAddress, Range]]:
    address = first
    while address <= last:  # type: ignore[operator]
        if address != entry.gateway:
            yield address, entry
        address += 1
