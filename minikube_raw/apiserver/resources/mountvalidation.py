"""Validation of what a container does with its pod's volumes: mounts and block devices (apis/core/validation, v1.36)."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources import localpaths
from minikube_raw.apiserver.resources.strategy import Object

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")
_BLOCK_SOURCES = ("persistentVolumeClaim", "ephemeral")


def mounts(container: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    """Judge a container's volumeMounts and volumeDevices; `volumes` are the pod's by name."""
    devices = {(device or {}).get("devicePath"): device or {} for device in container.get("volumeDevices") or ()}
    seen: set[str] = set()
    for index, item in enumerate(container.get("volumeMounts") or ()):
        mount, at = item or {}, f"{path}.volumeMounts[{index}]"
        name, target = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield field.required(f"{at}.name")
        elif name not in volumes:
            yield field.not_found(f"{at}.name", name)
        if not target:
            yield field.required(f"{at}.mountPath")
        elif target in seen:
            yield field.invalid(f"{at}.mountPath", target, "must be unique")
        if target and target in devices:
            yield field.invalid(f"{at}.mountPath", target, "must not already exist in volumeDevices")
        seen.add(target)
        yield from _sub_paths(mount, at)
        yield from _propagation(mount, at, container)
        yield from _recursive_read_only(mount, f"{at}.recursiveReadOnly")
    yield from _devices(container, path, volumes)


def _sub_paths(mount: Object, path: str) -> Iterator[Cause]:
    for sub in ("subPath", "subPathExpr"):
        yield from localpaths.relative_path(mount.get(sub) or "", f"{path}.{sub}")
    if mount.get("subPath") and mount.get("subPathExpr"):
        detail = "subPathExpr and subPath are mutually exclusive"
        yield field.invalid(f"{path}.subPathExpr", mount["subPathExpr"], detail)


def _propagation(mount: Object, path: str, container: Object) -> Iterator[Cause]:
    wanted, at = mount.get("mountPropagation"), f"{path}.mountPropagation"
    if wanted is not None and wanted not in _PROPAGATIONS:
        yield field.not_supported(at, wanted, _PROPAGATIONS)
    if wanted == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        yield field.forbidden(at, "Bidirectional mount propagation is available only to privileged containers")


def _recursive_read_only(mount: Object, path: str) -> Iterator[Cause]:
    wanted = mount.get("recursiveReadOnly")
    if wanted is None or wanted == "Disabled":
        return
    if wanted not in _RECURSIVE:
        yield field.not_supported(path, wanted, _RECURSIVE)
        return
    if not mount.get("readOnly"):
        yield field.forbidden(path, "may only be specified when readOnly is true")
    if mount.get("mountPropagation") not in (None, "None"):
        yield field.forbidden(path, "may only be specified when mountPropagation is None or not specified")


def _devices(container: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    mounted = [mount or {} for mount in container.get("volumeMounts") or ()]
    names: set[str] = set()
    paths: set[str] = set()
    for index, item in enumerate(container.get("volumeDevices") or ()):
        device, at = item or {}, f"{path}.volumeDevices[{index}]"
        name, target = device.get("name") or "", device.get("devicePath") or ""
        if not name:
            yield field.required(f"{at}.name")
        if name in names:
            yield field.invalid(f"{at}.name", name, "must be unique")
        names.add(name)
        if name not in volumes:
            yield field.not_found(f"{at}.name", name)
        elif not any(volumes[name].get(source) for source in _BLOCK_SOURCES):
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            yield field.invalid(f"{at}.name", name, detail)
        if not target:
            yield field.required(f"{at}.devicePath")
        elif target in paths:
            yield field.invalid(f"{at}.devicePath", target, "must be unique")
        if ".." in target.split("/"):
            yield field.invalid(f"{at}.devicePath", target, "can not contain backsteps ('..')")
        paths.add(target)
        if any(mount.get("name") == name for mount in mounted):
            yield field.invalid(f"{at}.name", name, "must not already exist in volumeMounts")
        if target and any(mount.get("mountPath") == target for mount in mounted):
            yield field.invalid(f"{at}.devicePath", target, "must not already exist as a path in volumeMounts")
