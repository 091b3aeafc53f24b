"""Kubernetes' protobuf representation of objects: JSON data to application/vnd.kubernetes.protobuf and back.

Objects travel in an envelope, `k8s\\0` and a runtime.Unknown that names the type (apimachinery,
pkg/runtime/serializer/protobuf); watch events as frames, each with its length in front. Only kinds of the table in
protobuf_fields are known; fields it does not know are skipped when reading and left out when writing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from minikube_raw.api import protobuf_fields, protobuf_messages
from minikube_raw.api.protobuf_fieldcodecs import Object
from minikube_raw.api.protobuf_messages import MAGIC, UnknownKind, open_envelope
from minikube_raw.api.protobuf_values import Reading
from minikube_raw.api.protobuf_wire import delimited

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"


def supports(api_version: str, kind: str) -> bool:
    """Whether objects of this kind can be written in protobuf."""
    return bool(protobuf_fields.of_kind(api_version, kind))


def decode(body: bytes, api_version: str = "", kind: str = "") -> Object:
    """Return a body as JSON data with apiVersion and kind, by default the given ones.

    Raises ValueError, in the API server's words, for what is no such body, and UnknownKind.
    """
    return open_envelope(body, Reading(), api_version, kind)


def encode(obj: Object) -> bytes:
    """Return an object's envelope. Raises UnknownKind, and ValueError where a value is not of its field's type."""
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    return envelope(api_version, kind, message(obj, api_version, kind))


def message(obj: Object, api_version: str, kind: str) -> bytes:
    """Return an object without its envelope, as lists hold it. Raises as `encode` does."""
    name = protobuf_fields.of_kind(api_version, kind)
    if not name:
        raise UnknownKind(api_version, kind)
    try:
        return protobuf_messages.struct(name).payload(obj)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{kind}: {error}") from error


def encode_list(api_version: str, kind: str, metadata: Object, items: Iterable[bytes]) -> bytes:
    """Return a list's envelope; `kind` is the list's and `items` come from `message`."""
    head = message({"metadata": metadata}, api_version, kind)
    return envelope(api_version, kind, head + b"".join(b"\x12" + delimited(item) for item in items))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """Return `k8s\\0` and runtime.Unknown{typeMeta, raw, contentEncoding, contentType}."""
    type_meta = b"\x0a" + delimited(api_version.encode()) + b"\x12" + delimited(kind.encode())
    return MAGIC + b"\x0a" + delimited(type_meta) + b"\x12" + delimited(raw) + b"\x1a\0\x22\0"


def frame(type_: str, obj: bytes) -> bytes:
    """Return a watch event, `obj` being an envelope: its length in four bytes, then metav1.WatchEvent without envelope."""
    event = protobuf_messages.struct("meta/v1.WatchEvent").payload({"type": type_, "object": obj})
    return struct.pack(">I", len(event)) + event


def unframe(data: bytes) -> tuple[list[Object], bytes]:
    """Return the events at the beginning of a watch's bytes, as JSON's {type, object}, and the rest. Raises ValueError."""
    events, at = [], 0
    while len(data) - at >= 4 and len(data) - at - 4 >= (size := struct.unpack_from(">I", data, at)[0]):
        events.append(protobuf_messages.struct("meta/v1.WatchEvent").read(data[at + 4 : at + 4 + size], Reading()))
        at += 4 + size
    return events, data[at:]
