"""What a pod may be told about itself: fieldRef and resourceFieldRef, for variables and for downwardAPI files.

Pure. Paths and formats are core/v1's (k8s.io/kubernetes/pkg/fieldpath, pkg/api/v1/resource).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.containers import QuantityText
from minikube_raw.api.core import Container, Pod, ResourceFieldSelector
from minikube_raw.kubelet import qos
from minikube_raw.kubelet.pods import container as find_container

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class Addresses(msgspec.Struct, frozen=True):
    """Where the pod is; pod_ips is empty before its sandbox runs."""

    host_ip: str
    pod_ips: tuple[str, ...] = ()


def field(pod: Pod, path: str, at: Addresses) -> str:
    """The value at a fieldPath. Raises ValueError for a path that no field has."""
    if match := _SUBSCRIPT.fullmatch(path):
        of = pod.metadata.labels if match[1] == "labels" else pod.metadata.annotations
        return of.get(match[2], "")
    values = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "metadata.labels": _lines(pod.metadata.labels),
        "metadata.annotations": _lines(pod.metadata.annotations),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": at.host_ip,
        "status.hostIPs": at.host_ip,
        "status.podIP": next(iter(at.pod_ips), ""),
        "status.podIPs": ",".join(at.pod_ips),
    }
    if path not in values:
        raise ValueError(f"unsupported fieldPath: {path}")
    return values[path]


def resource_field(
    pod: Pod, selector: ResourceFieldSelector, container: Container | None, allocatable: Mapping[str, str]
) -> str:
    """An amount divided by its divisor, rounded up; a missing limit is the pod's, else what the node has. Raises ValueError."""
    of = find_container(pod, selector.container_name) if selector.container_name else container
    if of is None:
        raise ValueError(f"container {selector.container_name} not found")
    side, _, name = selector.resource.partition(".")
    amount = qos.requests_of(of).get(name) if side == "requests" else _limit(pod, of, name, allocatable)
    divisor = quantity.parse(selector.divisor)
    whole = quantity.parse(amount or 0).nanos
    unit = divisor.nanos or quantity.NANO
    return str(-(-whole // unit))


def _limit(pod: Pod, container: Container, name: str, allocatable: Mapping[str, str]) -> QuantityText | None:
    """A limit of 0 is none (kubelet_resources.go, MergeContainerResourceLimits)."""
    whole = pod.spec.resources.limits if pod.spec.resources is not None and name in ("cpu", "memory") else {}
    asked = (limits.get(name) for limits in (container.resources.limits, whole))
    of_node = None if name.startswith("hugepages-") else allocatable.get(name)  # those nobody gets without asking
    return next((amount for amount in asked if amount and quantity.parse(amount).nanos), of_node)


def _lines(mapping: Mapping[str, str]) -> str:
    """Sorted `key="value"` lines with Go's %q quoting, as downward files have them."""
    return "\n".join(f"{key}={_quoted(mapping[key])}" for key in sorted(mapping))


def _quoted(text: str) -> str:
    escapes = {
        '"': '\\"',
        "\\": "\\\\",
        "\n": "\\n",
        "\t": "\\t",
        "\r": "\\r",
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\v": "\\v",
    }
    return '"' + "".join(escapes.get(each) or (each if each.isprintable() else _hex(each)) for each in text) + '"'


def _hex(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
