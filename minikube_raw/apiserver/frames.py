"""A watch event on the wire: a line of JSON, or a length and a protobuf message."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from minikube_raw.api import protobuf, status
from minikube_raw.api.scheme import Kind

# From an event's type and its object's JSON to what is sent.
Encode = Callable[[str, bytes], bytes]


def line(type_: str, value: bytes) -> bytes:
    """Return one line of a JSON watch."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), value)


def message(type_: str, value: bytes) -> bytes:
    """Return one frame of a protobuf watch."""
    return protobuf.frame(type_, protobuf.encode(msgspec.json.decode(value)))


def bookmark(encode: Encode, kind: Kind, revision: int, *, initial_end: bool = False) -> bytes:
    """Return the event that tells a watcher how far it has come."""
    annotations = b',"annotations":{"k8s.io/initial-events-end":"true"}' if initial_end else b""
    value = b'{"kind":"%b","apiVersion":"%b","metadata":{"resourceVersion":"%d","creationTimestamp":null%b}}'
    return encode("BOOKMARK", value % (kind.kind.encode(), kind.api_version.encode(), revision, annotations))


def error(encode: Encode, refusal: status.StatusError) -> bytes:
    """Return the event that ends a watch with a Status."""
    return encode("ERROR", refusal.to_json())
