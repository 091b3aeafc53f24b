"""The protobuf wire format: varints, tags and length-delimited fields, read from and written to bytes.

It knows no message. Malformed input is a ValueError in the words of Go's decoder (gogo/protobuf), never anything else.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10  # bytes of a 64-bit number
_ONE_BYTE = [bytes([length]) for length in range(0x80)]


def write_varint(value: int) -> bytes:
    """Write a number of at most 64 bits; negative ones take ten bytes, as protobuf's int32 and int64 do."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at an offset, unsigned, and the offset after it. Raises ValueError."""
    if at < len(data) and data[at] < 0x80:  # most of all numbers, and worth a third of the time
        return data[at], at + 1
    value = shift = 0
    for offset in range(at, min(at + _MAX_VARINT, len(data))):
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, offset + 1
        shift += 7
    raise ValueError("proto: integer overflow" if at + _MAX_VARINT <= len(data) else "unexpected EOF")


def tag(number: int, wire: int) -> bytes:
    """Write what stands before a field's value."""
    return write_varint(number << 3 | wire)


def delimited(payload: bytes) -> bytes:
    """Write bytes with their length in front."""
    if len(payload) < 0x80:
        return _ONE_BYTE[len(payload)] + payload
    return write_varint(len(payload)) + payload


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (number, wire type, value) of a message's fields as they stand. Raises ValueError."""
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"proto: illegal tag {number} (wire type {wire})")
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = read_varint(data, at)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError(f"proto: illegal wireType {wire}")
        if size > end - at:
            raise ValueError("unexpected EOF")
        yield number, wire, data[at : at + size]
        at += size
