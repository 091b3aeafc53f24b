"""Fields of messages: how each of Go's types of a field gets from the wire into a JSON object and back.

Protobuf as Go writes it has every field that is no pointer, zero or not; JSON leaves out what is empty and `omitempty`. So
reading drops such zeros, and fills in what Go's JSON would show of absent fields; writing does the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from minikube_raw.api.protobuf_fields import Field
from minikube_raw.api.protobuf_values import Codec, Reading
from minikube_raw.api.protobuf_wire import BYTES, VARINT, delimited, fields, read_varint, tag

Object = dict[str, Any]


def field_codec(field: Field, codec_of: Callable[[str], Codec]) -> FieldCodec:
    """Return the codec of a field; `codec_of` gives those of the types inside. Raises KeyError for an unknown type."""
    number, name, type_, omitted = field
    shown = not omitted
    if name == "-":
        return _Inline(number, codec_of(type_))
    if type_.startswith("*"):
        return _Pointer(name, number, codec_of(type_[1:]), shown=shown)
    if type_.startswith("[]"):
        return _Repeated(name, number, codec_of(type_[2:]), shown=shown)
    if type_.startswith("map[string]"):
        return _Mapped(name, number, codec_of(type_.removeprefix("map[string]")), shown=shown)
    codec = codec_of(type_)
    if type_ == "bytes" or (codec.empty() is None and not codec.is_struct):
        return _Nilable(name, number, codec, omitted=omitted)
    return _Plain(name, number, codec, omitted=omitted)


class FieldCodec(Protocol):
    """A field of a message."""

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        """Take a value off the wire into the object."""

    def finish(self, obj: Object) -> None:
        """Set what Go's JSON shows though it was not on the wire, drop what it does not show."""

    def write(self, obj: Object) -> bytes:
        """Write the object's field with its tags, or nothing."""


class _Field:
    """What all fields share."""

    def __init__(self, name: str, number: int, codec: Codec) -> None:
        self.name = name
        self.codec = codec
        self.tag = tag(number, codec.wire)

    def value(self, wire: int, raw: Any, reading: Reading) -> Any:
        if wire != self.codec.wire:
            raise ValueError(f"proto: wrong wireType = {wire} for field {self.name}")
        return self.codec.read(raw, reading)


class _Pointer(_Field):
    """*T: there or not, even when zero."""

    def __init__(self, name: str, number: int, codec: Codec, *, shown: bool) -> None:
        super().__init__(name, number, codec)
        self._shown = shown

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        obj[self.name] = self.value(wire, raw, reading)

    def finish(self, obj: Object) -> None:
        if self._shown:
            obj.setdefault(self.name, None)

    def write(self, obj: Object) -> bytes:
        value = obj.get(self.name)
        return b"" if value is None else self.tag + self.codec.write(value)


class _Plain(_Field):
    """T: always on the wire; in JSON when it is not zero, when Go's tag says so, and structs always."""

    def __init__(self, name: str, number: int, codec: Codec, *, omitted: str) -> None:
        super().__init__(name, number, codec)
        self._shown = not omitted or (codec.is_struct and omitted == "?")

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        obj[self.name] = self.value(wire, raw, reading)

    def finish(self, obj: Object) -> None:
        if self._shown:
            if self.name not in obj:
                obj[self.name] = self.codec.empty()
        elif not obj.get(self.name, 0):
            obj.pop(self.name, None)

    def write(self, obj: Object) -> bytes:
        return self.tag + self.codec.write(obj.get(self.name))


class _Nilable(_Plain):
    """[]byte and named lists: as plain values, but nil is not on the wire, and null in JSON."""

    def finish(self, obj: Object) -> None:
        if self._shown:
            obj.setdefault(self.name, None)
        else:
            super().finish(obj)

    def write(self, obj: Object) -> bytes:
        return b"" if obj.get(self.name) is None else super().write(obj)


class _Repeated(_Field):
    """[]T."""

    def __init__(self, name: str, number: int, codec: Codec, *, shown: bool) -> None:
        super().__init__(name, number, codec)
        self._shown = shown

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        items = obj.setdefault(self.name, [])
        if wire == BYTES and self.codec.wire == VARINT:
            items.extend(self.codec.read(number, reading) for number in _packed(raw))
        else:
            items.append(self.value(wire, raw, reading))

    def finish(self, obj: Object) -> None:
        if self._shown:
            obj.setdefault(self.name, None)

    def write(self, obj: Object) -> bytes:
        write = self.codec.write
        return b"".join(self.tag + write(item) for item in obj.get(self.name) or ())


class _Mapped:
    """map[string]T: repeated messages of key and value, sorted by key."""

    def __init__(self, name: str, number: int, codec: Codec, *, shown: bool) -> None:
        self._name = name
        self._codec = codec
        self._tag = tag(number, BYTES)
        self._shown = shown

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        if wire != BYTES:
            raise ValueError(f"proto: wrong wireType = {wire} for field {self._name}")
        with reading:
            key, value = "", self._codec.empty()
            for number, part_wire, part in fields(raw):
                if number == 1 and isinstance(part, bytes):
                    key = part.decode(errors="replace")
                elif number == 2:
                    if part_wire != self._codec.wire:
                        raise ValueError(f"proto: wrong wireType = {part_wire} for field {self._name}")
                    value = self._codec.read(part, reading)
        obj.setdefault(self._name, {})[key] = value

    def finish(self, obj: Object) -> None:
        if self._shown:
            obj.setdefault(self._name, None)

    def write(self, obj: Object) -> bytes:
        held = obj.get(self._name)
        if not held:
            return b""
        write, wire = self._codec.write, self._codec.wire
        return b"".join(self._tag + _entry(key.encode(), write(held[key]), wire) for key in sorted(held))


class _Inline:
    """A message whose fields JSON shows among its owner's."""

    def __init__(self, number: int, codec: Codec) -> None:
        self._codec = codec
        self._tag = tag(number, BYTES)

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        if wire != BYTES:
            raise ValueError(f"proto: wrong wireType = {wire}")
        obj.update(self._codec.read(raw, reading))

    def finish(self, obj: Object) -> None:
        for name, value in self._codec.empty().items():
            obj.setdefault(name, value)

    def write(self, obj: Object) -> bytes:
        return self._tag + self._codec.write(obj)


def _entry(key: bytes, value: bytes, wire: int) -> bytes:
    """Write an entry of a map: a message of key and value."""
    return delimited(b"\x0a" + delimited(key) + tag(2, wire) + value)


def _packed(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        number, at = read_varint(raw, at)
        yield number
