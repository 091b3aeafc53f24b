"""Objects on their way to and from the store: canonical bytes, and the metadata every write checks and fills.

Bytes begin with kind, apiVersion and metadata, and metadata with name, namespace and uid: `changes.splice` and the list
verb count on this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from minikube_raw.api import managed_fields, name_rules, naming, status
from minikube_raw.api.scheme import Kind
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources.strategy import Object, Strategy

MAX_ANNOTATIONS = 256 << 10
_FIRST = ("name", "generateName", "namespace", "uid")
_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})

decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def encode(obj: Object) -> bytes:
    """Return the canonical bytes, without resourceVersion."""
    metadata = obj["metadata"]
    ordered: Object = {key: metadata[key] for key in _FIRST if metadata.get(key)}
    ordered.update((key, value) for key, value in metadata.items() if key not in _FIRST and key not in _LEFT_OUT)
    if metadata.get("managedFields"):
        ordered["managedFields"] = metadata["managedFields"]
    body = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": ordered}
    body.update((key, value) for key, value in obj.items() if key not in body)
    return _encode(body)


_LEFT_OUT = frozenset({"resourceVersion", "selfLink", "managedFields"})


def item_prefix(kind: Kind) -> bytes:
    """Return what every object of the kind begins with and a list's items leave out."""
    return b'{"kind":"%b","apiVersion":"%b",' % (kind.kind.encode(), kind.api_version.encode())


def check_namespace(kind: Kind, obj: Object, namespace: str) -> None:
    """Fill the namespace of the URL in. Raises 400 when the object says another."""
    metadata = obj["metadata"]
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    if metadata.get("namespace") and metadata["namespace"] != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = namespace


def check_name(obj: Object, name: str) -> None:
    """Raise 400 unless the object's name is the URL's."""
    given = obj["metadata"].get("name", "")
    if not given:
        raise status.bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if given != name:
        raise status.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")


def check_uid(kind: Kind, obj: Object, current: Object) -> None:
    """Raise 409 when a replacement names another uid: the object it means is gone (storage.Preconditions)."""
    uid, held = obj["metadata"].get("uid"), current["metadata"]["uid"]
    if not uid or uid == held:
        return
    namespace, name = current["metadata"].get("namespace", ""), current["metadata"]["name"]
    key = "/".join(("", kind.storage, namespace, name)) if namespace else f"/{kind.storage}/{name}"
    text = (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {uid}, UID in object meta: {held}"
    )
    raise status.conflict(kind.group, kind.plural, name, text)


def start_metadata(obj: Object, now: str) -> None:
    """Set what the server alone decides about a new object; the name may still be empty."""
    metadata = obj["metadata"]
    for name in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        metadata.pop(name, None)
    metadata["uid"] = naming.new_uid()
    metadata["creationTimestamp"] = now
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = naming.generate_name(metadata["generateName"])


def carry_metadata(new: Object, old: Object) -> None:
    """Keep what an update cannot change; what it must not change is left for `validate_metadata_update`."""
    metadata, held = new["metadata"], old["metadata"]
    for name in ("resourceVersion", "selfLink"):
        metadata.pop(name, None)
    metadata.setdefault("uid", held["uid"])
    for name in ("creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):
        if name in ("deletionTimestamp", "deletionGracePeriodSeconds") and name not in held:
            continue
        metadata.pop(name, None)
        if name in held:
            metadata[name] = held[name]


def validate_metadata(strategy: Strategy, obj: Object) -> Iterator[Cause]:
    """Judge the metadata of a new or changed object (ValidateObjectMeta)."""
    metadata, path = obj["metadata"], "metadata"
    generate = metadata.get("generateName", "")
    if generate:
        yield from names.causes(f"{path}.generateName", generate, strategy.name_rule(generate.rstrip("-.") or generate))
    if not metadata.get("name"):
        yield field.required(f"{path}.name", "name or generateName is required")
    else:
        yield from names.causes(f"{path}.name", metadata["name"], list(strategy.name_rule(metadata["name"])))
    if strategy.kind.namespaced:
        namespace = metadata.get("namespace", "")
        yield from names.causes(f"{path}.namespace", namespace, name_rules.dns_label(namespace))
    yield from _maps(metadata, path)
    yield from _owners(metadata.get("ownerReferences") or [], f"{path}.ownerReferences")
    yield from _finalizers(metadata.get("finalizers") or [], f"{path}.finalizers")


def _maps(metadata: Object, path: str) -> Iterator[Cause]:
    for key, value in (metadata.get("labels") or {}).items():
        yield from names.causes(f"{path}.labels", key, name_rules.qualified_name(key))
        yield from names.causes(f"{path}.labels", value, name_rules.label_value(value))
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        yield from names.causes(f"{path}.annotations", key, name_rules.qualified_name(key.lower()))
        size += len(key) + len(value)
    if size > MAX_ANNOTATIONS:
        yield field.too_long(f"{path}.annotations", MAX_ANNOTATIONS)


def _owners(owners: list[Object], path: str) -> Iterator[Cause]:
    controllers = []
    for item in owners:
        owner = item or {}
        if not owner.get("apiVersion"):
            yield field.invalid(f"{path}.apiVersion", "", "version must not be empty")
        for name in ("kind", "name", "uid"):
            if not owner.get(name):
                yield field.invalid(f"{path}.{name}", "", "must not be empty")
        if owner.get("kind") == "Event" and owner.get("apiVersion") in ("v1", "events.k8s.io/v1"):
            group, version = ("", "v1") if owner["apiVersion"] == "v1" else owner["apiVersion"].split("/")
            text = f"{group}/{version}, Kind=Event is disallowed from being an owner"
            yield field.invalid(path, owner, text)
        if owner.get("controller"):
            controllers.append(owner.get("name", ""))
    for name in controllers[1:]:
        text = f'Only one reference can have Controller set to true. Found "true" in references for {controllers[0]} and {name}'
        yield field.invalid(path, owners, text)


def _finalizers(finalizers: list[str], path: str) -> Iterator[Cause]:
    for index, finalizer in enumerate(finalizers):
        yield from names.causes(path, finalizer, name_rules.qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            yield field.invalid(f"{path}[{index}]", finalizer, text)
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        yield field.invalid(path, finalizers, text)


def validate_metadata_update(new: Object, old: Object) -> Iterator[Cause]:
    """Judge changes of metadata (ValidateObjectMetaUpdate)."""
    metadata, held = new["metadata"], old["metadata"]
    if held.get("deletionTimestamp"):
        added = [name for name in metadata.get("finalizers") or () if name not in (held.get("finalizers") or ())]
        if added:
            shown = "[]string{" + ", ".join(field.show(name) for name in added) + "}"
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            yield field.forbidden("metadata.finalizers", text)
    for name in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if metadata.get(name) != held.get(name):
            yield field.invalid(f"metadata.{name}", metadata.get(name), "field is immutable")


def same(new: Object, old: Object) -> bool:
    """Whether a write would change nothing that lasts: not resourceVersion, nor when a manager wrote the same again."""
    if any(new.get(key) != old.get(key) for key in new.keys() | old.keys() if key != "metadata"):
        return False
    metadata, held = new["metadata"], old["metadata"]
    if any(metadata.get(key) != held.get(key) for key in metadata.keys() | held.keys() if key not in _APART):
        return False
    return managed_fields.same_owners(metadata.get("managedFields"), held.get("managedFields"))


_APART = frozenset({"resourceVersion", "selfLink", "managedFields"})


def is_finished(obj: Object) -> bool:
    """Whether a deletion has nothing left to wait for: marked, no grace, no finalizer."""
    metadata = obj["metadata"]
    marked = bool(metadata.get("deletionTimestamp")) and not metadata.get("deletionGracePeriodSeconds")
    return marked and not metadata.get("finalizers")
