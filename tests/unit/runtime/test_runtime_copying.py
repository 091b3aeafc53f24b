"""A keeper killed between any two steps of copying output: the next one loses and doubles nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from minikube_raw.linux import fds
from minikube_raw.runtime import copying
from minikube_raw.runtime.copying import STAGING_SIZE, Output
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

    def _mortal(self, call):
        def called(*arguments, **options):
            self._left -= 1
            if self._left == 0:
                raise Killed
            return call(*arguments, **options)

        return called


@pytest.mark.parametrize("dies_at", range(1, 20))
def test_the_next_keeper_goes_on_exactly_there(tmp_path: Path, dies_at: int) -> None:
    source, staging = tmp_path / "source", tmp_path / "staging"
    held = []
    for fifo in (source, staging):
        os.mkfifo(fifo)
        held.append(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # as the launcher holds them
    os.write(held[0], b"one\ntwo\nthr")
    descriptors = [os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in (source, staging)]

    with pytest.MonkeyPatch.context() as monkeypatch:
        keeper = Keeper(monkeypatch, dies_at)
        try:
            output = Output(keeper, LogFile(str(tmp_path / "log")), "stdout", *descriptors, str(tmp_path / "offset"))  # type: ignore[arg-type]
            output.copy()
            os.write(held[0], b"ee\nfour\n")
            output.copy()
        except Killed:
            pass
    written = b"one\ntwo\nthree\nfour\n"
    with pytest.MonkeyPatch.context() as monkeypatch:
        keeper = Keeper(monkeypatch, 10**9)
        descriptors = [os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in (source, staging)]
        output = Output(keeper, LogFile(str(tmp_path / "log")), "stdout", *descriptors, str(tmp_path / "offset"))  # type: ignore[arg-type]
        output.drain()
    log = (tmp_path / "log").read_bytes()
    text = b"".join(
        body + (b"\n" if tag == b"F" else b"") for tag, body in re.findall(rb"^\S+ stdout ([FP]) (.*)$", log, re.M)
    )
    assert text in (written, b"one\ntwo\nthr"), log  # the second when it died before more was written
    for fd in held:
        os.close(fd)
