"""Results as the runtime reads them: CNI 1.1.0, whatever version the plugins answered in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netplugins import results


@dataclass(frozen=True)
class Interface:
    """A device a plugin made; `sandbox` is the namespace's path for the container's, "" on the host."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


@dataclass(frozen=True)
class IPConfig:
    """An address as CIDR; `interface` indexes Result.interfaces, None when the plugin does not say."""

    address: str
    gateway: str = ""
    interface: int | None = None

    @property
    def ip(self) -> str:
        """The address without its prefix length."""
        return self.address.partition("/")[0]


@dataclass(frozen=True)
class Route:
    """A route in the container; gateway "" means the gateway of its address family."""

    destination: str
    gateway: str = ""


@dataclass(frozen=True)
class DNS:
    """What the plugins propose for resolv.conf."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What an attachment consists of; `raw` is the last plugin's result as it was given, prevResult of every later
    call.
    """

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()
    raw: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: dict[str, Any], cni_version: str) -> Result:
        """Reads a result of any supported version; one without cniVersion is in `cni_version`."""
        latest = results.upgrade(raw, cni_version)
        dns = latest.get("dns") or {}
        return cls(
            interfaces=tuple(
                Interface(entry["name"], entry.get("mac", ""), entry.get("sandbox", ""), entry.get("mtu", 0))
                for entry in latest.get("interfaces", ())
            ),
            ips=tuple(
                IPConfig(entry["address"], entry.get("gateway", ""), entry.get("interface"))
                for entry in latest.get("ips", ())
            ),
            routes=tuple(Route(entry["dst"], entry.get("gw") or "") for entry in latest.get("routes", ())),
            dns=DNS(
                tuple(dns.get("nameservers") or ()),
                dns.get("domain") or "",
                tuple(dns.get("search") or ()),
                tuple(dns.get("options") or ()),
            ),
            raw=raw,
        )
