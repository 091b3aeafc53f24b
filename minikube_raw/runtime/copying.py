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
from .logs import MAX_LINE
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
DISK_SECONDS = 1.0
# How long an unfinished line may wait for its rest, at least: several of the periods (100 ms) for which a CPU limit stops its writer
REST_SECONDS = 0.5
_NOT_IN_LOG = 2**63 - 1
_PACKING = -1  # in the place of how much the log has: what is staged stands behind the note, and is being put together
_NOTE = struct.Struct("qqq")


class Output:
    """One stream of a container on its way to the log and to whoever is attached. Owns its descriptors."""

    def __init__(self, pod: Pod, log: LogFile, name: str, source: int, staging: int, offset_path: str) -> None:
        self._pod, self._log, self._name = pod, log, name
        self._source, self._staging = source, staging
        self._offset = os.open(offset_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.taps: list[int] = []
        self._tapped = 0  # bytes of what is staged that attached clients have already
        self._refused = False  # the disk did not take what is staged
        self._held = 0  # counts the times that an unfinished line was held back
        self._waits_for_rest = False
        offset, logged, staged = _NOTE.unpack(os.pread(self._offset, _NOTE.size, 0).ljust(_NOTE.size, b"\0"))
        if logged == _PACKING:
            self._stage_again(os.pread(self._offset, staged, _NOTE.size))
            logged = 0
        if waiting := pipes.waiting(staging):
            if logged and waiting == staged:
                os.read(staging, logged)
            self._log.cut(offset)
            self._note(self._log.size)
            self._log_rest()
        pod.loop.watch(source, self.copy)

    def copy(self) -> bool:
        """Copies one piece; False when there is nothing (more) to read or the disk is full."""
        self._note(self._log.size)
        try:
            moved = pipes.move(self._source, self._staging, STAGING_SIZE)
        except BlockingIOError:
            if pipes.full(self._staging) and self._pack():
                return self.copy()
            return self._log_rest()
        except OSError:  # EIO: a terminal whose last user has gone
            moved = 0
        if moved:
            return self._log_staged(hold=True)
        self._pod.loop.forget(self._source)
        return self._log_rest()

    def _log_rest(self) -> bool:
        """Logs what was held back; False when there is nothing."""
        return bool(pipes.waiting(self._staging)) and self._log_staged()

    def _pack(self) -> bool:
        """Puts the pieces of an unfinished line together: a pipe has room for few pieces, however small. False when they cannot be.

        They stand behind the note until the next one is made, so a keeper that is killed here loses none.
        """
        staged = pipes.peek(self._staging, self._pod.scratch, STAGING_SIZE)
        if self._refused or len(staged) >= MAX_LINE:
            return False
        try:
            os.pwrite(self._offset, staged, _NOTE.size)
        except OSError:
            return False
        self._note(_NOT_IN_LOG, _PACKING, len(staged))
        self._stage_again(staged)
        return True

    def _stage_again(self, staged: bytes) -> None:
        """Puts what stands behind the note in the place of what is staged."""
        if waiting := pipes.waiting(self._staging):
            os.read(self._staging, waiting)
        os.write(self._staging, staged)

    def drain(self) -> bool:
        """Copies all there is; False when the disk did not take it."""
        while self.copy():
            pass
        return not self._refused

    def _note(self, offset: int, logged: int = 0, staged: int = 0) -> None:
        """Notes where in the log what is (or will be) staged begins: the next keeper cuts there if it finds something staged.

        Before a part only leaves the staging: how many of how many bytes the log has already.
        """
        os.pwrite(self._offset, _NOTE.pack(offset, logged, staged), 0)

    def _log_staged(self, *, hold: bool = False) -> bool:
        """Moves what is staged into the log, with `hold` all but an unfinished line, whose rest may come in a moment."""
        staged = pipes.peek(self._staging, self._pod.scratch, STAGING_SIZE)
        held = (len(staged) - staged.rfind(b"\n") - 1) % MAX_LINE if hold else 0
        chunk = staged[:-held] if held else staged
        self._refused = not self._log.write(self._name, chunk)
        if held:
            self._wait_for_rest()
        self._tap(staged)  # what a client sees of whole lines is in the log
        if self._refused:
            self._pod.loop.forget(self._source)
            self._pod.loop.call_later(DISK_SECONDS, self._resume)
        if self._refused or held:  # what stays staged: the other stream may write to the log meanwhile
            self._note(_NOT_IN_LOG, 0 if self._refused else len(chunk), len(staged))
        if chunk and not self._refused:
            os.read(self._staging, len(chunk))
            self._tapped -= len(chunk)
        return not self._refused

    def _wait_for_rest(self) -> None:
        """Logs an unfinished line as a piece when its rest does not come soon: a prompt has to be seen."""
        self._held += 1
        if not self._waits_for_rest:
            self._waits_for_rest = True
            held = self._held
            self._pod.loop.call_later(REST_SECONDS, lambda: self._stop_waiting(held))

    def _stop_waiting(self, held: int) -> None:
        self._waits_for_rest = False
        if self._source < 0 or self._refused or not pipes.waiting(self._staging):
            return
        if held != self._held:  # another line by now
            self._held -= 1
            self._wait_for_rest()
        else:
            self.copy()  # what has come since the loop looked belongs to the line

    def _resume(self) -> None:
        """Tries the disk again; reading goes on once it has taken what is staged."""
        if self._source < 0 or not self._refused:
            return
        self._note(self._log.size)
        if self._log_staged():
            self._pod.loop.watch(self._source, self.copy)

    def _tap(self, staged: bytes) -> None:
        """Gives attached clients what they have not seen; one that does not keep up is cut off rather than waited for."""
        new = staged[self._tapped :] if self.taps else b""
        self._tapped = len(staged)
        for tap in list(self.taps) if new else ():
            try:
                complete = os.write(tap, new) == len(new)
            except OSError:
                complete = False
            if not complete:
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
