"""Output is copied in whole lines, and a keeper killed between any two steps of that loses and doubles nothing for the next."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.linux import fds
from minikube_raw.runtime import copying, wire
from minikube_raw.runtime.copying import STAGING_SIZE, Output
from minikube_raw.runtime.cri import LinuxContainerResources
from minikube_raw.runtime.logs import LogFile
from minikube_raw.runtime.loop import Loop


class Killed(BaseException):
    """The keeper is no more."""


class Keeper:
    """What an Output needs of its pod; dies at the n-th of its system calls on staging, log and note."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dies_at: int) -> None:
        self.loop, self.scratch = Loop(), os.pipe2(os.O_CLOEXEC)
        fds.set_pipe_size(self.scratch[1], STAGING_SIZE)
        self._left = dies_at
        for name in ("read", "pwrite", "write", "splice"):
            monkeypatch.setattr(copying.os, name, self._mortal(getattr(os, name)))

    def end_waits(self) -> None:
        """Lets all timers of now run, as if their time had come."""
        due, self.loop._timers = self.loop._timers, []
        for _, function in due:
            function()

    def _mortal(self, call):
        def called(*arguments, **options):
            self._left -= 1
            if self._left == 0:
                raise Killed
            return call(*arguments, **options)

        return called


ENDLESS = 10**9
write = os.write  # the container's, which outlives its keeper


@pytest.mark.parametrize("again", [1, 2, 3, 4, ENDLESS], ids=lambda step: f"the second at step {step}")
@pytest.mark.parametrize("size", [11, 1], ids=["pieces", "pieces that the staging has no room for"])
def test_the_next_keeper_goes_on_exactly_there(tmp_path: Path, size: int, again: int) -> None:
    text = b"one\ntwo\nthree\nfour, which is a long one\n"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    for dies_at in itertools.count(1):
        place = tmp_path / str(dies_at)
        place.mkdir()
        held = [fd for name in ("source", "staging") for fd in fifo(place / name)[:1]]  # as the launcher holds them
        sent, survived = run_keeper(place, dies_at, pieces)
        for keeper_after in (again, ENDLESS):
            run_keeper(place, keeper_after, [])
        wire.close(held)
        assert logged(place / "log") == sent, dies_at
        if survived:
            return


def run_keeper(place: Path, dies_at: int, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Runs a keeper until all is copied or it dies; returns what was written until then, and whether it lived."""
    sent = b""
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(Killed), contextlib.ExitStack() as at_death:
        keeper, log = Keeper(monkeypatch, dies_at), LogFile(str(place / "log"))
        source, staging = (os.open(place / name, os.O_RDWR | os.O_NONBLOCK) for name in ("source", "staging"))
        output = Output.__new__(Output)  # to have it also when it dies in its making
        at_death.callback(lambda: (output.close(), log.close(), wire.close(keeper.scratch)))
        Output.__init__(output, keeper, log, "stdout", source, staging, str(place / "offset"))  # type: ignore[arg-type]
        for piece in pieces:
            sent += piece
            write(source, piece)
            output.copy()
        output.drain()
        return sent, True
    return sent, False


def logged(log: Path) -> bytes:
    found = re.findall(rb"^\S+ stdout ([FP]) (.*)$", log.read_bytes(), re.M)
    return b"".join(body + (b"\n" if tag == b"F" else b"") for tag, body in found)


class Stream:
    """A container's stream as its keeper has it, and the end that the container writes to."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keeper, self._log = Keeper(monkeypatch, 10**9), directory / "log"
        self.writer, source, *staging = (fd for name in ("source", "staging") for fd in fifo(directory / name))
        fds.set_pipe_size(staging[0], STAGING_SIZE)
        self._held = staging[0]
        self.output = Output(
            self.keeper, LogFile(str(self._log)), "stdout", source, staging[1], str(directory / "offset")
        )  # type: ignore[arg-type]

    def records(self) -> list[bytes]:
        return [record.split(b" ", 2)[2] for record in self._log.read_bytes().splitlines()]

    def close(self) -> None:
        self.output.close()
        wire.close([self.writer, self._held, *self.keeper.scratch])


def fifo(path: Path) -> list[int]:
    os.mkfifo(path)
    return [os.open(path, os.O_RDWR | os.O_NONBLOCK) for _ in range(2)]


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    made = Stream(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("size", [7, 1024, 4096, 4097, 65_000])
def test_no_line_is_cut_where_a_write_or_a_read_ended(stream: Stream, size: int) -> None:
    lines = [b"%d" % number for number in range(20_000)]
    written = b"\n".join(lines) + b"\n"
    for start in range(0, len(written), size):
        assert os.write(stream.writer, written[start : start + size]) == len(written[start : start + size])
        stream.output.copy()
    stream.output.drain()
    assert stream.records() == [b"F " + line for line in lines]


def test_a_rest_that_came_just_before_its_wait_ended_still_belongs_to_the_line(stream: Stream) -> None:
    os.write(stream.writer, b"one\ntw")
    stream.output.copy()
    os.write(stream.writer, b"o\n")
    stream.keeper.end_waits()
    assert stream.records() == [b"F one", b"F two"]


def test_a_line_without_a_rest_is_logged_as_a_piece_when_its_wait_ends(stream: Stream) -> None:
    os.write(stream.writer, b"name? ")
    stream.output.copy()
    assert stream.records() == []
    stream.keeper.end_waits()
    assert stream.records() == [b"P name? "]


def test_a_line_of_more_pieces_than_a_pipe_has_room_for_is_whole(stream: Stream) -> None:
    for _ in range(500):
        os.write(stream.writer, b".")
        stream.output.copy()
    os.write(stream.writer, b"\n")
    stream.output.copy()
    assert stream.records() == [b"F " + b"." * 500]


def test_a_line_waits_longer_than_a_cpu_limit_stops_its_writer() -> None:
    assert 3 * LinuxContainerResources().cpu_period < copying.REST_SECONDS * 1e6
