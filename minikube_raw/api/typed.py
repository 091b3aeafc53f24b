"""Decoded JSON made into what Go's decoder would have made of it: types checked, nulls and zeroes as Go has them.

One walk over the value by its shape; unknown fields are left out here and named by `decode`. Quantities and times take
the spelling Kubernetes stores. Wrong types are reported in the words of Go's decoder, which API clients show to people.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from minikube_raw.api import quantity, schema
from minikube_raw.api.schema import Form, Shape, Struct

Object = dict[str, Any]
Notes = list[str]


class DecodeError(ValueError):
    """The value cannot be of that type; the text is Go's (encoding/json)."""

    def __init__(self, text: str, found: str = "", go: str = "") -> None:
        super().__init__(text)
        self._found = found
        self._go = go

    def restoring(self) -> str:
        """Return the words of the other decoder, which makes typed values of decoded maps (runtime/converter)."""
        if not self._go:
            return str(self)
        names = {"object": "map", "array": "slice"}
        form = (
            "slice" if self._go.startswith("[]") else "map" if self._go.startswith(("map[", "v1.ResourceList")) else ""
        )
        if form:
            return f"cannot restore {form} from {names.get(self._found, ': ' + self._found)}".replace("from :", "from:")
        if self._go.startswith("v1.") and self._found in names:
            return f"cannot restore struct from: {names[self._found]}"
        return f"unrecognized type: {self._go}"


class _Mismatch(Exception):
    """A value of a wrong type; the way to it is collected while the exception climbs."""

    def __init__(self, found: str, go: str) -> None:
        self.found = found
        self.go = go
        self.struct = ""
        self.path: list[str] = []


def read(struct: Struct, value: Object, notes: Notes | None = None) -> Object:
    """Return a clean copy of an object; `notes` receives the names of unknown fields. Raises DecodeError."""
    try:
        return _struct(struct, value, [] if notes is None else notes)
    except _Mismatch as wrong:
        field = ".".join(reversed(wrong.path))
        text = f"json: cannot unmarshal {wrong.found} into Go struct field {wrong.struct}.{field} of type {wrong.go}"
        raise DecodeError(text, wrong.found, wrong.go) from None


def _struct(shape: Struct, value: Any, notes: Notes) -> Object:
    if type(value) is not dict:
        raise _Mismatch(kind_of(value), shape.go)
    fields, clean = shape.fields, {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            notes.append(name)
            continue
        if item is None:
            continue
        kind = field.shape
        try:
            made = _READERS[kind.form](kind, item, notes)
        except _Mismatch as wrong:
            wrong.path.append(name)
            wrong.struct = wrong.struct or shape.name
            raise
        if made or not field.plain:
            clean[name] = made
    _fill(shape, clean)
    return clean


def _fill(shape: Struct, clean: Object) -> None:
    for name, unset in shape.written.items():
        clean.setdefault(name, unset)
    for name, embedded in shape.embedded:
        if name not in clean:
            clean[name] = zero(embedded)


def empty(shape: Struct) -> Object:
    """Return the object a new one is compared with: what Go writes of a value nobody touched, missing lists as null."""
    made: Object = {name: None for name, field in shape.fields.items() if field.required and name not in shape.written}
    made |= {name: empty(embedded) for name, embedded in shape.embedded}
    return made | shape.written


def _list(shape: Shape, value: Any, notes: Notes) -> list[Any]:
    if type(value) is not list:
        raise _Mismatch(kind_of(value), shape.go)
    item = shape.element
    reader = _READERS[item.form]
    return [zero(item) if entry is None else reader(item, entry, notes) for entry in value]


def _map(shape: Shape, value: Any, notes: Notes) -> Object:
    if type(value) is not dict:
        raise _Mismatch(kind_of(value), shape.go)
    item = shape.element
    reader = _READERS[item.form]
    return {key: zero(item) if entry is None else reader(item, entry, notes) for key, entry in value.items()}


def zero(shape: Shape) -> Any:
    """Return what Go has where JSON has null in a list or map."""
    if isinstance(shape, Struct):
        made: Object = {}
        _fill(shape, made)
        return made
    return {} if shape.form is Form.MAP else schema.ZEROES.get(shape.form)


def _string(shape: Shape, value: Any, notes: Notes) -> str:
    if type(value) is not str:
        raise _Mismatch(kind_of(value), shape.go)
    return value


def _integer(shape: Shape, value: Any, notes: Notes) -> int:
    if type(value) is not int:
        raise _Mismatch(_number_of(value), shape.go)
    if not -(1 << (shape.bits - 1)) <= value < 1 << (shape.bits - 1):
        raise _Mismatch(f"number {value}", shape.go)
    return value


def _boolean(shape: Shape, value: Any, notes: Notes) -> bool:
    if type(value) is not bool:
        raise _Mismatch(kind_of(value), shape.go)
    return value


def _number(shape: Shape, value: Any, notes: Notes) -> float:
    if type(value) is bool or not isinstance(value, (int, float)):
        raise _Mismatch(kind_of(value), shape.go)
    number: float = value
    return number


def _quantity(_: Shape, value: Any, notes: Notes) -> str:
    if type(value) is bool or not isinstance(value, (str, int, float)):
        raise DecodeError(quantity.FORMAT_ERROR)
    try:
        return quantity.canonical(value)
    except quantity.QuantityError as error:
        raise DecodeError(str(error)) from None


def _int_or_string(shape: Shape, value: Any, notes: Notes) -> int | str:
    if type(value) is str:
        return value
    return _integer(_INT32, value, notes)


def _time(shape: Shape, value: Any, notes: Notes) -> str:
    return _rfc3339(_string(shape, value, notes), "2006-01-02T15:04:05Z07:00")


def _micro_time(shape: Shape, value: Any, notes: Notes) -> str:
    return _rfc3339(_string(shape, value, notes), "2006-01-02T15:04:05.000000Z07:00")


# Go's layout elements in their order, and what each of them accepts.
_LAYOUT = (
    ("2006", r"\d{4}"), ("-", "-"), ("01", r"(?:0[1-9]|1[0-2])"), ("-", "-"), ("02", r"(?:0[1-9]|[12]\d|3[01])"), ("T", "T"),
    ("15", r"(?:[01]\d|2[0-3])"), (":", ":"), ("04", r"[0-5]\d"), (":", ":"), ("05", r"[0-5]\d(?:[.,]\d+)?"),
    ("Z07:00", r"(?:Z|[+-]\d\d:\d\d)"),
)  # fmt: skip


def _rfc3339(text: str, layout: str) -> str:
    at = 0
    for element, pattern in _LAYOUT:
        match = re.compile(pattern, re.ASCII).match(text, at)
        if not match:
            raise DecodeError(f'parsing time "{text}" as "{layout}": cannot parse "{text[at:]}" as "{element}"')
        at = match.end()
    if at != len(text):
        raise DecodeError(f'parsing time "{text}": extra text: "{text[at:]}"')
    return text


def _bytes(shape: Shape, value: Any, notes: Notes) -> str:
    """Return base64 as it is written again: without line ends, which are allowed, and loose bits."""
    text = _string(shape, value, notes)
    try:
        return base64.b64encode(base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)).decode()
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        bad = re.search(r"[^A-Za-z0-9+/\r\n]", text)
        at = len(text[: bad.start()].encode()) if bad else len(text)
        raise DecodeError(f"illegal base64 data at input byte {at}") from None


def _any(_: Shape, value: Any, notes: Notes) -> Any:
    return value


_INT32 = Shape(Form.INTEGER, "int32", bits=32)
_READERS: dict[Form, Callable[[Any, Any, Notes], Any]] = {
    Form.STRUCT: _struct,
    Form.MAP: _map,
    Form.LIST: _list,
    Form.STRING: _string,
    Form.INTEGER: _integer,
    Form.BOOLEAN: _boolean,
    Form.NUMBER: _number,
    Form.QUANTITY: _quantity,
    Form.INT_OR_STRING: _int_or_string,
    Form.TIME: _time,
    Form.MICRO_TIME: _micro_time,
    Form.BYTES: _bytes,
    Form.ANY: _any,
}


def kind_of(value: Any) -> str:
    """Name a JSON value as Go's decoder does."""
    names = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
    return names.get(type(value), "number")


def _number_of(value: Any) -> str:
    return f"number {_spelled(value)}" if isinstance(value, float) else kind_of(value)


def _spelled(value: float) -> str:
    return getattr(value, "spelling", None) or repr(value)
