"""Defaults of a pod's spec, shared by Pods and pod templates (pkg/apis/core/v1/defaults.go and zz_generated.defaults.go, v1.36).

Every function changes a decoded object in place and may be applied again without effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from minikube_raw.api import quantity

from .strategy import Object

_TAG = re.compile(r"^(?:[^/]*/)*[^/:@]+(?::(?P<tag>[^/:@]+))?(?P<digest>@.+)?$")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_MODE = 0o644


def default_spec(spec: Object) -> None:
    """Set what a pod spec leaves open."""
    for container in containers(spec):
        default_container(container)
    if spec.get("hostNetwork"):
        for port in ports(spec):
            if not port.get("hostPort"):
                port["hostPort"] = port["containerPort"]
    for volume in spec.get("volumes") or ():
        default_volume(volume)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    _mirror_service_account(spec)
    canonical_amounts(spec.get("overhead"))


def _mirror_service_account(spec: Object) -> None:
    # serviceAccount is the deprecated alias of serviceAccountName; conversion keeps both.
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    for alias in ("serviceAccountName", "serviceAccount"):
        if name:
            spec[alias] = name
        else:
            spec.pop(alias, None)


def containers(spec: Object) -> Iterator[Object]:
    """Yield init, ephemeral and main containers."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from (container for container in spec.get(kind) or () if container is not None)


def ports(spec: Object) -> Iterator[Object]:
    """Yield the ports of init and main containers."""
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            yield from container.get("ports") or ()


def default_container(container: Object) -> None:
    """Set what a container leaves open."""
    container.setdefault("resources", {})
    for amounts in ("limits", "requests"):
        canonical_amounts(container["resources"].get(amounts), milli=True)
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        _default_source(variable.get("valueFrom") or {})
    for probe in _PROBES:
        if container.get(probe) is not None:
            _default_probe(container[probe])
    for hook in ("postStart", "preStop"):
        _default_handler((container.get("lifecycle") or {}).get(hook) or {})


def _pull_policy(image: str) -> str:
    """Always for a floating image (no tag or `latest`), IfNotPresent for a pinned one (SetDefaults_Container)."""
    found = _TAG.match(image)
    if found is None or found["digest"]:
        return "IfNotPresent"
    return "Always" if found["tag"] in (None, "latest") else "IfNotPresent"


def _default_probe(probe: Object) -> None:
    _default_handler(probe)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value


def _default_handler(handler: Object) -> None:
    request = handler.get("httpGet")
    if request is not None:
        request["path"] = request.get("path") or "/"
        request["scheme"] = request.get("scheme") or "HTTP"


def _default_source(source: Object) -> None:
    if source.get("fieldRef") is not None:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if source.get("resourceFieldRef") is not None:
        reference = source["resourceFieldRef"]
        reference["divisor"] = canonical(reference.get("divisor", "0"))


def default_volume(volume: Object) -> None:
    """Set what a volume leaves open; a volume without a source is an emptyDir."""
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}
    default_source(volume)
    empty = volume.get("emptyDir") or {}
    if "sizeLimit" in empty:
        empty["sizeLimit"] = canonical(empty["sizeLimit"])
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        _default_source(item)
    for projection in (volume.get("projected") or {}).get("sources") or ():
        _default_projection(projection)
    image = volume.get("image")
    if image is not None:
        image.setdefault("pullPolicy", _pull_policy(image.get("reference", "")))
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if claim is not None:
        claim.setdefault("metadata", {})
        claim["spec"].setdefault("volumeMode", "Filesystem")


def default_source(volume: Object) -> None:
    """Set what the source of a volume leaves open; PersistentVolumes hold theirs in the same way."""
    for source, values in _VOLUME_DEFAULTS.items():
        if volume.get(source) is not None:
            for name, value in values.items():
                volume[source].setdefault(name, value)


_VOLUME_DEFAULTS: dict[str, dict[str, Any]] = {
    "configMap": {"defaultMode": _FILE_MODE},
    "secret": {"defaultMode": _FILE_MODE},
    "downwardAPI": {"defaultMode": _FILE_MODE},
    "projected": {"defaultMode": _FILE_MODE},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def _default_projection(projection: Object) -> None:
    token = projection.get("serviceAccountToken")
    if token is not None:
        token.setdefault("expirationSeconds", 3600)
    for item in (projection.get("downwardAPI") or {}).get("items") or ():
        _default_source(item)


def default_requests(spec: Object) -> None:
    """Let each container request what it limits and does not request (SetDefaults_Pod; templates keep what they say)."""
    for container in containers(spec):
        resources = container["resources"]
        limits = resources.get("limits")
        if limits:
            requests = resources.setdefault("requests", {})
            for name, amount in limits.items():
                requests.setdefault(name, amount)


def canonical(amount: Any, *, milli: bool = False) -> Any:
    """Return the canonical form of a quantity; what is none is left for validation to refuse."""
    try:
        parsed = quantity.parse(amount)
    except (quantity.QuantityError, TypeError):
        return amount
    return str(parsed.rounded_to_milli() if milli else parsed)


def canonical_amounts(amounts: Object | None, *, milli: bool = False) -> None:
    """Write the amounts of a resource list canonically."""
    for name, amount in (amounts or {}).items():
        if amounts is not None:
            amounts[name] = canonical(amount, milli=milli)
