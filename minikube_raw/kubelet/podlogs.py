"""Reads container logs as `kubectl logs` asks for them: tail, since, timestamps, a limit of bytes, following.

Files are in CRI's format (`runtime.logs` writes them) and are read over all of a rotated log. Following waits for the directory to
change, never polls, and ends once the container has ended and everything is read; a slow reader holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol

import msgspec

from minikube_raw.api import times
from minikube_raw.client.clock import micro_timestamp
from minikube_raw.kubelet.logfiles import CHUNK, Reading, is_compressed, replaced

STREAMS = ("All", "Stderr", "Stdout")


class LogOptions(msgspec.Struct, frozen=True):
    """core/v1.PodLogOptions; since is RFC 3339 or empty, stream is Stdout, Stderr or empty."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: str = ""
    stream: str = ""


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
    stream = query.get("stream", "")
    if stream not in ("", *STREAMS):
        raise ValueError(f'stream: Unsupported value: "{stream}": supported values: "All", "Stderr", "Stdout"')
    return LogOptions(
        stream="" if stream == "All" else stream,
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


class Follower(Protocol):
    """Tells a reader that follows when there may be more, and when there will be none."""

    def has_ended(self) -> bool:
        """Whether nothing will be written any more."""
        ...

    def next_change(self) -> asyncio.Event:
        """An event that is set at the next change."""
        ...


async def read(reading: Reading, options: LogOptions, follower: Follower) -> AsyncIterator[bytes]:
    """Yield what a client gets of a log, in chunks."""
    left = options.limit_bytes
    async for chunk in _chunks(reading, options, follower):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


async def _chunks(reading: Reading, options: LogOptions, follower: Follower) -> AsyncIterator[bytes]:
    renderer = Renderer(options)
    while not reading.is_current:
        event, over = follower.next_change(), follower.has_ended()
        opened = reading.next()
        if opened is None:
            if not options.follow or over:
                return
            await event.wait()  # between a rotation and the new file
            continue
        file, start = opened
        try:
            async for chunk in _records(file, start, reading, options, follower):
                yield renderer.render(chunk)
                await asyncio.sleep(0)
        finally:
            reading.leave(file)


async def _records(
    file: BinaryIO, start: int, reading: Reading, options: LogOptions, follower: Follower
) -> AsyncIterator[bytes]:
    """Yield one file to its end; of the current one, when following, until it is rotated or the container has ended."""
    compressed = is_compressed(file)
    if start:
        await asyncio.to_thread(file.seek, start)
    while True:
        # Asked before reading: what changes while we read is not missed.
        event, over, put_away = follower.next_change(), follower.has_ended(), reading.is_put_away
        if reading.is_current and replaced(reading.path, file):  # by somebody who tells nobody
            reading.rotated_to("")
            put_away = True
        while chunk := await asyncio.to_thread(file.read, CHUNK) if compressed else file.read(CHUNK):
            yield chunk
        if put_away or not options.follow or over:
            return
        await event.wait()


class Renderer:
    """Turns records into what a client sees; keeps an unfinished record between chunks."""

    def __init__(self, options: LogOptions) -> None:
        self._timestamps = options.timestamps
        self._since = options.since.encode()
        self._stream = options.stream.lower().encode()
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
            stamp, stream, tag, text = parts
            if self._stream and stream != self._stream:
                continue
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
