"""Bytes between a container's streams, its log and attached clients, inside the keeper.

Output goes from the container's FIFO through a staging FIFO into the log: where a piece will begin in the log is noted before
it enters the staging, and it leaves the staging only when the log has it. The launcher holds both FIFOs, so a keeper that is
killed anywhere in between loses nothing and repeats nothing: the next one cuts the log there and logs the staged piece again.
"""

from __future__ import annotations

import os
import struct

from minikube_raw.linux import pipes

from . import wire
from .loop import READABLE, WRITABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .container import Pod
    from .logs import LogFile
    from .loop import Loop

PIPE_SIZE = 1 << 20
STAGING_SIZE = 1 << 18
_CHUNK = 1 << 16
_DISK_SECONDS = 1.0
_NOT_IN_LOG = 2**63 - 1


class Output:
    """One stream of a container on its way to the log and to whoever is attached. Owns its descriptors."""

    def __init__(self, pod: Pod, log: LogFile, name: str, source: int, staging: int, offset_path: str) -> None:
        self._pod, self._log, self._name = pod, log, name
        self._source, self._staging = source, staging
        self._offset = os.open(offset_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.taps: list[int] = []
        if pipes.waiting(staging):
            self._log.cut(struct.unpack("q", os.pread(self._offset, 8, 0))[0])
            self._note(self._log.size)
            self._log_staged()
        pod.loop.watch(source, self.copy)

    def copy(self) -> bool:
        """Copies one piece; False when there is nothing (more) to read or the disk is full."""
        self._note(self._log.size)
        try:
            moved = pipes.move(self._source, self._staging, STAGING_SIZE)
        except BlockingIOError:
            return bool(pipes.waiting(self._staging)) and self._log_staged()
        except OSError:  # EIO: a terminal whose last user has gone
            moved = 0
        if moved:
            return self._log_staged()
        self._pod.loop.forget(self._source)
        return False

    def _note(self, offset: int) -> None:
        """Notes where in the log what is (or will be) staged begins: the next keeper cuts there if it finds something staged."""
        os.pwrite(self._offset, struct.pack("q", offset), 0)

    def _log_staged(self) -> bool:
        chunk = pipes.peek(self._staging, self._pod.scratch, STAGING_SIZE)
        if not self._log.write(self._name, chunk):
            self._note(_NOT_IN_LOG)  # the other stream may write there meanwhile
            self._pod.loop.forget(self._source)
            self._pod.loop.call_later(_DISK_SECONDS, self._resume)
            return False
        os.read(self._staging, len(chunk))
        for tap in list(self.taps):
            self._tap(tap, chunk)
        return True

    def _resume(self) -> None:
        """Tries the disk again; reading goes on once it has taken what is staged."""
        if self._source < 0:
            return
        self._note(self._log.size)
        if self._log_staged():
            self._pod.loop.watch(self._source, self.copy)

    def _tap(self, tap: int, chunk: bytes) -> None:
        """Gives a copy to an attached client; one that does not keep up is cut off rather than waited for."""
        try:
            if os.write(tap, chunk) == len(chunk):
                return
        except OSError:
            pass
        self.untap(tap)

    def untap(self, tap: int) -> None:
        """Ends an attachment."""
        if tap in self.taps:
            self.taps.remove(tap)
            wire.hang_up(tap)

    def close(self) -> None:
        """Stops copying."""
        for tap in list(self.taps):
            self.untap(tap)
        self._pod.loop.forget(self._source)
        wire.close([self._source, self._staging, self._offset])
        self._source = self._staging = self._offset = -1


class Input:
    """Bytes from an attached client to a container's standard input or terminal, never faster than it reads."""

    def __init__(self, loop: Loop, source: int, sink: int, at_end: Callable[[], None]) -> None:
        self._loop, self._source, self._sink, self._at_end = loop, source, sink, at_end
        self._pending = b""
        loop.watch(source, self._read)

    def _read(self) -> None:
        try:
            self._pending = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""
        if not self._pending:
            self.close()
            self._at_end()
            return
        self._write()

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._sink, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._pending:
            self._loop.forget(self._source)
            self._loop.watch(self._sink, self._write, WRITABLE)
        else:
            self._loop.forget(self._sink)
            self._loop.watch(self._source, self._read, READABLE)

    def close(self) -> None:
        """Ends the flow; the sink stays open, it is not ours."""
        if self._source >= 0:
            self._loop.forget(self._source)
            self._loop.forget(self._sink)
            os.close(self._source)
            self._source = -1
