"""Reads container logs as `kubectl logs` asks for them: tail, since, timestamps, a limit of bytes, following.

Files are in CRI's format (`runtime.logs` writes them). Following waits for the directory to change, never polls, and ends
once the container has ended and everything is read; a slow reader holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

import msgspec

from minikube_raw.api import times
from minikube_raw.client.clock import micro_timestamp

_CHUNK = 1 << 18


class LogOptions(msgspec.Struct, frozen=True):
    """core/v1.PodLogOptions; since is RFC 3339 or empty."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: str = ""


def parse_options(query: Mapping[str, str], now: float) -> LogOptions:
    """Options from a query string. Raises ValueError naming the parameter that is wrong."""
    since_time = query.get("sinceTime", "")
    seconds = _number(query, "sinceSeconds", least=1)
    if since_time and seconds is not None:
        raise ValueError("sinceTime, sinceSeconds: may only be used one at a time")
    if since_time:
        since_time = times.micro_time(times.parse(since_time))
    if seconds is not None:
        since_time = micro_timestamp(now - seconds)
    return LogOptions(
        follow=_truth(query, "follow"),
        previous=_truth(query, "previous"),
        timestamps=_truth(query, "timestamps"),
        tail_lines=_number(query, "tailLines", least=0),
        limit_bytes=_number(query, "limitBytes", least=1),
        since=since_time,
    )


def _truth(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "false").lower() in ("true", "1", "t", "")


def _number(query: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        raise ValueError(f"{name}: Invalid value: {text!r}: must be greater than or equal to {least}")
    return int(text)


async def read(
    path: str, options: LogOptions, ended: Callable[[], bool], changed: Callable[[], asyncio.Event]
) -> AsyncIterator[bytes]:
    """Yield what a client gets of a log file, in chunks. `changed()` gives an event set at the next change."""
    left = options.limit_bytes
    async for chunk in _chunks(path, options, ended, changed):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


async def _chunks(
    path: str, options: LogOptions, ended: Callable[[], bool], changed: Callable[[], asyncio.Event]
) -> AsyncIterator[bytes]:
    renderer = Renderer(options.timestamps, options.since)
    file = await asyncio.to_thread(_open_at_tail, path, options.tail_lines)
    try:
        while True:
            event, over = changed(), ended()  # asked before reading: what changes while we read is not missed
            while chunk := file.read(_CHUNK):
                yield renderer.render(chunk)
                await asyncio.sleep(0)
            replaced = _replaced(path, file)
            if replaced is not None:
                file.close()
                file = replaced
            elif not options.follow or over:
                return
            else:
                await event.wait()
    finally:
        file.close()


def _open_at_tail(path: str, lines: int | None) -> BinaryIO:
    file = open(path, "rb", buffering=0)  # noqa: SIM115 -- the follower closes it, when it ends or the file is rotated
    if lines is not None:
        file.seek(tail_offset(file, lines))
    return file


def _replaced(path: str, file: BinaryIO) -> BinaryIO | None:
    """The new file when the log was rotated under us."""
    try:
        if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            return open(path, "rb", buffering=0)
    except FileNotFoundError:
        pass
    return None


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    end = position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return end
    wanted = lines + 1  # the last line's own new line counts, too
    while position > 0:
        start = max(0, position - _CHUNK)
        file.seek(start)
        block = file.read(position - start)
        count = block.count(b"\n")
        if count >= wanted:
            index = len(block)
            for _ in range(wanted):
                index = block.rindex(b"\n", 0, index)
            return start + index + 1
        wanted -= count
        position = start
    return 0


class Renderer:
    """Turns records into what a client sees; keeps an unfinished record between chunks."""

    def __init__(self, timestamps: bool, since: str) -> None:
        self._timestamps = timestamps
        self._since = since.encode()
        self._rest = b""
        self._in_line = False

    def render(self, chunk: bytes) -> bytes:
        """The text of the complete records in `chunk` and what was left before."""
        *records, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(self._texts(records))

    def _texts(self, records: Iterable[bytes]) -> Iterator[bytes]:
        for record in records:
            parts = record.split(b" ", 3)
            if len(parts) != 4:
                continue  # a record that a crash cut off
            stamp, _stream, tag, text = parts
            if self._since and _comparable(stamp) < _comparable(self._since):
                continue
            if self._timestamps and not self._in_line:
                yield stamp + b" "
            self._in_line = tag.startswith(b"P")
            yield text if self._in_line else text + b"\n"


def _comparable(stamp: bytes) -> bytes:
    """A UTC time stamp in a form whose order is time's, however many digits its second has."""
    whole, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0")
