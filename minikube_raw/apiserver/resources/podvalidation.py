"""Validation of pods and pod templates: a rule per field, in Kubernetes' order and words (apis/core/validation, v1.36).

Shape and types are the schema's business; here is what the published schema does not say. Rules read a defaulted spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from minikube_raw.api import name_rules
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import (
    containervalidation,
    podlevel,
    scheduling,
    volumevalidation,
)
from minikube_raw.apiserver.resources.strategy import Object

_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_ID = 2147483647
_HOST_NAME_MAX = 64  # sethostname(2)
_SYSCTL = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"


def validate(pod: Object) -> Iterator[Cause]:
    """Judge a pod that is created or updated; metadata is judged by the registry."""
    spec = pod["spec"]
    yield from validate_spec(spec, "spec")
    if spec.get("schedulingGates") and spec.get("nodeName"):
        yield field.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")


def validate_create(pod: Object) -> Iterator[Cause]:
    """Judge what is allowed later but not at creation."""
    if pod["spec"].get("ephemeralContainers"):
        yield field.forbidden("spec.ephemeralContainers", "cannot be set on create")


def validate_spec(spec: Object, path: str) -> Iterator[Cause]:
    """Judge a pod spec at `path`."""
    volumes: dict[str, Object] = {}
    yield from volumevalidation.volumes(spec.get("volumes") or [], f"{path}.volumes", volumes)
    yield from containervalidation.containers(spec, path, volumes)
    yield from podlevel.validate(spec, path)
    yield from _policies(spec, path)
    yield from _host(spec, path)
    yield from names.causes(f"{path}.nodeName", *_name(spec, "nodeName", name_rules.dns_subdomain))
    yield from scheduling.node_selector(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    yield from _security_context(spec, path)
    yield from _references(spec, path)
    yield from scheduling.affinity(spec.get("affinity") or {}, f"{path}.affinity")
    for field_name, rule in (("hostname", names.dns_label), ("subdomain", names.dns_label)):
        yield from names.causes(f"{path}.{field_name}", *_name(spec, field_name, rule))
    yield from _hostname_override(spec, path)
    yield from scheduling.tolerations(spec.get("tolerations") or [], f"{path}.tolerations")
    yield from _host_aliases(spec.get("hostAliases") or [], f"{path}.hostAliases")
    yield from _dns(spec, path)
    yield from scheduling.spread(spec.get("topologySpreadConstraints") or [], f"{path}.topologySpreadConstraints")
    yield from _deadlines(spec, path)
    yield from _unique(spec.get("schedulingGates") or [], f"{path}.schedulingGates")
    yield from _unique(spec.get("resourceClaims") or [], f"{path}.resourceClaims", ".name")
    operating_system = (spec.get("os") or {}).get("name")
    if operating_system is not None and operating_system not in ("linux", "windows"):
        yield field.not_supported(f"{path}.os", operating_system, ("linux", "windows"))


def _name(spec: Object, key: str, rule: Any) -> tuple[str, list[str]]:
    value = spec.get(key) or ""
    return value, rule(value) if value else []


def _hostname_override(spec: Object, path: str) -> Iterator[Cause]:
    """A name that replaces all others has to fit into the kernel's, and there must be one that is the pod's own."""
    at = f"{path}.hostnameOverride"
    yield from names.causes(at, *_name(spec, "hostnameOverride", name_rules.dns_subdomain))
    name = spec.get("hostnameOverride") or ""
    if len(name) > _HOST_NAME_MAX:
        yield field.too_long(at, _HOST_NAME_MAX)
    for other in ("hostNetwork", "setHostnameAsFQDN"):
        if name and spec.get(other):
            yield field.forbidden(at, f"may not be set when `{other}` is true")


def _policies(spec: Object, path: str) -> Iterator[Cause]:
    restart, dns = spec.get("restartPolicy", ""), spec.get("dnsPolicy", "")
    if restart not in ("Always", "OnFailure", "Never"):
        yield field.not_supported(f"{path}.restartPolicy", restart, ("Always", "OnFailure", "Never"))
    if dns not in _DNS_POLICIES:
        yield field.not_supported(f"{path}.dnsPolicy", dns, _DNS_POLICIES)


def _host(spec: Object, path: str) -> Iterator[Cause]:
    if spec.get("hostUsers") is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield field.forbidden(f"{path}.{name}", "when `hostUsers` is false")
    else:
        yield from _unmasked(spec, path)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield field.invalid(f"{path}.securityContext.shareProcessNamespace", True, detail)


def _unmasked(spec: Object, path: str) -> Iterator[Cause]:
    """An unmasked /proc is for pods that are nobody outside."""
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            if ((container or {}).get("securityContext") or {}).get("procMount") == "Unmasked":
                at = f"{path}.{kind}[{index}].securityContext.procMount"
                yield field.invalid(at, "Unmasked", "`hostUsers` must be false to use `Unmasked`")


def _security_context(spec: Object, path: str) -> Iterator[Cause]:
    context, path = spec.get("securityContext") or {}, f"{path}.securityContext"
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        yield from user_id(context.get(name), f"{path}.{name}")
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        yield from user_id(group, f"{path}.supplementalGroups[{index}]")
    seen = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name, at = (sysctl or {}).get("name", ""), f"{path}.sysctls[{index}].name"
        if not name:
            yield field.required(at)
        elif not re.match(_SYSCTL, name) or len(name) > 253:
            yield field.invalid(at, name, f"must have at most 253 characters and match regex {_SYSCTL}")
        elif name in seen:
            yield field.duplicate(at, name)
        seen.add(name)
    groups = context.get("supplementalGroupsPolicy")
    if groups is not None and groups not in ("Merge", "Strict"):
        yield field.not_supported(f"{path}.supplementalGroupsPolicy", groups, ("Merge", "Strict"))
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in ("Always", "OnRootMismatch"):
        yield field.not_supported(f"{path}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch"))
    yield from containervalidation.profiles(context, path)


def user_id(value: Any, path: str) -> Iterator[Cause]:
    """Judge a user or group ID."""
    if value is not None and not 0 <= value <= _MAX_ID:
        yield field.invalid(path, value, "must be between 0 and 2147483647, inclusive")


def _references(spec: Object, path: str) -> Iterator[Cause]:
    for key in ("serviceAccountName", "priorityClassName", "runtimeClassName"):
        yield from names.causes(f"{path}.{key}", *_name(spec, key, name_rules.dns_subdomain))
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = (gate or {}).get("conditionType", "")
        yield from names.causes(f"{path}.readinessGates[{index}].conditionType", kind, name_rules.qualified_name(kind))


def _host_aliases(aliases: list[Object], path: str) -> Iterator[Cause]:
    for index, alias in enumerate(aliases):
        ip = (alias or {}).get("ip", "")
        if not volumevalidation.is_ip(ip):
            yield field.invalid(f"{path}[{index}].ip", ip, _IP_TEXT)
        for host in (alias or {}).get("hostnames") or ():
            yield from names.causes(f"{path}[{index}].hostnames", host, name_rules.dns_subdomain(host))


_IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def _dns(spec: Object, path: str) -> Iterator[Cause]:
    config, at = spec.get("dnsConfig") or {}, f"{path}.dnsConfig"
    servers = config.get("nameservers") or []
    if spec.get("dnsPolicy") == "None":
        if not config:
            yield field.required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not servers:
            yield field.required(
                f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
            return
    if len(servers) > 3:
        yield field.invalid(f"{at}.nameservers", servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        if not volumevalidation.is_ip(server or ""):
            yield field.invalid(f"{at}.nameservers[{index}]", server, _IP_TEXT)
    if len(config.get("searches") or ()) > 32:
        yield field.invalid(f"{at}.searches", config["searches"], "must not have more than 32 search paths")
    for index, option in enumerate(config.get("options") or ()):
        if not (option or {}).get("name"):
            yield field.required(f"{at}.options[{index}]", "must not be empty")


def _deadlines(spec: Object, path: str) -> Iterator[Cause]:
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_ID:
        yield field.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield field.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")


def _unique(items: list[Object], path: str, suffix: str = "") -> Iterator[Cause]:
    seen = set()
    for index, item in enumerate(items):
        name = (item or {}).get("name", "")
        if not name:
            yield field.required(f"{path}[{index}]{suffix}")
        elif name in seen:
            yield field.duplicate(f"{path}[{index}]{suffix}", name)
        seen.add(name)


def hostname_warning(obj: Object, where: str) -> Iterator[str]:
    """Say that a name which is no DNS label makes odd host names."""
    if wrong := names.dns_label(obj["metadata"]["name"]):
        text = f"metadata.name: this is used in {where}, which can result in surprising behavior"
        yield f"{text}; a DNS label is recommended: [{' '.join(wrong)}]"


def warnings(spec: Object, path: str) -> Iterator[str]:
    """Say what is accepted and probably not meant (api/pod/warnings.go)."""
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(kind) or ()):
            yield from containervalidation.warnings(container or {}, f"{path}.{kind}[{number}]")
