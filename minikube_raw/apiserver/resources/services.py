"""Services: defaults, cluster IPs and node ports, and the rules that keep them consistent (registry/core/service, v1.36).

IPv4 only, one family. Which addresses and ports are taken is read from the Services themselves; `Allocator` remembers it.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import containervalidation, volumevalidation
from minikube_raw.apiserver.resources.strategy import AGE_COLUMN, NAME_COLUMN, Column, Head, Object, Strategy

NODE_PORTS = range(30000, 32768)
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("NodePort", "LoadBalancer")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITY_SECONDS = 10800


def default(service: Object) -> None:
    """Set what the manifest leaves open (SetDefaults_Service and the registry's own)."""
    spec = service.setdefault("spec", {})
    spec["type"] = spec.get("type") or "ClusterIP"
    spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP" and not (spec.get("sessionAffinityConfig") or {}).get("clientIP"):
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _AFFINITY_SECONDS}}
    for port in spec.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if spec["type"] in _EXTERNAL:
        spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec["type"] != "ExternalName":
        spec["internalTrafficPolicy"] = spec.get("internalTrafficPolicy") or "Cluster"
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def prepare_for_create(service: Object) -> None:
    """Start the status and normalise the address fields."""
    service["status"] = {"loadBalancer": {}}
    _normalise(service["spec"], {})


def prepare_for_update(new: Object, old: Object) -> None:
    """Keep the status, and what an update may leave out: addresses and ports already given (patchAllocatedValues)."""
    new["status"] = old.get("status", {"loadBalancer": {}})
    spec, held = new["spec"], old["spec"]
    if _needs_ip(held) and _needs_ip(spec):
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIP"], spec["clusterIPs"] = held.get("clusterIP"), held.get("clusterIPs")
        elif spec.get("clusterIP") != held.get("clusterIP") and spec.get("clusterIPs") == held.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]] if spec.get("clusterIP") else []
    if _needs_ports(held) and _needs_ports(spec):
        known = {_port_key(port): port.get("nodePort") for port in held.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort") and known.get(_port_key(port)):
                port["nodePort"] = known[_port_key(port)]
    _normalise(spec, held)


def _port_key(port: Object) -> tuple[Any, ...]:
    return port.get("protocol", "TCP"), port.get("port")


def _normalise(spec: Object, held: Object) -> None:
    """Let clusterIP and clusterIPs tell the same, and drop what the type does not have."""
    if spec["type"] == "ExternalName":
        if held.get("type", "ExternalName") != "ExternalName":
            drop = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
            for name in drop:
                spec.pop(name, None)
    else:
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec["type"] not in _EXTERNAL:
        spec.pop("allocateLoadBalancerNodePorts", None)
        if held.get("type") in _EXTERNAL:
            spec.pop("externalTrafficPolicy", None)
            for port in spec.get("ports") or ():
                port.pop("nodePort", None)
    for name in ("clusterIP", "clusterIPs"):
        if not spec.get(name):
            spec.pop(name, None)


def _needs_ip(spec: Object) -> bool:
    return bool(spec.get("type") != "ExternalName")


def _needs_ports(spec: Object) -> bool:
    return spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )


class Allocator:
    """Which cluster IPs and node ports are in use, and by which Service. Fed by every change of a Service."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.IPv4Network(cidr)
        self._ips: dict[str, str] = {}
        self._ports: dict[int, str] = {}
        self._held: dict[str, tuple[list[str], list[int]]] = {}

    def record(self, key: str, spec: Object | None) -> None:
        """Note what the Service under `key` holds now; None: it is gone."""
        for ip in self._held.get(key, ([], []))[0]:
            self._ips.pop(ip, None)
        for port in self._held.pop(key, ([], []))[1]:
            self._ports.pop(port, None)
        if spec is None:
            return
        ips = [ip for ip in spec.get("clusterIPs") or () if ip != "None"]
        ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
        self._held[key] = ips, ports
        self._ips.update(dict.fromkeys(ips, key))
        self._ports.update(dict.fromkeys(ports, key))

    def allocate(self, key: str, spec: Object) -> Iterator[Cause]:
        """Give the Service the address and ports it needs and lacks, and reserve them; report those it cannot have."""
        if _needs_ip(spec) and spec.get("clusterIP") != "None":
            if not spec.get("clusterIP"):
                spec["clusterIP"] = self._free_ip()
                spec["clusterIPs"] = [spec["clusterIP"]]
            yield from self._check_ip(key, spec)
        if _needs_ports(spec):
            yield from self._allocate_ports(key, spec)

    def _check_ip(self, key: str, spec: Object) -> Iterator[Cause]:
        ips, ip = spec["clusterIPs"], spec["clusterIP"]
        if ipaddress.IPv4Address(ip) not in self.network:
            text = f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {self.network}"
            yield field.invalid("spec.clusterIPs", ips, f"failed to allocate IP {ip}: {text}")
        elif self._ips.get(ip, key) != key:
            text = "provided IP is already allocated"
            yield field.invalid("spec.clusterIPs", ips, f"failed to allocate IP {ip}: {text}")

    def _allocate_ports(self, key: str, spec: Object) -> Iterator[Cause]:
        mine: dict[int, str] = {}
        for index, port in enumerate(spec.get("ports") or ()):
            path, number = f"spec.ports[{index}].nodePort", port.get("nodePort")
            if not number:
                number = port["nodePort"] = self._free_port(mine)
            elif number not in NODE_PORTS:
                text = f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
                yield field.invalid(path, number, text)
            elif self._ports.get(number, key) != key or mine.get(number) == port["protocol"]:
                yield field.invalid(path, number, "provided port is already allocated")
            mine[number] = port["protocol"]

    def _free_ip(self) -> str:
        # As Kubernetes does, keep the lower part for addresses chosen by people: the dynamic ones come from above it.
        size = self.network.num_addresses
        reserved = min(max(16, size // 16), 256)
        for lowest in (reserved, 1):
            for _ in range(64):
                ip = str(self.network[random.randrange(lowest, size - 1)])
                if ip not in self._ips:
                    return ip
        return next(str(ip) for ip in self.network.hosts() if str(ip) not in self._ips)

    def _free_port(self, mine: dict[int, str]) -> int:
        while True:
            port = random.choice(NODE_PORTS)
            if port not in self._ports and port not in mine:
                return port


def validate(service: Object) -> Iterator[Cause]:
    """Judge a Service (ValidateService)."""
    spec = service["spec"]
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        yield field.required("spec.ports")
    if spec["type"] in _EXTERNAL and spec.get("clusterIP") == "None":
        text = f"may not be set to 'None' for {spec['type']} services"
        yield field.invalid("spec.clusterIPs[0]", "None", text)
    if spec["type"] == "ExternalName":
        yield from _external_name(spec)
    yield from _ports(spec)
    for key, value in (spec.get("selector") or {}).items():
        yield from names.causes("spec.selector", key, name_rules.qualified_name(key))
        yield from names.causes("spec.selector", value, name_rules.label_value(value or ""))
    yield from _choice(spec, "sessionAffinity", ("ClientIP", "None"))
    timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if timeout is not None and not 0 < timeout <= 86400:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        yield field.invalid(path, timeout, "must be greater than 0 and less than 86400")
    yield from _addresses(spec)
    yield from _choice(spec, "type", _TYPES)
    yield from _traffic(spec)


def _external_name(spec: Object) -> Iterator[Cause]:
    if spec.get("clusterIP") or spec.get("clusterIPs"):
        yield field.forbidden("spec.clusterIPs", "may not be set for ExternalName services")
    name = spec.get("externalName") or ""
    if not name:
        yield field.required("spec.externalName")
    else:
        yield from names.causes("spec.externalName", name, name_rules.dns_subdomain(name.rstrip(".")))


def _ports(spec: Object) -> Iterator[Cause]:
    ports, seen, used = spec.get("ports") or [], set(), set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name") or ""
        if not name and len(ports) > 1:
            yield field.required(f"{path}.name")
        elif name:
            yield from names.causes(f"{path}.name", name, names.dns_label(name))
            if name in seen:
                yield field.duplicate(f"{path}.name", name)
            seen.add(name)
        yield from containervalidation.port_number(port.get("port", 0), f"{path}.port")
        if port["protocol"] not in _PROTOCOLS:
            yield field.not_supported(f"{path}.protocol", port["protocol"], _PROTOCOLS)
        yield from containervalidation.port(port["targetPort"], f"{path}.targetPort")
        if port.get("nodePort") and spec["type"] not in _EXTERNAL:
            yield field.forbidden(f"{path}.nodePort", f"may not be used when `type` is '{spec['type']}'")
        pair = (port["protocol"], port.get("port"))
        if pair in used:
            yield field.duplicate(path, {"port": pair[1], "protocol": pair[0]})
        used.add(pair)


def _addresses(spec: Object) -> Iterator[Cause]:
    ips = spec.get("clusterIPs") or []
    if ips and spec.get("clusterIP") and ips[0] != spec["clusterIP"]:
        yield field.invalid("spec.clusterIPs", ips, "first value must match `clusterIP`")
    families = spec.get("ipFamilies") or []
    for index, ip in enumerate(ips):
        if ip != "None" and not volumevalidation.is_ip(ip):
            text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield field.invalid(f"spec.clusterIPs[{index}]", ip, text)
        elif ip != "None" and index < len(families) and _family(ip) != families[index]:
            text = f"expected an {families[index]} value as indicated by `ipFamilies[{index}]`"
            yield field.invalid(f"spec.clusterIPs[{index}]", ip, text)
    if any(family != "IPv4" for family in families):
        yield field.invalid("spec.ipFamilies", families, "only IPv4 is configured on this cluster")
    if spec.get("ipFamilyPolicy") == "SingleStack" and len(families) > 1:
        text = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
        yield field.invalid("spec.ipFamilyPolicy", "SingleStack", text)
    for index, ip in enumerate(spec.get("externalIPs") or ()):
        if not volumevalidation.is_ip(ip):
            text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield field.invalid(f"spec.externalIPs[{index}]", ip, text)


def _family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


def _traffic(spec: Object) -> Iterator[Cause]:
    if spec["type"] in _EXTERNAL:
        yield from _choice(spec, "externalTrafficPolicy", ("Cluster", "Local"))
    elif spec.get("externalTrafficPolicy"):
        text = "may only be set for externally-accessible services"
        yield field.invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], text)
    local = spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
    if spec.get("healthCheckNodePort") and not local:
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield field.invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], text)
    if spec["type"] != "ExternalName":
        yield from _choice(spec, "internalTrafficPolicy", ("Cluster", "Local"))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield field.not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)


_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")


def _choice(spec: Object, name: str, allowed: tuple[str, ...]) -> Iterator[Cause]:
    if spec.get(name, "") not in allowed:
        yield field.not_supported(f"spec.{name}", spec.get(name, ""), allowed)


def validate_update(new: Object, old: Object) -> Iterator[Cause]:
    """Judge a change: an address once given stays (ValidateServiceClusterIPsRelatedFields)."""
    spec, held = new["spec"], old["spec"]
    if _needs_ip(spec) and _needs_ip(held) and held.get("clusterIPs"):
        ips = spec.get("clusterIPs") or []
        if ips[:1] != held["clusterIPs"][:1]:
            yield field.invalid("spec.clusterIPs[0]", ips, "may not change once set")


_COLUMNS = (
    NAME_COLUMN,
    Column("Type", description="Type of the Service."),
    Column("Cluster-IP", description="The Service's virtual address."),
    Column("External-IP", description="Addresses by which it is reached from outside."),
    Column("Port(s)", description="The ports it serves."),
    AGE_COLUMN,
    Column("Selector", description="Labels of the pods behind it.", priority=1),
)


def _cells(service: Object, now: datetime) -> list[Any]:
    spec, metadata = service.get("spec", {}), service["metadata"]
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    return [
        metadata["name"],
        spec.get("type", ""),
        (spec.get("clusterIPs") or ["<none>"])[0],
        _external(service),
        ",".join(_port_text(port) for port in spec.get("ports") or ()) or "<none>",
        ages.age(metadata.get("creationTimestamp"), now),
        selector or "<none>",
    ]


def _external(service: Object) -> str:
    spec = service.get("spec", {})
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    given = list(spec.get("externalIPs") or ())
    if spec.get("type") == "LoadBalancer":
        ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
        given = [point.get("ip") or point.get("hostname") or "" for point in ingress] + given
        return ",".join(given) or "<pending>"
    return ",".join(given) or "<none>"


def _port_text(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node}/{port.get('protocol')}"


class _Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    type: str = ""


class _Head(Head, frozen=True, gc=False):
    spec: _Spec = _Spec()


STRATEGY = Strategy(
    kind=scheme.SERVICE,
    head=_Head,
    selectable={
        "spec.clusterIP": lambda service: service.spec.cluster_ip,
        "spec.type": lambda service: service.spec.type,
    },
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    validate=validate,
    validate_update=validate_update,
    name_rule=names.dns_label,
    create_on_update=True,
    columns=_COLUMNS,
    cells=_cells,
)
