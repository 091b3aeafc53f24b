"""Validation of environment variables and the fields they refer to (apis/core/validation, v1.36)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minikube_raw.api import name_rules
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import localpaths
from minikube_raw.apiserver.resources.strategy import Object

_ENV_NAME = re.compile(r"[ -<>-~]+")
_ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_KNOWN_FIELDS = frozenset((*_ENV_FIELDS, *VOLUME_FIELDS))
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")
_RESOURCES = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)


def env(container: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    """Judge `env` and `envFrom` of a container; `volumes` are the pod's by name."""
    for index, item in enumerate(container.get("env") or ()):
        variable, at = item or {}, f"{path}.env[{index}]"
        name = variable.get("name") or ""
        if not name:
            yield field.required(f"{at}.name")
        elif not _ENV_NAME.fullmatch(name):
            yield field.invalid(f"{at}.name", name, _ENV_TEXT)
        if variable.get("valueFrom") is not None:
            yield from _value_from(variable, f"{at}.valueFrom", volumes)
    for index, item in enumerate(container.get("envFrom") or ()):
        yield from _env_from(item or {}, f"{path}.envFrom[{index}]")


def _value_from(variable: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    source = variable["valueFrom"]
    given = [kind for kind in _SOURCES if source.get(kind) is not None]
    if not given:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        yield field.invalid(path, "", detail)
    elif variable.get("value"):
        yield field.invalid(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield field.invalid(path, "", "may not have more than one field specified at a time")
    if source.get("fieldRef") is not None:
        yield from field_ref(source["fieldRef"], f"{path}.fieldRef", _ENV_FIELDS)
    if source.get("resourceFieldRef") is not None:
        yield from resource_ref(source["resourceFieldRef"], f"{path}.resourceFieldRef", in_volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if source.get(kind) is not None:
            yield from _key_ref(source[kind], f"{path}.{kind}")
    if source.get("fileKeyRef") is not None:
        yield from _file_key_ref(source["fileKeyRef"], f"{path}.fileKeyRef", volumes)


def field_ref(reference: Object, path: str, allowed: tuple[str, ...]) -> Iterator[Cause]:
    """Judge a reference to a field of the pod."""
    wanted = reference.get("fieldPath") or ""
    if not wanted:
        yield field.required(f"{path}.fieldPath")
        return
    subscript = _SUBSCRIPT.fullmatch(wanted)
    if subscript:
        yield from names.causes(f"{path}.fieldPath", subscript[2], name_rules.qualified_name(subscript[2].lower()))
    elif wanted not in _KNOWN_FIELDS:
        detail = f"error converting fieldPath: field label not supported: {wanted}"
        yield field.invalid(f"{path}.fieldPath", wanted, detail)
    elif wanted not in allowed:
        yield field.not_supported(f"{path}.fieldPath", wanted, allowed)


def resource_ref(reference: Object, path: str, *, in_volume: bool) -> Iterator[Cause]:
    """Judge a reference to a container's resources."""
    wanted = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        yield field.required(f"{path}.containerName")
    elif not wanted:
        yield field.required(f"{path}.resource")
    elif wanted not in _RESOURCES and not re.match(r"(limits|requests)\.hugepages-", wanted):
        yield field.not_supported(f"{path}.resource", wanted, _RESOURCES)


def _key_ref(reference: Object, path: str) -> Iterator[Cause]:
    name, key = reference.get("name") or "", reference.get("key") or ""
    yield from names.causes(f"{path}.name", name, name_rules.dns_subdomain(name))
    if not key:
        yield field.required(f"{path}.key")
    else:
        yield from names.causes(f"{path}.key", key, name_rules.config_map_key(key))


def _file_key_ref(reference: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    volume, file, key = (reference.get(name) or "" for name in ("volumeName", "path", "key"))
    if not volume:
        yield field.required(f"{path}.volumeName")
    elif volume not in volumes:
        yield field.not_found(f"{path}.volumeName", volume)
    elif volumes[volume].get("emptyDir") is None:
        yield field.invalid(f"{path}.volumeName", volume, "referenced volume must be of type emptyDir")
    if not file:
        yield field.required(f"{path}.path")
    else:
        yield from localpaths.local_path(file, f"{path}.path")
    if not key:
        yield field.required(f"{path}.key")
    elif not _ENV_NAME.fullmatch(key):
        yield field.invalid(f"{path}.key", key, _ENV_TEXT)


def _env_from(source: Object, path: str) -> Iterator[Cause]:
    prefix = source.get("prefix") or ""
    if prefix and not _ENV_NAME.fullmatch(prefix):
        yield field.invalid(f"{path}.prefix", prefix, _ENV_TEXT)
    given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
    if not given:
        yield field.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
    for kind in given:
        name = source[kind].get("name") or ""
        if not name:
            yield field.required(f"{path}.{kind}.name")
        else:
            yield from names.causes(f"{path}.{kind}.name", name, name_rules.dns_subdomain(name))
    if len(given) > 1:
        yield field.invalid(path, "", "may not have more than one field specified at a time")
