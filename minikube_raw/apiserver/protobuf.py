"""Bodies in Kubernetes' protobuf, which typed Go clients send (kubectl since 1.32 creates with it), read into what JSON would be.

An envelope (`k8s\\0`, then runtime.Unknown) holds a message, which is read by a table of field numbers, not by generated
code. Only reading: answers are JSON, which those clients accept too. A field we have no name for is refused, never dropped.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import msgspec

MEDIA = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_META = "apis.meta.v1."
# Messages whose fields belong to the message around them: Go embeds the type, JSON shows its fields inline.
_INLINED = frozenset(
    {"volumeSource", "ephemeralContainerCommon", "handler", "localObjectReference", "persistentVolumeSource"}
)
_SPECIAL = frozenset(
    {
        "api.resource.Quantity",
        "util.intstr.IntOrString",
        _META + "Time",
        _META + "MicroTime",
        _META + "FieldsV1",
        "runtime.RawExtension",
    }
)


class ProtobufError(ValueError):
    """Not a message of that type; the text is for a 400."""


@functools.cache
def _messages() -> dict[str, dict[int, tuple[str, str]]]:
    """Message → field number → (name in JSON, type): from the published generated.proto files."""
    text = resources.files("minikube_raw.apiserver").joinpath("protobuf_fields.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, dict[int, tuple[str, str]]])


def decode(body: bytes) -> dict[str, Any]:
    """Read an envelope into an object with apiVersion and kind. Raises ProtobufError."""
    if not body.startswith(MAGIC):
        raise ProtobufError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    if len(body) == len(MAGIC):
        raise ProtobufError("empty body")
    envelope = {number: value for number, _, value in _fields(body[len(MAGIC) :])}
    names = {number: value.decode() for number, _, value in _fields(envelope.get(1, b""))}
    api_version, kind = names.get(1, ""), names.get(2, "")
    message = _message_name(api_version, kind)
    if message not in _messages():
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}" in protobuf here')
    return {"apiVersion": api_version, "kind": kind, **_read(message, envelope.get(2, b""))}


def _message_name(api_version: str, kind: str) -> str:
    if kind == "DeleteOptions":
        return _META + kind
    group, _, version = api_version.rpartition("/")
    return f"{group.split('.')[0] or 'core'}.{version}.{kind}"


def _read(message: str, data: bytes) -> dict[str, Any]:
    fields, found = _messages()[message], dict[str, Any]()
    for number, wire, value in _fields(data):
        if number not in fields:
            raise ProtobufError(f"{message} has a field {number} that is not known here; send JSON instead")
        name, kind = fields[number]
        if kind.startswith("map "):
            key, item = _entry(kind[4:], value)
            found.setdefault(name, {})[key] = item
        elif kind.startswith("repeated "):
            found.setdefault(name, []).append(_value(kind[9:], wire, value))
        elif name in _INLINED:
            found.update(_read(kind, value))
        else:
            found[name] = _value(kind, wire, value)
    return found


def _entry(kind: str, data: bytes) -> tuple[str, Any]:
    parts = {number: (wire, value) for number, wire, value in _fields(data)}
    wire, value = parts.get(2, (_BYTES, b""))
    return parts.get(1, (_BYTES, b""))[1].decode(), _value(kind, wire, value)


def _value(kind: str, wire: int, value: Any) -> Any:
    if (wire == _BYTES) != (kind not in ("bool", "int32", "int64", "uint32", "double")):
        raise ProtobufError(f"wrong wire type {wire} for {kind}")
    if kind == "string":
        return value.decode(errors="replace")
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "bool":
        return bool(value)
    if kind in ("int32", "int64"):
        return value - (1 << 64) if value >> 63 else value
    if kind == "double":
        return struct.unpack("<d", value)[0]
    return _special(kind, value) if kind in _SPECIAL else _read(kind, value)


def _special(kind: str, data: bytes) -> Any:
    parts = {number: value for number, _, value in _fields(data)}
    if kind.endswith(("Quantity", "FieldsV1", "RawExtension")):
        text = parts.get(1, b"")
        return text.decode() if kind.endswith("Quantity") else msgspec.json.decode(text or b"null")
    if kind.endswith("IntOrString"):
        number = parts.get(2, 0)
        return parts.get(3, b"").decode() if parts.get(1) else number - (1 << 64) if number >> 63 else number
    if not parts:
        return None
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    moment = datetime.fromtimestamp(seconds - (1 << 64) if seconds >> 63 else seconds, UTC)
    if kind.endswith("MicroTime"):
        return moment.replace(microsecond=nanos // 1000).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value): an int, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ProtobufError(f"illegal wireType {wire}")
        if at + length > len(data):
            raise ProtobufError("unexpected EOF")
        yield tag >> 3, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ProtobufError("unexpected EOF")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        if shift > 63:
            raise ProtobufError("integer overflow")
