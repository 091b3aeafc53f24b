"""Opens a blob as the plain stream inside it: gzip, zstd or nothing, told by the first bytes.

Media types name the compression too, but docker-save archives have none and registries lie; containerd looks at the
bytes as well. Damage in the compressed data comes out as CompressionError.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO, cast

import zstandard

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGICS = (
    b"\x28\xb5\x2f\xfd",
    *(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16)),
)  # the latter: skippable frames
MAX_WINDOW = 1 << 27  # what `zstd -d` accepts without --long; more would let a blob choose our memory


class CompressionError(ValueError):
    """The compressed data is cut off or damaged."""


class _Decompressed(io.RawIOBase):
    """Any decompressor's stream, with its several exceptions made one."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        try:
            data = self._source.read(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise CompressionError(f"the compressed data is damaged: {error}") from error
        view[: len(data)] = data
        return len(data)


def open_plain(blob: io.BufferedReader) -> IO[bytes]:
    """A buffered stream of the decompressed bytes of `blob`, which must stay open; it need not be seekable."""
    magic = blob.peek(4)[:4]
    if magic.startswith(GZIP_MAGIC):
        return io.BufferedReader(_Decompressed(cast(IO[bytes], gzip.GzipFile(fileobj=blob))), 1 << 18)
    if magic in ZSTD_MAGICS:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        source = decompressor.stream_reader(blob, read_across_frames=True, closefd=False)
        return io.BufferedReader(_Decompressed(cast(IO[bytes], source)), 1 << 18)
    return blob


def suffix(blob: io.BufferedReader) -> str:
    """What the OCI layer media type ends with for this blob: `+gzip`, `+zstd` or nothing."""
    magic = blob.peek(4)[:4]
    return "+gzip" if magic.startswith(GZIP_MAGIC) else "+zstd" if magic in ZSTD_MAGICS else ""
