"""Nodes: defaults, validation and the columns of `kubectl get nodes` (registry/core/node, v1.36)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import scheduling
from minikube_raw.apiserver.resources.podspec import canonical
from minikube_raw.apiserver.resources.strategy import (
    AGE_COLUMN,
    NAME_COLUMN,
    Column,
    Head,
    Object,
    Strategy,
    keep_status,
)

_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
_ROLE = "node-role.kubernetes.io/"


def default(node: Object) -> None:
    """Set what Go's zero values show, and let allocatable follow capacity (SetDefaults_NodeStatus)."""
    spec, status = node.setdefault("spec", {}), node.setdefault("status", {})
    _mirror_cidrs(spec)
    for kind in ("capacity", "allocatable"):
        for name, amount in (status.get(kind) or {}).items():
            status[kind][name] = canonical(amount)
    if "allocatable" not in status and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])
    for condition in status.get("conditions") or ():
        condition.setdefault("lastHeartbeatTime", None)
        condition.setdefault("lastTransitionTime", None)
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    info = status.setdefault("nodeInfo", {})
    for name in _NODE_INFO:
        info.setdefault(name, "")


def _mirror_cidrs(spec: Object) -> None:
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]


def validate(node: Object) -> Iterator[Cause]:
    """Judge a node."""
    yield from _taints(node["spec"].get("taints") or [])
    for index, cidr in enumerate(node["spec"].get("podCIDRs") or ()):
        try:
            ipaddress.ip_network(cidr)
        except ValueError:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            yield field.invalid(f"spec.podCIDRs[{index}]", cidr, detail)


def _taints(taints: list[Object]) -> Iterator[Cause]:
    seen = set()
    for index, item in enumerate(taints):
        taint, path = item or {}, f"metadata.taints[{index}]"
        key, effect, value = taint.get("key") or "", taint.get("effect") or "", taint.get("value") or ""
        yield from names.causes(f"{path}.key", key, name_rules.qualified_name(key))
        yield from names.causes(f"{path}.value", value, name_rules.label_value(value))
        if effect not in scheduling.EFFECTS:
            yield field.not_supported(f"{path}.effect", effect, scheduling.EFFECTS)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            cause = field.duplicate(path, shown)
            yield Cause(cause.reason, f"{cause.message}: taints must be unique by key and effect pair", path)
        seen.add((key, effect))


def validate_update(new: Object, old: Object) -> Iterator[Cause]:
    """Judge a change: podCIDRs and the provider's ID are set once."""
    for name in ("podCIDRs", "providerID"):
        before, after = old.get("spec", {}).get(name), new["spec"].get(name)
        if before and before != after:
            yield field.forbidden(
                "spec",
                "node updates may only change labels, taints, or capacity"
                if name == "podCIDRs"
                else f"{name} is immutable once set",
            )


COLUMNS = (
    NAME_COLUMN,
    Column("Status", description="The status of the node."),
    Column("Roles", description="The roles of the node."),
    AGE_COLUMN,
    Column("Version", description="Kubelet version reported by the node."),
    Column("Internal-IP", description="The node's address inside the cluster.", priority=1),
    Column("External-IP", description="The node's address outside the cluster.", priority=1),
    Column("OS-Image", description="OS image reported by the node.", priority=1),
    Column("Kernel-Version", description="Kernel version reported by the node.", priority=1),
    Column("Container-Runtime", description="Container runtime version reported by the node.", priority=1),
)


def _cells(node: Object, now: datetime) -> list[Any]:
    metadata, status = node["metadata"], node.get("status", {})
    info = status.get("nodeInfo") or {}
    kernel = info.get("kernelVersion")
    architecture = f" ({info['architecture']})" if kernel and info.get("architecture") else ""
    return [
        metadata["name"],
        _state(node),
        ",".join(_roles(metadata.get("labels") or {})) or "<none>",
        ages.age(metadata.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or ages.UNKNOWN,
        f"{kernel}{architecture}" if kernel else ages.UNKNOWN,
        info.get("containerRuntimeVersion") or ages.UNKNOWN,
    ]


def _state(node: Object) -> str:
    conditions = (node.get("status", {}).get("conditions")) or ()
    ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if node.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(labels: dict[str, str]) -> list[str]:
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return sorted(role for role in roles if role)


def _address(status: Object, kind: str) -> str:
    addresses = status.get("addresses") or ()
    return next((a.get("address", "") for a in addresses if a.get("type") == kind), "<none>")


class _Spec(msgspec.Struct, frozen=True, gc=False):
    unschedulable: bool = False


class _Head(Head, frozen=True, gc=False):
    spec: _Spec = _Spec()


STRATEGY = Strategy(
    kind=scheme.NODE,
    head=_Head,
    selectable={"spec.unschedulable": lambda node: "true" if node.spec.unschedulable else "false"},
    default=default,
    prepare_for_update=keep_status,
    validate=validate,
    validate_update=validate_update,
    columns=COLUMNS,
    cells=_cells,
)
