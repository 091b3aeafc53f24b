"""Values inside messages: scalars, and Kubernetes' types whose JSON is not the message's shape (times, quantities, raw JSON).

A codec reads what stands on the wire into JSON data and writes JSON data as it stands on the wire. JSON's null writes Go's zero
value, and `empty` is what Go's JSON shows for it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from minikube_raw.api import quantity, times
from minikube_raw.api.protobuf_wire import BYTES, VARINT, delimited, fields, write_varint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = datetime(1, 1, 1, tzinfo=UTC)  # Go's zero time, in JSON null
_MAX_DEPTH = 64
_MAX_MESSAGES = 100_000


class Reading:
    """What one body may cost: messages inside messages, and their number (an empty one takes two bytes)."""

    def __init__(self) -> None:
        self._depth = 0
        self._left = _MAX_MESSAGES

    def __enter__(self) -> None:
        self._depth += 1
        self._left -= 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("exceeded max depth")
        if self._left < 0:
            raise ValueError("too many messages")

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


class Codec(Protocol):
    """How a type travels. `wire` is the wire type; `is_struct`: Go's omitempty never leaves it out."""

    wire: int
    is_struct: bool

    def read(self, raw: Any, reading: Reading) -> Any:
        """Return JSON data of a value on the wire. Raises ValueError."""

    def write(self, value: Any) -> bytes:
        """Return the value as it stands after its tag. Raises ValueError, TypeError."""

    def empty(self) -> Any:
        """Return Go's zero value as JSON shows it."""


class Scalar:
    """A codec of two functions and a zero value."""

    def __init__(
        self,
        read: Callable[[Any], Any],
        write: Callable[[Any], bytes],
        zero: Any,
        *,
        wire: int = BYTES,
        is_struct: bool = False,
    ) -> None:
        self._read = read
        self._write = write
        self._zero = zero
        self._written_zero = write(zero)
        self.wire = wire
        self.is_struct = is_struct

    def read(self, raw: Any, reading: Reading) -> Any:
        """Read."""
        return self._read(raw)

    def write(self, value: Any) -> bytes:
        """Write."""
        return self._written_zero if value is None else self._write(value)

    def empty(self) -> Any:
        """Return the zero value."""
        return self._zero


def _read_text(raw: bytes) -> str:
    return raw.decode(errors="replace")  # Go's strings are bytes, and its JSON encoder does the same to them


def _write_text(value: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"cannot write {type(value).__name__} as a string")
    return delimited(value.encode())


def _signed(bits: int) -> Callable[[int], int]:
    top = 1 << bits - 1
    return lambda raw: ((raw & (1 << bits) - 1) ^ top) - top


def _write_int(value: Any) -> bytes:
    if isinstance(value, bool) or value != int(value):
        raise ValueError(f"cannot write {value!r} as an integer")
    return write_varint(int(value))


def _write_bytes(value: str) -> bytes:
    try:
        return delimited(base64.b64decode(value or "", validate=True))
    except binascii.Error as error:
        raise ValueError(f"illegal base64 data: {error}") from None


def parts(raw: bytes) -> dict[int, Any]:
    """Return the fields of a small message by number, the last of each."""
    return {number: value for number, _, value in fields(raw)}


def _moment(raw: bytes) -> datetime:
    held = parts(raw)
    try:
        seconds = timedelta(seconds=_signed(64)(held.get(1, 0)), microseconds=_signed(32)(held.get(2, 0)) // 1000)
        return _EPOCH + seconds
    except (OverflowError, TypeError):
        raise ValueError("time is out of range") from None


def _write_moment(value: str | None, *, fraction: bool) -> bytes:
    moment = times.parse(value) if value else _ZERO
    if moment == _ZERO:
        return delimited(b"")
    since = moment - _EPOCH
    nanos = since.microseconds * 1000 if fraction else 0
    return delimited(b"\x08" + write_varint(since // timedelta(seconds=1)) + b"\x10" + write_varint(nanos))


def _read_time(raw: bytes) -> str | None:
    return times.time(_moment(raw)) if raw else None


def _read_micro_time(raw: bytes) -> str | None:
    return times.micro_time(_moment(raw)) if raw else None


def _read_quantity(raw: bytes) -> str:
    return quantity.canonical(_read_text(expect_bytes(parts(raw).get(1, b""))) or "0")


def _write_quantity(value: str | int | float) -> bytes:
    return delimited(b"\x0a" + _write_text(str(value)))


def _read_int_or_string(raw: bytes) -> int | str:
    held = parts(raw)
    return _read_text(expect_bytes(held.get(3, b""))) if held.get(1) == 1 else _signed(32)(_number(held.get(2, 0)))


def _write_int_or_string(value: int | str) -> bytes:
    is_text = isinstance(value, str)
    number, text = (b"\0", _write_text(str(value))) if is_text else (_write_int(value), b"\0")
    return delimited(b"\x08" + write_varint(is_text) + b"\x10" + number + b"\x1a" + text)


def expect_bytes(raw: Any) -> bytes:
    """Return a field that must be bytes. Raises ValueError for a number."""
    if not isinstance(raw, bytes):
        raise ValueError("proto: wrong wireType")
    return raw


def _number(raw: Any) -> int:
    if not isinstance(raw, int):
        raise ValueError("proto: wrong wireType")
    return raw


def read_json(raw: bytes) -> Any:
    """Read JSON inside a message. Raises ValueError."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"malformed JSON in a raw field: {error}") from None


def _read_fields(raw: bytes) -> Any:
    held = expect_bytes(parts(raw).get(1, b""))
    return read_json(held) if held else None


def write_json(value: Any) -> bytes:
    """Write a message that holds JSON as its field 1: metav1.FieldsV1, runtime.RawExtension."""
    return delimited(b"" if value is None else b"\x0a" + delimited(msgspec.json.encode(value)))


SCALARS: dict[str, Codec] = {
    "string": Scalar(_read_text, _write_text, ""),
    "bytes": Scalar(lambda raw: base64.b64encode(raw).decode(), _write_bytes, ""),
    "int32": Scalar(_signed(32), _write_int, 0, wire=VARINT),
    "int64": Scalar(_signed(64), _write_int, 0, wire=VARINT),
    "bool": Scalar(bool, lambda value: b"\x01" if value else b"\0", False, wire=VARINT),
    "Quantity": Scalar(_read_quantity, _write_quantity, "0", is_struct=True),
    "IntOrString": Scalar(_read_int_or_string, _write_int_or_string, 0, is_struct=True),
    "Time": Scalar(_read_time, lambda value: _write_moment(value, fraction=False), None, is_struct=True),
    "MicroTime": Scalar(_read_micro_time, lambda value: _write_moment(value, fraction=True), None, is_struct=True),
    "FieldsV1": Scalar(_read_fields, write_json, None, is_struct=True),
}
