"""Messages as JSON objects: structs of the table, compiled on first use, and the envelope that names an object's type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from minikube_raw.api import protobuf_fields
from minikube_raw.api.protobuf_fieldcodecs import FieldCodec, Object, field_codec
from minikube_raw.api.protobuf_fields import Message
from minikube_raw.api.protobuf_values import SCALARS, Codec, Reading, expect_bytes, parts, read_json, write_json
from minikube_raw.api.protobuf_wire import BYTES, delimited, fields

MAGIC = b"k8s\0"


class UnknownKind(KeyError):
    """A kind that the table does not have."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(f'no kind "{kind}" of version "{api_version}" is known in protobuf')

    def __str__(self) -> str:
        return str(self.args[0])


def open_envelope(body: bytes, reading: Reading, api_version: str = "", kind: str = "") -> Object:
    """Read `k8s\\0` and a runtime.Unknown. Raises ValueError, UnknownKind."""
    if not body.startswith(MAGIC):
        raise ValueError(
            f"provided data does not appear to be a protobuf message, expected prefix [{' '.join(map(str, MAGIC))}]"
        )
    if len(body) == len(MAGIC):
        raise ValueError("empty body")
    parts: dict[int, Any] = {number: value for number, _, value in fields(body[len(MAGIC) :])}
    type_meta, raw, encoding = (parts.get(number, b"") for number in (1, 2, 3))
    if not all(isinstance(part, bytes) for part in (type_meta, raw, encoding)):
        raise ValueError("proto: wrong wireType")
    if encoding:
        raise ValueError(f'encoding "{encoding.decode(errors="replace")}" is not supported')
    named = {
        number: value.decode(errors="replace") for number, _, value in fields(type_meta) if isinstance(value, bytes)
    }
    api_version, kind = named.get(1) or api_version, named.get(2) or kind
    name = protobuf_fields.of_kind(api_version, kind)
    if not name:
        raise UnknownKind(api_version, kind)
    head = {"kind": kind, "apiVersion": api_version} if api_version else {"kind": kind}
    return head | struct(name).read(raw, reading)


class Struct:
    """A message of the table."""

    wire = BYTES
    is_struct = True

    def __init__(self, message: Message) -> None:
        self._message = message

    @functools.cached_property
    def _fields(self) -> dict[int, FieldCodec]:
        return {field.number: field_codec(field, _codec) for field in self._message.fields}

    @functools.cached_property
    def _shown(self) -> list[FieldCodec]:
        return [field for field in self._fields.values() if field.shown]

    @functools.cached_property
    def _writers(self) -> list[tuple[str, bytes, Callable[[Any], bytes]]]:
        return [(field.name, field.absent(), field.write) for field in self._fields.values()]

    def read(self, raw: bytes, reading: Reading) -> Object:
        """Read the fields; unknown ones are skipped."""
        obj: Object = {}
        known = self._fields
        with reading:
            for number, wire, value in fields(raw):
                if (field := known.get(number)) is not None:
                    field.read(obj, wire, value, reading)
        for field in self._shown:
            field.finish(obj)
        return obj

    def payload(self, obj: Object) -> bytes:
        """Write the fields in order of their numbers, without a length; what the table does not know is left out."""
        if not isinstance(obj, dict):
            raise ValueError(f"cannot write {type(obj).__name__} as {self._message.name}")
        written = []
        for name, absent, write in self._writers:
            value = obj.get(name) if name else obj
            written.append(absent if value is None else write(value))
        return b"".join(written)

    def write(self, value: Any) -> bytes:
        """Write with the length in front."""
        return self._written_zero if value is None else delimited(self.payload(value))

    @functools.cached_property
    def _written_zero(self) -> bytes:
        return delimited(self.payload({}))

    def empty(self) -> Object:
        """Return the zero value's JSON, a new one each time."""
        return self.read(b"", Reading())


class _NamedList:
    """A message of items that JSON shows as the list alone (metav1.Verbs, ExtraValue)."""

    wire = BYTES
    is_struct = False

    def __init__(self, struct: Struct) -> None:
        self._struct = struct

    def read(self, raw: bytes, reading: Reading) -> Any:
        """Read."""
        return self._struct.read(raw, reading).get("items", [])

    def write(self, value: Any) -> bytes:
        """Write."""
        return self._struct.write({"items": value})

    def empty(self) -> None:
        """Return null."""
        return


class _RawExtension:
    """runtime.RawExtension: JSON of any kind, or an object in its own envelope."""

    wire = BYTES
    is_struct = True

    def read(self, raw: bytes, reading: Reading) -> Any:
        """Read."""
        held = expect_bytes(parts(raw).get(1, b""))
        if held.startswith(MAGIC):
            with reading:
                return open_envelope(held, reading)
        return read_json(held) if held else None

    def write(self, value: Any) -> bytes:
        """Write JSON; an envelope as bytes."""
        if value is None or isinstance(value, bytes):
            return delimited(b"\x0a" + delimited(value) if value else b"")
        return write_json(value)

    def empty(self) -> None:
        """Return null."""
        return


@functools.cache
def struct(name: str) -> Struct:
    """Return the codec of a message. Raises KeyError."""
    return Struct(protobuf_fields.message(name))


@functools.cache
def _codec(type_: str) -> Codec:
    if type_ in SCALARS:
        return SCALARS[type_]
    if type_ == "RawExtension":
        return _RawExtension()
    return _NamedList(struct(type_)) if protobuf_fields.message(type_).role == "list" else struct(type_)
