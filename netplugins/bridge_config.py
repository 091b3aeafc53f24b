"""The bridge plugin's configuration: parsed, defaulted and checked; names and addresses derived from it. No kernel
here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from minikube_raw.netlink.links import mac_from

from . import errors
from .errors import CNIError
from .results import Result
from .skel import CmdArgs

MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
CONTAINER_MAC_PREFIX = "0a"
# Options of the reference plugin that change what is forwarded: silently ignoring one would be worse than refusing it.
UNSUPPORTED = ("vlan", "vlanTrunk", "macspoofchk", "disableContainerInterface")


@dataclass(frozen=True)
class BridgeConfig:
    """The keys of the reference bridge plugin that are supported, with its defaults; `masq_exclude` (masqExclude) is
    ours.
    """

    network: str
    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    ip_masq: bool
    masq_exclude: tuple[str, ...]
    hairpin: bool
    promiscuous: bool
    isolated: bool
    mtu: int
    mac: str
    ipam_type: str
    dns: dict[str, Any]

    def with_gateways(self, ipam: Result) -> Result:
        """IPAM's result with a gateway per address (the subnet's first) and, for a default gateway, the default
        routes.
        """
        if not self.is_gateway:
            return ipam
        ips = [{"gateway": _first_address(ip["address"]), **ip} for ip in ipam["ips"]]
        routes = list(ipam.get("routes", ()))
        if self.is_default_gateway:
            for anywhere in ("0.0.0.0/0", "::/0"):
                gateway = next((ip["gateway"] for ip in ips if (":" in ip["address"]) == (":" in anywhere)), None)
                if gateway and not any(route["dst"] == anywhere and route.get("gw") for route in routes):
                    routes = [route for route in routes if route["dst"] != anywhere]
                    routes.append({"dst": anywhere, "gw": gateway})
        return ipam | {"ips": ips, "routes": routes}

    def gateways(self, ipam: Result) -> list[str]:
        """The bridge's own addresses as CIDR, one per address the IPAM plugin gave."""
        found = [
            f"{ip['gateway']}/{ip['address'].partition('/')[2]}" for ip in ipam.get("ips", ()) if ip.get("gateway")
        ]
        return list(dict.fromkeys(found))


def _first_address(cidr: str) -> str:
    return str(ipaddress.ip_interface(cidr).network[1])


def parse(args: CmdArgs) -> BridgeConfig:
    """Reads the configuration; raises CNIError 2 for an option we lack and 7 for a wrong value."""
    config = args.config
    for key in UNSUPPORTED:
        if config.get(key):
            raise CNIError(errors.UNSUPPORTED_FIELD, f"unsupported field: {key}={config[key]!r}", "remove it")
    ipam = config.get("ipam") or {}
    parsed = BridgeConfig(
        network=config["name"],
        bridge=config.get("bridge") or "cni0",
        is_gateway=bool(config.get("isGateway") or config.get("isDefaultGateway")),
        is_default_gateway=bool(config.get("isDefaultGateway")),
        force_address=bool(config.get("forceAddress")),
        ip_masq=bool(config.get("ipMasq")),
        masq_exclude=tuple(str(ipaddress.ip_network(cidr)) for cidr in config.get("masqExclude") or ()),
        hairpin=bool(config.get("hairpinMode")),
        promiscuous=bool(config.get("promiscMode")),
        isolated=bool(config.get("portIsolation")),
        mtu=int(config.get("mtu") or 0),
        mac=requested_mac(args),
        ipam_type=ipam.get("type") or "",
        dns=config.get("dns") or {},
    )
    if parsed.hairpin and parsed.promiscuous:
        raise CNIError(errors.INVALID_CONFIG, "hairpinMode and promiscMode exclude each other", "set one of them")
    if not 0 <= parsed.mtu <= 65535:
        raise CNIError(errors.INVALID_CONFIG, f"invalid mtu {parsed.mtu}", "68 to 65535, or 0 for the kernel's default")
    return parsed


def requested_mac(args: CmdArgs) -> str:
    """The container's MAC somebody asks for, "" if nobody: CNI_ARGS < args.cni < runtimeConfig."""
    mac: str = (
        (args.config.get("runtimeConfig") or {}).get("mac")
        or ((args.config.get("args") or {}).get("cni") or {}).get("mac")
        or args.extra.get("MAC", "")
    )
    if mac and not MAC.fullmatch(mac):
        raise CNIError(errors.INVALID_CONFIG, f"invalid MAC address {mac!r}", "write it as 02:00:00:00:00:01")
    return mac.lower()


def host_name(container_id: str, ifname: str) -> str:
    """The host end's name: a function of the attachment (44 bits of a hash), so DEL and GC need no memory of it."""
    return "veth" + hashlib.sha256(f"{container_id}\0{ifname}".encode()).hexdigest()[:11]


def host_mac(host_end: str) -> str:
    """The MAC address of the host end of that name."""
    return mac_from("host end", host_end)


def container_mac(host_end: str) -> str:
    """The MAC address of the container end, unless one was asked for; the first octet says whose it is."""
    return CONTAINER_MAC_PREFIX + mac_from("container end", host_end)[2:]
