"""Reads tar archives from a stream, in order, with bounded memory: ustar, GNU and pax headers, GNU sparse files.

The standard library's tarfile is not used on hostile input: it reads a whole extended header into memory whatever its
size, remembers every member, and older 3.11 releases loop or backtrack on crafted headers (CVE-2024-6232,
CVE-2025-8194). Formats: POSIX pax (IEEE 1003.1 "pax"), tar(5), and the GNU tar manual's "Storing Sparse Files".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

BLOCK = 512
CHUNK = 1 << 18
MAX_EXTENDED = 1 << 20  # one pax or GNU long-name header; Go's archive/tar draws the same line
MAX_SPARSE_SEGMENTS = 1 << 16

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_AS_REGULAR = (b"\0", b"7", b"S")
_KNOWN = (REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_XATTR = b"SCHILY.xattr."


class TarError(ValueError):
    """The bytes are not a tar archive, or a cut-off or contradictory one."""


class Entry(NamedTuple):
    """One member. Names and link targets are bytes as in the archive; `size` is the file's size once unpacked."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    size: int
    link: bytes
    xattrs: dict[bytes, bytes]


class _Header(NamedTuple):
    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    link: bytes
    block: bytes


class TarReader:
    """Iterates over entries; `content()` gives the current regular file's data and must be asked before the next entry.

    `stream` needs only read(n), which may return less than asked before the end.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = 0  # bytes of the current member's data not yet read
        self._padding = 0
        self._segments: list[tuple[int, int]] = []
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def content(self) -> Iterator[tuple[int, bytes]]:
        """(offset in the file, bytes) of the current entry, ascending; holes of a sparse file are left out."""
        for offset, length in self._segments:
            while length:
                data = self._exactly(min(length, CHUNK))
                self._left -= len(data)
                yield offset, data
                offset += len(data)
                length -= len(data)

    def drain(self) -> None:
        """Read what follows the end of the archive, so that a digest over the stream covers all of it."""
        while self._stream.read(CHUNK):
            pass

    def _next(self) -> Entry | None:
        self._skip(self._left + self._padding)
        extended: dict[bytes, bytes] = {}
        long_name = long_link = None
        while (header := self._header()) is not None:
            if header.type in (b"x", b"X"):
                extended = _pax_records(self._extended(header))
            elif header.type == b"g":
                self._global.update(_pax_records(self._extended(header)))
            elif header.type == b"L":
                long_name = self._extended(header).rstrip(b"\0")
            elif header.type == b"K":
                long_link = self._extended(header).rstrip(b"\0")
            else:
                if long_name is not None:
                    header = header._replace(name=long_name)
                if long_link is not None:
                    header = header._replace(link=long_link)
                return self._member(header, {**self._global, **extended})
        if extended or long_name or long_link:
            raise TarError("the archive ends between an extended header and its member")
        return None

    def _member(self, header: _Header, pax: dict[bytes, bytes]) -> Entry:
        size = _decimal(pax, b"size", header.size)
        entry = Entry(
            name=pax.get(b"path", header.name),
            type=_type_of(header),
            mode=header.mode & 0o7777,
            uid=_decimal(pax, b"uid", header.uid),
            gid=_decimal(pax, b"gid", header.gid),
            mtime=_seconds(pax.get(b"mtime"), header.mtime),
            size=size,
            link=pax.get(b"linkpath", header.link),
            xattrs={key.removeprefix(_XATTR): value for key, value in pax.items() if key.startswith(_XATTR)},
        )
        if b"\0" in entry.name or b"\0" in entry.link:
            raise TarError(f"a name contains a NUL byte: {entry.name!r}")
        if entry.type != REGULAR:  # as Go's reader: only regular files have data, whatever the size field says
            size = 0
        self._left, self._padding = size, -size % BLOCK
        self._segments = [(0, size)]
        if header.type == b"S":
            return self._old_sparse(entry, header.block)
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            return self._pax_sparse(entry, pax)
        return entry

    def _old_sparse(self, entry: Entry, block: bytes) -> Entry:
        """GNU type S: four segments in the header, 21 more in each extension block that follows it."""
        fields, more = block[386:482], block[482]
        real_size = _number(block[483:495])
        segments = _sparse_pairs(fields)
        while more:
            block = self._exactly(BLOCK)
            segments += _sparse_pairs(block[:504])
            more = block[504]
            if len(segments) > MAX_SPARSE_SEGMENTS:
                raise TarError(f"{entry.name!r} has more than {MAX_SPARSE_SEGMENTS} sparse segments")
        return self._sparse(entry, segments, real_size)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> Entry:
        """GNU sparse format 1.0: the map is decimal lines at the start of the member's data, padded to a block."""
        if pax.get(b"GNU.sparse.major") != b"1" or pax.get(b"GNU.sparse.minor") != b"0":
            raise TarError(f"{entry.name!r} is a sparse file of a format other than GNU's old one and 1.0")
        lines = self._map_lines()
        count = next(lines)
        if count > MAX_SPARSE_SEGMENTS:
            raise TarError(f"{entry.name!r} has more than {MAX_SPARSE_SEGMENTS} sparse segments")
        segments = [(next(lines), next(lines)) for _ in range(count)]
        entry = entry._replace(name=pax.get(b"GNU.sparse.name", entry.name))
        return self._sparse(entry, segments, _decimal(pax, b"GNU.sparse.realsize", -1))

    def _map_lines(self) -> Iterator[int]:
        buffer = b""
        while True:
            while b"\n" not in buffer:
                if self._left < BLOCK or len(buffer) > BLOCK:
                    raise TarError("a sparse map ends early")
                buffer += self._exactly(BLOCK)
                self._left -= BLOCK
            line, _, buffer = buffer.partition(b"\n")
            yield _digits(line)

    def _sparse(self, entry: Entry, segments: list[tuple[int, int]], real_size: int) -> Entry:
        end = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise TarError(f"{entry.name!r} has overlapping sparse segments")
            end = offset + length
        if end > real_size or sum(length for _, length in segments) > self._left:
            raise TarError(f"{entry.name!r} has sparse segments beyond its size")
        self._segments = segments
        return entry._replace(size=real_size)

    def _header(self) -> _Header | None:
        block = self._read(BLOCK)
        if not block.strip(b"\0"):
            return None  # a block of zeros, or the end of the stream
        if len(block) < BLOCK:
            raise TarError("the archive ends inside a header")
        return _parse_header(block)

    def _extended(self, header: _Header) -> bytes:
        if header.size > MAX_EXTENDED:
            raise TarError(f"an extended header of {header.size} bytes (at most {MAX_EXTENDED} are read)")
        data = self._exactly(header.size)
        self._skip(-header.size % BLOCK)
        return data

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, CHUNK)))

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) < count:
            raise TarError("the archive ends inside a member")
        return data

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        while len(data) < count and (more := self._stream.read(count - len(data))):
            data += more
        return data


def _parse_header(block: bytes) -> _Header:
    checksum = block[148:156].strip(b" \0")
    if checksum.strip(b"01234567") or int(checksum or b"0", 8) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise TarError("not a tar archive: a header's checksum is wrong")
    name, prefix = _text(block[0:100]), _text(block[345:500])
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    header = _Header(
        name=name,
        mode=_number(block[100:108]),
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_number(block[124:136]),
        mtime=_number(block[136:148]),
        type=block[156:157],
        link=_text(block[157:257]),
        block=block,
    )
    if header.size < 0:
        raise TarError(f"{name!r} has a negative size")
    return header


def _type_of(header: _Header) -> bytes:
    kind = REGULAR if header.type in _AS_REGULAR else header.type
    if kind == REGULAR and header.type == b"\0" and header.name.endswith(b"/"):
        return DIRECTORY  # Unix V7 had no type for directories
    if kind not in _KNOWN:
        raise TarError(f"{header.name!r} is of unknown type {kind!r}")
    return kind


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base-256 when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise TarError(f"not an octal number: {field!r}")
    return int(digits, 8)


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise TarError(f"not a decimal number: {text[:40]!r}")
    return int(text)


def _decimal(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    return _digits(pax[key]) if key in pax else default


def _seconds(text: bytes | None, default: float) -> float:
    if text is None:
        return default
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    seconds = float(_digits(whole)) + (float(_digits(fraction[:9])) / 10 ** len(fraction[:9]) if fraction else 0.0)
    return -seconds if text.startswith(b"-") else seconds


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """`"%d %s=%s\\n"` records, where the number counts the whole record."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        digits = data[position : position + 21].partition(b" ")[0]
        end = position + _digits(digits)
        record = data[position + len(digits) + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key or end <= position + len(digits):
            raise TarError("a malformed pax record")
        records[key] = value
        position = end
    return records


def _sparse_pairs(fields: bytes) -> list[tuple[int, int]]:
    pairs = [(fields[at : at + 12], fields[at + 12 : at + 24]) for at in range(0, len(fields) - 23, 24)]
    return [(_number(offset), _number(length)) for offset, length in pairs if length[0]]
