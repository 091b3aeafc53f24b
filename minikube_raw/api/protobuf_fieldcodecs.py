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


class FieldCodec(Protocol):
    """A field of a message. `name` is JSON's, empty for a message whose fields JSON shows among its owner's.

    `shown`: JSON has the field also when the wire had none; then `finish` sets it.
    """

    name: str
    shown: bool

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        """Take a value off the wire into the object. Raises ValueError."""

    def finish(self, obj: Object) -> None:
        """Set what Go's JSON shows where nothing was on the wire."""

    def write(self, value: Any) -> bytes:
        """Write a value (the whole object for a field without name) with its tags."""

    def absent(self) -> bytes:
        """Return what Go writes where JSON has nothing or null."""


def field_codec(field: Field, codec_of: Callable[[str], Codec]) -> FieldCodec:
    """Return the codec of a field; `codec_of` gives those of the types inside. Raises KeyError for an unknown type."""
    number, name, type_, omitted = field
    if name == "-":
        return _Inline(number, codec_of(type_))
    if type_.startswith("*"):
        return _Nilable(number, name, codec_of(type_[1:]), shown=not omitted)
    if type_.startswith("[]"):
        return _Repeated(number, name, codec_of(type_[2:]), shown=not omitted)
    if type_.startswith("map[string]"):
        return _Mapped(number, name, codec_of(type_.removeprefix("map[string]")), shown=not omitted)
    codec = codec_of(type_)
    if type_ == "bytes" or (codec.empty() is None and not codec.is_struct):  # []byte, or a named list
        return _Nilable(number, name, codec, shown=not omitted, drops_empty=bool(omitted))
    shown = not omitted or (codec.is_struct and omitted == "?")
    return _Plain(number, name, codec, shown=shown, drops_empty=not shown)


class _Nilable:
    """*T, and []byte: there or not, even when zero."""

    def __init__(self, number: int, name: str, codec: Codec, *, shown: bool, drops_empty: bool = False) -> None:
        self.name = name
        self.shown = shown
        self._codec = codec
        self._drops_empty = drops_empty
        self._tag = tag(number, codec.wire)

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        value = self._value(wire, raw, reading)
        if value or not self._drops_empty:
            obj[self.name] = value
        else:
            obj.pop(self.name, None)  # the last value on the wire counts, and this one JSON does not show

    def finish(self, obj: Object) -> None:
        obj.setdefault(self.name, None)

    def write(self, value: Any) -> bytes:
        return self._tag + self._codec.write(value)

    def absent(self) -> bytes:
        return b""

    def _value(self, wire: int, raw: Any, reading: Reading) -> Any:
        if wire != self._codec.wire:
            raise ValueError(f"proto: wrong wireType = {wire} for field {self.name}")
        return self._codec.read(raw, reading)


class _Plain(_Nilable):
    """T: always on the wire; in JSON when it is not zero, when Go's tag says so, and structs always."""

    def finish(self, obj: Object) -> None:
        if self.name not in obj:
            obj[self.name] = self._codec.empty()

    def absent(self) -> bytes:
        return self.write(None)


class _Repeated(_Nilable):
    """[]T."""

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        items = obj.setdefault(self.name, [])
        if wire == BYTES and self._codec.wire == VARINT:
            items.extend(self._codec.read(number, reading) for number in _packed(raw))
        else:
            items.append(self._value(wire, raw, reading))

    def write(self, value: Any) -> bytes:
        write, tag_ = self._codec.write, self._tag
        return b"".join([tag_ + write(item) for item in value])


class _Mapped(_Nilable):
    """map[string]T: repeated messages of key and value, sorted by key."""

    def __init__(self, number: int, name: str, codec: Codec, *, shown: bool) -> None:
        super().__init__(number, name, codec, shown=shown)
        self._tag = tag(number, BYTES)
        self._value_tag = tag(2, codec.wire)

    def read(self, obj: Object, wire: int, raw: Any, reading: Reading) -> None:
        if wire != BYTES:
            raise ValueError(f"proto: wrong wireType = {wire} for field {self.name}")
        key, value = "", self._codec.empty()
        with reading:
            for number, part_wire, part in fields(raw):
                if number == 1 and isinstance(part, bytes):
                    key = part.decode(errors="replace")
                elif number == 2:
                    value = self._value(part_wire, part, reading)
        obj.setdefault(self.name, {})[key] = value

    def write(self, value: Any) -> bytes:
        return b"".join([self._tag + self._entry(key, value[key]) for key in sorted(value)])

    def _entry(self, key: str, value: Any) -> bytes:
        return delimited(b"\x0a" + delimited(key.encode()) + self._value_tag + self._codec.write(value))


class _Inline:
    """A message whose fields JSON shows among its owner's."""

    name = ""
    shown = True

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

    def write(self, value: Any) -> bytes:
        return self._tag + self._codec.write(value)

    def absent(self) -> bytes:
        return self.write({})


def _packed(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        number, at = read_varint(raw, at)
        yield number
