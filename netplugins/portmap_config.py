"""The portmap plugin's configuration: keys, runtimeConfig and prevResult read once, judged, and turned into forwardings.

Keys as the reference has them: snat (true), masqAll (false), markMasqBit (13), conditionsV4 and conditionsV6, and
runtimeConfig.portMappings. What only its iptables backend understands is refused by name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minikube_raw.netlink import nft_maps, nftables, portmaps
from minikube_raw.netlink.nftables import NFPROTO_IPV4, NFPROTO_IPV6, NFT_CMP_EQ, NFT_CMP_NEQ
from minikube_raw.netlink.portmaps import Condition, Forwarding, Mapping

from . import errors
from .errors import CNIError
from .results import Result
from .skel import CmdArgs

DEFAULT_MARK_BIT = 13
# How each backend of the reference writes a condition; "!" before the option, or "!=" before the value, turns it round.
_SOURCE, _DESTINATION, _DEVICE = (
    ("-s", "--source", "saddr"),
    ("-d", "--destination", "daddr"),
    ("-i", "--in-interface", "iifname"),
)


@dataclass(frozen=True)
class PortmapConfig:
    """The plugin's own keys."""

    network: str
    mappings: tuple[Mapping, ...]
    snat: bool
    mark: int
    conditions: dict[int, tuple[Condition, ...]]

    def forwardings(self, result: Result, ifname: str) -> list[Forwarding]:
        """What to forward to the container's first address of each family."""
        found = []
        for family, address in addresses_of(result, ifname).items():
            own = tuple(mapping for mapping in self.mappings if _concerns(mapping, family))
            if own:
                specific = tuple(mapping._replace(host_ip=_specific(mapping.host_ip)) for mapping in own)
                found.append(Forwarding(family, address, specific, self.snat, self.mark, self.conditions[family]))
        return found


def _concerns(mapping: Mapping, family: int) -> bool:
    return not mapping.host_ip or portmaps.family_of(mapping.host_ip) == family


def _specific(host_ip: str) -> str:
    """The address, "" for 0.0.0.0 and ::, which are every one of their family."""
    return "" if not host_ip or ipaddress.ip_address(host_ip).is_unspecified else host_ip


def addresses_of(result: Result, ifname: str) -> dict[int, str]:
    """The first address of each family on the container's interface; one of no interface may be its."""
    interfaces = result.get("interfaces") or []
    found: dict[int, str] = {}
    for ip in result.get("ips") or ():
        index = ip.get("interface")
        if index is not None and 0 <= index < len(interfaces):
            interface = interfaces[index]
            if interface.get("name") != ifname or not interface.get("sandbox"):
                continue
        address = ip["address"].partition("/")[0]
        found.setdefault(portmaps.family_of(address), address)
    return found


def parse(args: CmdArgs) -> PortmapConfig:
    """Reads the configuration; raises CNIError 2 or 7 for what cannot be."""
    config = args.config
    if config.get("backend") not in (None, "", "nftables"):
        raise CNIError(errors.UNSUPPORTED_FIELD, f"unsupported backend {config['backend']!r}", "rules are nftables'")
    if config.get("externalSetMarkChain"):
        text = f"unsupported externalSetMarkChain {config['externalSetMarkChain']!r}"
        raise CNIError(errors.UNSUPPORTED_FIELD, text, "it names a chain of iptables; use markMasqBit")
    bit = config.get("markMasqBit", DEFAULT_MARK_BIT)
    if not isinstance(bit, int) or not 0 <= bit <= 31:
        raise CNIError(errors.INVALID_CONFIG, "MasqMarkBit must be between 0 and 31")
    snat = config.get("snat", True) is not False
    return PortmapConfig(
        network=config["name"],
        mappings=tuple(_mapping(entry) for entry in (config.get("runtimeConfig") or {}).get("portMappings") or ()),
        snat=snat,
        mark=1 << bit if config.get("masqAll") and snat else 0,
        conditions={
            NFPROTO_IPV4: _conditions(config.get("conditionsV4") or (), NFPROTO_IPV4),
            NFPROTO_IPV6: _conditions(config.get("conditionsV6") or (), NFPROTO_IPV6),
        },
    )


def _mapping(entry: dict[str, Any]) -> Mapping:
    host, container = entry.get("hostPort", 0), entry.get("containerPort", 0)
    for name, port in (("container", container), ("host", host)):
        if not isinstance(port, int) or not 0 < port < 1 << 16:
            raise CNIError(errors.INVALID_CONFIG, f"Invalid {name} port number: {port}", "1 to 65535")
    protocol = str(entry.get("protocol") or "tcp").lower()
    if protocol not in portmaps.PROTOCOLS:
        raise CNIError(errors.INVALID_CONFIG, f"unknown protocol {protocol!r}", ", ".join(portmaps.PROTOCOLS))
    host_ip = entry.get("hostIP") or ""
    try:
        return Mapping(protocol, host, container, str(ipaddress.ip_address(host_ip)) if host_ip else "")
    except ValueError as error:
        raise CNIError(errors.INVALID_CONFIG, f"invalid hostIP {host_ip!r}", str(error)) from error


def _conditions(words: Sequence[str], family: int) -> tuple[Condition, ...]:
    """Reads what a packet must be besides: source, destination or input device, in iptables' or nft's words."""
    left = [str(word) for word in words]
    found = []
    while left:
        if left[0] in ("ip", "ip6"):
            left.pop(0)
        negated = left[:1] == ["!"]
        option, *left = left[1:] if negated else left
        if left[:1] in (["!="], ["!"]):
            negated, left = True, left[1:]
        if not left:
            raise CNIError(errors.INVALID_CONFIG, f"a condition ends with {option!r}", "a value has to follow")
        value = left.pop(0)
        found.append(_condition(option, value, family, NFT_CMP_NEQ if negated else NFT_CMP_EQ))
    return tuple(found)


def _condition(option: str, value: str, family: int, operation: int) -> Condition:
    text = f"{option} {'not ' if operation == NFT_CMP_NEQ else ''}{value}"
    if option in _DEVICE:
        return Condition(text, tuple(nft_maps.match_input_device(value.strip('"'), operation=operation)))
    if option not in (*_SOURCE, *_DESTINATION):
        known = "source, destination and input device are known"
        raise CNIError(errors.UNSUPPORTED_FIELD, f"unsupported condition {option} {value!r}", known)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise CNIError(errors.INVALID_CONFIG, f"invalid network in condition {option} {value!r}", str(error)) from error
    if portmaps.family_of(str(network.network_address)) != family:
        raise CNIError(errors.INVALID_CONFIG, f"condition {option} {value!r} is of the other address family")
    source = option in _SOURCE
    return Condition(text, tuple(nftables.match_network(family, str(network), source=source, operation=operation)))
