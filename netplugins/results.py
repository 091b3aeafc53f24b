"""CNI results in every version of the specification: plugins speak 1.1.0, callers hear the version they asked in.

Up to 0.2.0 a result is {ip4, ip6, dns}; 0.3.0 to 0.4.0 have lists with ips[].version; 1.0.0 dropped that field; 1.1.0
added MTUs, socket paths and route metrics, which are dropped silently on the way down, as the reference library does.
"""

from __future__ import annotations

from typing import Any

from .errors import INCOMPATIBLE_VERSION, INTERNAL, CNIError

LATEST = "1.1.0"
SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_WITH_IP4 = ("0.1.0", "0.2.0")
_WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")
_INTERFACE_FIELDS_1_0 = ("name", "mac", "sandbox")
_ROUTE_FIELDS_1_0 = ("dst", "gw")

Result = dict[str, Any]


def require_supported(version: str) -> None:
    """Raises CNIError 1 for a version that is not one of SUPPORTED_VERSIONS, letter by letter."""
    if version not in SUPPORTED_VERSIONS:
        supported = ", ".join(SUPPORTED_VERSIONS)
        raise CNIError(
            INCOMPATIBLE_VERSION, f"incompatible CNI version {version!r}", f"supported versions: {supported}"
        )


def at_least(version: str, floor: str) -> bool:
    """Compares two supported versions."""
    return SUPPORTED_VERSIONS.index(version) >= SUPPORTED_VERSIONS.index(floor)


def upgrade(result: Result, version: str = "") -> Result:
    """Turns a result of any supported version into 1.1.0; its own cniVersion wins over `version`."""
    found = result.get("cniVersion") or version or "0.1.0"
    require_supported(found)
    if found in _WITH_IP4:
        upgraded = _from_ip4(result)
    else:
        upgraded = {key: result[key] for key in ("interfaces", "ips", "routes", "dns") if result.get(key)}
        if "ips" in upgraded:
            upgraded["ips"] = [{k: v for k, v in ip.items() if k != "version"} for ip in upgraded["ips"]]
    return {"cniVersion": LATEST, **upgraded}


def _from_ip4(result: Result) -> Result:
    ips: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    for key in ("ip4", "ip6"):
        if config := result.get(key):
            ips.append({"address": config["ip"], **({"gateway": config["gateway"]} if config.get("gateway") else {})})
            routes += config.get("routes") or []
    upgraded: Result = {"ips": ips, "routes": routes, "dns": result.get("dns")}
    return {key: value for key, value in upgraded.items() if value}


def downgrade(result: Result, version: str) -> Result:
    """Turns a 1.1.0 result into `version`; raises CNIError when 0.2.0 or older is asked for a result without
    addresses.
    """
    require_supported(version)
    kept = {key: result[key] for key in ("interfaces", "ips", "routes", "dns") if result.get(key)}
    if version in _WITH_IP4:
        return {"cniVersion": version, **_to_ip4(kept, version)}
    if version != LATEST:
        kept |= _only(kept, "interfaces", _INTERFACE_FIELDS_1_0) | _only(kept, "routes", _ROUTE_FIELDS_1_0)
    if version in _WITH_IP_VERSION and "ips" in kept:
        kept["ips"] = [{"version": _ip_version(ip["address"]), **ip} for ip in kept["ips"]]
    return {"cniVersion": version, **kept}


def _only(result: Result, key: str, fields: tuple[str, ...]) -> Result:
    if key not in result:
        return {}
    return {key: [{field: entry[field] for field in fields if field in entry} for entry in result[key]]}


def _ip_version(address: str) -> str:
    return "6" if ":" in address else "4"


def _to_ip4(result: Result, version: str) -> Result:
    if not result.get("ips"):
        raise CNIError(INTERNAL, f"a result without addresses cannot be told in version {version}")
    converted: Result = {"dns": result["dns"]} if "dns" in result else {}
    for ip in result["ips"]:
        key = "ip" + _ip_version(ip["address"])
        if key in converted:
            continue
        converted[key] = {"ip": ip["address"]}
        if ip.get("gateway"):
            converted[key]["gateway"] = ip["gateway"]
        family = _ip_version(ip["address"])
        routes = [r for r in result.get("routes", ()) if _ip_version(r["dst"]) == family]
        if routes:
            converted[key]["routes"] = _only({"routes": routes}, "routes", _ROUTE_FIELDS_1_0)["routes"]
    return converted
