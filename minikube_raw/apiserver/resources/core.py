"""The core group's rows: Namespace, ConfigMap, Secret, ServiceAccount here; Pod, Node, Service, Event from files of their own."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from minikube_raw.api import ages, name_rules, scheme
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import events, nodes, pods, services
from minikube_raw.apiserver.resources.strategy import (
    AGE_COLUMN,
    NAME_COLUMN,
    Column,
    Head,
    Object,
    Strategy,
    keep_all_but_status,
)

MAX_DATA = 1 << 20  # bytes of a ConfigMap's or Secret's values together
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_PROTECTED = ("default", "kube-system", "kube-public")
NAME_LABEL = "kubernetes.io/metadata.name"


# --- Namespace ---


def _default_namespace(namespace: Object) -> None:
    namespace.setdefault("spec", {})
    namespace.setdefault("status", {}).setdefault("phase", "Active")
    name = namespace["metadata"].get("name")
    if name:
        namespace["metadata"].setdefault("labels", {})[NAME_LABEL] = name


def _prepare_namespace(namespace: Object) -> None:
    namespace["status"] = {"phase": "Active"}
    finalizers = namespace["spec"].setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")


def _update_namespace(new: Object, old: Object) -> None:
    new["spec"] = {**new["spec"], "finalizers": old.get("spec", {}).get("finalizers", [])}
    if not new["spec"]["finalizers"]:
        del new["spec"]["finalizers"]
    new["status"] = old.get("status", {})


def _delete_namespace(namespace: Object) -> None:
    namespace.setdefault("status", {})["phase"] = "Terminating"


def _namespace_refusal(name: str) -> str:
    return "this namespace may not be deleted" if name in _PROTECTED else ""


class _NamespaceStatus(msgspec.Struct, frozen=True, gc=False):
    phase: str = ""


class _NamespaceHead(Head, frozen=True, gc=False):
    status: _NamespaceStatus = _NamespaceStatus()


NAMESPACE = Strategy(
    kind=scheme.NAMESPACE,
    head=_NamespaceHead,
    selectable={"status.phase": lambda namespace: namespace.status.phase},
    default=_default_namespace,
    prepare_for_create=_prepare_namespace,
    prepare_for_update=_update_namespace,
    prepare_status=keep_all_but_status,
    name_rule=names.dns_label,
    may_remove=lambda namespace: not namespace.get("spec", {}).get("finalizers"),
    before_delete=_delete_namespace,
    delete_refusal=_namespace_refusal,
    columns=(NAME_COLUMN, Column("Status", description="The status of the namespace"), AGE_COLUMN),
    cells=lambda namespace, now: [
        namespace["metadata"]["name"],
        namespace.get("status", {}).get("phase", ""),
        _age(namespace, now),
    ],
)


def _age(obj: Object, now: datetime) -> str:
    return ages.age(obj["metadata"].get("creationTimestamp"), now)


# --- ConfigMap ---


def _validate_config_map(config_map: Object) -> Iterator[Cause]:
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    size = 0
    for kind, values in (("data", data), ("binaryData", binary)):
        for key, value in values.items():
            yield from names.causes(f"{kind}[{key}]", key, name_rules.config_map_key(key))
            if kind == "data" and key in binary:
                yield field.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
            size += len((value or "").encode()) if kind == "data" else len(value or "") * 3 // 4
    if size > MAX_DATA:
        yield field.too_long("[]", MAX_DATA)


def _immutable(*fields: str) -> Any:
    text = "field is immutable when `immutable` is set"

    def judge(new: Object, old: Object) -> Iterator[Cause]:
        if not old.get("immutable"):
            return
        if not new.get("immutable"):
            yield field.forbidden("immutable", text)
        for name in fields:
            if (new.get(name) or {}) != (old.get(name) or {}):
                yield field.forbidden(name, text)

    return judge


CONFIG_MAP = Strategy(
    kind=scheme.CONFIG_MAP,
    validate=_validate_config_map,
    validate_update=_immutable("data", "binaryData"),
    columns=(NAME_COLUMN, Column("Data", description="Number of entries."), AGE_COLUMN),
    cells=lambda config_map, now: [
        config_map["metadata"]["name"],
        len(config_map.get("data") or {}) + len(config_map.get("binaryData") or {}),
        _age(config_map, now),
    ],
)


# --- Secret ---

_REQUIRED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_ACCOUNT = "kubernetes.io/service-account.name"


def _default_secret(secret: Object) -> None:
    secret["type"] = secret.get("type") or "Opaque"
    # stringData is write-only: it goes into data and is never stored.
    for key, value in (secret.pop("stringData", None) or {}).items():
        data = secret.get("data") or {}
        secret["data"] = {**data, key: base64.b64encode((value or "").encode()).decode()}


def _validate_secret(secret: Object) -> Iterator[Cause]:
    data, size = secret.get("data") or {}, 0
    for key, value in data.items():
        yield from names.causes(f"data[{key}]", key, name_rules.config_map_key(key))
        size += len(value or "") * 3 // 4
    if size > MAX_DATA:
        yield field.too_long("data", MAX_DATA)
    kind = secret.get("type", "")
    if kind == "kubernetes.io/service-account-token":
        if not (secret["metadata"].get("annotations") or {}).get(_ACCOUNT):
            yield field.required(f"metadata.annotations[{_ACCOUNT}]")
    elif kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        yield field.required("data[username]")
        yield field.required("data[password]")
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data:
            yield field.required(f"data[{key}]")
        elif key.startswith(".docker"):
            yield from _docker_config(key, data[key])


def _docker_config(key: str, value: str) -> Iterator[Cause]:
    try:
        json.loads(base64.b64decode(value or ""))
    except (binascii.Error, ValueError) as error:
        first = base64.b64decode(value or "", validate=False)[:1].decode(errors="replace")
        text = (
            f"invalid character '{first}' looking for beginning of value" if first else "unexpected end of JSON input"
        )
        yield field.invalid(f"data[{key}]", "<secret contents redacted>", text if first or not value else str(error))


def _update_secret(new: Object, old: Object) -> Iterator[Cause]:
    if new.get("type") != old.get("type"):
        yield field.invalid("type", new.get("type"), "field is immutable")
    yield from _immutable("data")(new, old)


class _SecretHead(Head, frozen=True, gc=False):
    type: str = ""


SECRET = Strategy(
    kind=scheme.SECRET,
    head=_SecretHead,
    selectable={"type": lambda secret: secret.type},
    default=_default_secret,
    validate=_validate_secret,
    validate_update=_update_secret,
    columns=(
        NAME_COLUMN,
        Column("Type", description="Used to facilitate programmatic handling of secret data."),
        Column("Data", description="Number of entries."),
        AGE_COLUMN,
    ),
    cells=lambda secret, now: [
        secret["metadata"]["name"],
        secret.get("type", ""),
        len(secret.get("data") or {}),
        _age(secret, now),
    ],
)


# --- ServiceAccount ---

SERVICE_ACCOUNT = Strategy(
    kind=scheme.SERVICE_ACCOUNT,
    columns=(NAME_COLUMN, AGE_COLUMN),
    cells=lambda account, now: [account["metadata"]["name"], _age(account, now)],
)

STRATEGIES = (
    CONFIG_MAP,
    events.CORE,
    NAMESPACE,
    nodes.STRATEGY,
    pods.STRATEGY,
    SECRET,
    SERVICE_ACCOUNT,
    services.STRATEGY,
)
