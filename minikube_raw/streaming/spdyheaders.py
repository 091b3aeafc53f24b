"""SPDY header blocks: names and values, deflated with the protocol's dictionary, one zlib context a direction and session.

Blocks have to be coded in the order in which their frames travel, for each continues the compression of those before. A
block from outside is bounded before and after inflation. Source: SPDY protocol draft 3.1, section 2.6.10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MAX_BLOCK_BYTES = 64 << 10  # a few short names are all that kubectl sends

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_PAIRS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
_LENGTH = struct.Struct("!I")


def _counted(text: str) -> bytes:
    return _LENGTH.pack(len(text)) + text.encode("latin-1")


DICTIONARY = b"".join(map(_counted, (*_NAMES.split(), *_PAIRS))) + _TEXT.encode()


class HeaderEncoder:
    """Deflates the blocks of one direction."""

    def __init__(self) -> None:
        # The dictionary fits a window of 2 KiB, which costs 9 KiB of memory a session where the default costs 256.
        self._deflate = zlib.compressobj(wbits=11, memLevel=1, zdict=DICTIONARY)

    def encode(self, headers: Mapping[str, str]) -> bytes:
        """Return the block; several values of one name are joined by NUL already, as on the wire."""
        plain = _LENGTH.pack(len(headers))
        plain += b"".join(_counted(name.lower()) + _counted(value) for name, value in headers.items())
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecoder:
    """Inflates the blocks of one direction."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def decode(self, block: bytes) -> dict[str, str]:
        """Return names in lower case and values. Raises ValueError for what is no header block; the session is over."""
        try:
            plain = self._inflate.decompress(block, MAX_BLOCK_BYTES)
        except zlib.error as error:
            raise ValueError(f"header block: {error}") from error
        if self._inflate.unconsumed_tail or len(plain) == MAX_BLOCK_BYTES:
            raise ValueError(f"header block of more than {MAX_BLOCK_BYTES} bytes")
        return _parse(plain)


def _parse(plain: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    try:
        (count,) = _LENGTH.unpack_from(plain)
        offset = _LENGTH.size
        for _ in range(count):
            name, offset = _text(plain, offset)
            headers[name], offset = _text(plain, offset)
    except struct.error as error:
        raise ValueError("header block ends early") from error
    if len(headers) != count or offset != len(plain):
        raise ValueError("header block has repeated names or trailing bytes")
    if any(not name or name != name.lower() for name in headers):
        raise ValueError("header names are not empty and in lower case")
    return headers


def _text(plain: bytes, offset: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(plain, offset)
    begin = offset + _LENGTH.size
    text = plain[begin : begin + length]
    if len(text) < length:
        raise ValueError("header block ends early")
    return text.decode("latin-1"), begin + length
