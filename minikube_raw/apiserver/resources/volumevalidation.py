"""Validation of a pod's volumes: one source each, with what the source needs (apis/core/validation, v1.36)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from minikube_raw.api import name_rules, quantity
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import claimvalidation, envvalidation, localpaths
from minikube_raw.apiserver.resources.strategy import Object

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")


def volumes(items: list[Object], path: str, found: dict[str, Object]) -> Iterator[Cause]:
    """Judge volumes and collect them by name in `found`."""
    for index, item in enumerate(items):
        volume, at = item or {}, f"{path}[{index}]"
        name = volume.get("name") or ""
        if not name:
            yield field.required(f"{at}.name")
            continue
        if name in found:
            yield field.duplicate(f"{at}.name", name)
        else:
            yield from names.causes(f"{at}.name", name, names.dns_label(name))
        yield from one_source({kind: source for kind, source in volume.items() if kind != "name"}, at)
        found[name] = volume


def one_source(sources: Object, path: str) -> Iterator[Cause]:
    """Judge the sources of a volume, of which there must be one."""
    given = [kind for kind, source in sources.items() if source is not None]
    # Kubernetes looks at the sources in its own order: the ones it knows first count.
    given.sort(key=lambda kind: list(_RULES).index(kind) if kind in _RULES else len(_RULES))
    for kind in given[1:]:
        yield field.forbidden(f"{path}.{kind}", "may not specify more than 1 volume type")
    if not given:
        yield field.required(path, "must specify a volume type")
    elif given[0] in _RULES:
        yield from _RULES[given[0]](sources[given[0]], f"{path}.{given[0]}")


def _empty_dir(source: Object, path: str) -> Iterator[Cause]:
    limit = source.get("sizeLimit")
    if limit is not None and quantity.parse(limit).nanos < 0:
        yield field.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _host_path(source: Object, path: str) -> Iterator[Cause]:
    value = source.get("path") or ""
    if not value:
        yield field.required(f"{path}.path")
    elif ".." in value.split("/"):
        yield field.invalid(f"{path}.path", value, "must not contain '..'")
    if source.get("type") not in (None, *_HOST_PATH_TYPES):
        yield field.not_supported(f"{path}.type", source["type"], _HOST_PATH_TYPES)


def _secret(source: Object, path: str) -> Iterator[Cause]:
    if not source.get("secretName"):
        yield field.required(f"{path}.secretName")
    yield from _files(source, path)


def _config_map(source: Object, path: str) -> Iterator[Cause]:
    if not source.get("name"):
        yield field.required(f"{path}.name")
    yield from _files(source, path)


def _files(source: Object, path: str) -> Iterator[Cause]:
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        yield from _key_to_path(item or {}, f"{path}.items[{index}]")


def _key_to_path(item: Object, path: str) -> Iterator[Cause]:
    if not item.get("key"):
        yield field.required(f"{path}.key")
    if not item.get("path"):
        yield field.required(f"{path}.path")
    else:
        yield from localpaths.local_path(item["path"], f"{path}.path")
    yield from _mode(item.get("mode"), f"{path}.mode")


def _mode(mode: int | None, path: str) -> Iterator[Cause]:
    if mode is not None and not 0 <= mode <= 0o777:
        yield field.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive")


def _downward_api(source: Object, path: str) -> Iterator[Cause]:
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    for item in source.get("items") or ():
        yield from _downward_item(item or {}, path)


def _downward_item(item: Object, path: str) -> Iterator[Cause]:
    if not item.get("path"):
        yield field.required(f"{path}.path")
    else:
        yield from localpaths.local_path(item["path"], f"{path}.path")
    if item.get("fieldRef") is not None:
        yield from envvalidation.field_ref(item["fieldRef"], f"{path}.fieldRef", envvalidation.VOLUME_FIELDS)
        if item.get("resourceFieldRef") is not None:
            yield field.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
    elif item.get("resourceFieldRef") is not None:
        yield from envvalidation.resource_ref(item["resourceFieldRef"], f"{path}.resourceFieldRef", in_volume=True)
    else:
        yield field.required(path, "one of fieldRef and resourceFieldRef is required")
    yield from _mode(item.get("mode"), f"{path}.mode")


def _projected(source: Object, path: str) -> Iterator[Cause]:
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    taken: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        yield from _projection(projection or {}, f"{path}.sources[{index}]", path, taken)


_PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")


def _projection(projection: Object, path: str, whole: str, taken: set[str]) -> Iterator[Cause]:
    given = [kind for kind in _PROJECTIONS if projection.get(kind) is not None]
    for kind in given[1:]:
        yield field.forbidden(f"{path}.{kind}", "may not specify more than 1 volume type per source")
    for kind in ("secret", "configMap"):
        named = projection.get(kind)
        if named is None:
            continue
        if not named.get("name"):
            yield field.required(f"{path}.{kind}.name")
        for number, item in enumerate(named.get("items") or ()):
            yield from _key_to_path(item or {}, f"{path}.{kind}.items[{number}]")
            yield from _taken((item or {}).get("path", ""), whole, named.get("name", ""), taken)
    for item in (projection.get("downwardAPI") or {}).get("items") or ():
        yield from _downward_item(item or {}, f"{path}.downwardAPI")
        yield from _taken((item or {}).get("path", ""), whole, "downwardAPI", taken)
    token = projection.get("serviceAccountToken")
    if token is not None:
        if token.get("expirationSeconds", 3600) < 600:
            detail = "may not specify a duration less than 10 minutes"
            yield field.invalid(f"{path}.serviceAccountToken.expirationSeconds", token["expirationSeconds"], detail)
        if token.get("expirationSeconds", 3600) > 1 << 32:
            detail = "may not specify a duration larger than 2^32 seconds"
            yield field.invalid(f"{path}.serviceAccountToken.expirationSeconds", token["expirationSeconds"], detail)
        if not token.get("path"):
            yield field.required(f"{path}.serviceAccountToken.path")
        else:
            yield from localpaths.local_path(token["path"], f"{path}.serviceAccountToken.path")


def _taken(path: str, whole: str, source: str, taken: set[str]) -> Iterator[Cause]:
    if path and path in taken:
        yield field.invalid(whole, source, "conflicting duplicate paths")
    taken.add(path)


def _claim(source: Object, path: str) -> Iterator[Cause]:
    if not source.get("claimName"):
        yield field.required(f"{path}.claimName")


def _ephemeral(source: Object, path: str) -> Iterator[Cause]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield field.required(f"{path}.volumeClaimTemplate")
    else:
        yield from claimvalidation.claim_spec(template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


def _image(source: Object, path: str) -> Iterator[Cause]:
    if not source.get("reference"):
        yield field.required(f"{path}.reference")
    if source.get("pullPolicy") not in _PULL_POLICIES:
        yield field.not_supported(f"{path}.pullPolicy", source.get("pullPolicy", ""), _PULL_POLICIES)


def _nfs(source: Object, path: str) -> Iterator[Cause]:
    if not source.get("server"):
        yield field.required(f"{path}.server")
    value = source.get("path") or ""
    if not value:
        yield field.required(f"{path}.path")
    if not value.startswith("/"):
        yield field.invalid(f"{path}.path", value, "must be an absolute path")


def _local(source: Object, path: str) -> Iterator[Cause]:
    value = source.get("path") or ""
    if not value:
        yield field.required(f"{path}.path")
    elif ".." in value.split("/"):
        yield field.invalid(f"{path}.path", value, "must not contain '..'")


def _csi(source: Object, path: str) -> Iterator[Cause]:
    driver = source.get("driver") or ""
    if not driver:
        yield field.required(f"{path}.driver")
    else:
        yield from names.causes(f"{path}.driver", driver, name_rules.dns_subdomain(driver.lower()))


_RULES: dict[str, Callable[[Object, str], Iterator[Cause]]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "secret": _secret,
    "nfs": _nfs,
    "persistentVolumeClaim": _claim,
    "configMap": _config_map,
    "downwardAPI": _downward_api,
    "projected": _projected,
    "ephemeral": _ephemeral,
    "image": _image,
    "local": _local,
    "csi": _csi,
}


def is_ip(text: str) -> bool:
    """Whether the text is an IP address, written plainly."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
