"""What the kubelet remembers of sandboxes and containers on disk: one file each, of JSON lines; the last whole one counts.

A change is a line more: a new file in the old one's place costs ten times as much, on a loop that serves a hundred pods (ext4
passes over inodes that were freed of late, one by one, and writes a replaced file back).
Records are written before the thing they name is made, so that a crash of ours leaves nothing unknown. Only exit records are
synced: nothing of the others outlives a power cut, and one that never reached the disk, or came back empty or cut off, only
means that its sandbox or container is made anew. A file that cannot be read is reported, and kept under another name until
the next start unless it is empty; the rest goes on.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from . import atomic
from .cri import ContainerConfig, LinuxContainerUser, PodSandboxConfig

BAD_SUFFIX = ".unreadable"
_LONGEST = 256 * 1024  # of a file; then it is begun anew


class SandboxRecord(msgspec.Struct):
    """One pod sandbox. boot_id tells records of an earlier boot: nothing of theirs runs or is mounted any more."""

    id: str
    config: PodSandboxConfig
    cgroup: str
    boot_id: str
    created_at: int
    first_container: str = (
        ""  # the id that its first container will have: the keeper forks a child for it ahead of time
    )
    ready: bool = False  # made completely, and not stopped
    stopped: bool = False
    netns: str = ""
    foreign: bool = False  # an OCI runtime makes its containers' processes (handlers.py)
    first_user_id: int = 0  # the host's id of the pod's root; 0: the pod has the node's user namespace
    attached: bool = False  # CNI ADD may have begun: DEL is owed
    ips: tuple[str, ...] = ()


class ContainerRecord(msgspec.Struct):
    """One container; `request` is what its keeper is asked to start, complete enough for another keeper to take over."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    request: dict[str, Any]
    boot_id: str
    created_at: int
    started_at: int = 0


class Identity(msgspec.Struct, frozen=True):
    """A running first process, written by its keeper before it executes anything (see linux.pidfd)."""

    boot_id: str
    pid: int
    start_time: int
    created_at: int = 0
    user: LinuxContainerUser | None = None


class ExitRecord(msgspec.Struct, frozen=True):
    """How a container ended, written and synced by its keeper. known is False when no kernel or parent could tell the code."""

    exit_code: int
    finished_at: int
    started_at: int = 0
    known: bool = True
    oom_killed: bool = False
    oom_kills: int = 0  # processes of the container that the kernel killed for want of memory, its first or others
    reason: str = ""
    message: str = ""


Record = TypeVar("Record", SandboxRecord, ContainerRecord, ExitRecord)


class Shelf(Generic[Record]):
    """All records of one kind: a directory with a file per id."""

    def __init__(self, directory: str, kind: type[Record], *, shared: bool = False) -> None:
        """`shared`: others replace these files too, so that a line more could get lost in an old one."""
        self._directory, self._shared = directory, shared
        self._decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(kind)
        os.makedirs(directory, 0o700, exist_ok=True)

    def path(self, record_id: str) -> str:
        """Returns where the record of an id lies."""
        return f"{self._directory}/{record_id}.json"

    def write(self, record_id: str, record: Record, *, sync: bool = False) -> None:
        """Writes or changes a record."""
        path, content = self.path(record_id), msgspec.json.encode(record)
        if self._shared or sync or not _append(path, content):
            atomic.write(path, content, sync=sync)

    def read(self, record_id: str) -> Record | None:
        """Returns one record; None if there is none or it cannot be read."""
        try:
            with open(self.path(record_id), "rb") as file:
                return self._decode(file.read())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _decode(self, content: bytes) -> Record:
        """Returns the last line, or the one before if a power cut took part of it; msgspec.MsgspecError if neither is a record."""
        before, newline, last = content.rpartition(b"\n")
        try:
            return self._decoder.decode(last)
        except msgspec.MsgspecError:
            if not newline:
                raise
            return self._decoder.decode(before.rpartition(b"\n")[2])

    def remove(self, record_id: str) -> None:
        """Forgets an id; twice is fine."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(record_id))

    def load(self) -> tuple[dict[str, Record], list[str]]:
        """Returns every readable record by id, and a sentence about each file that had to be set aside."""
        found: dict[str, Record] = {}
        problems: list[str] = []
        for name in sorted(os.listdir(self._directory)):
            path = f"{self._directory}/{name}"
            if name.endswith((".tmp", BAD_SUFFIX)):
                os.unlink(path)  # a write that a crash interrupted: the old record, if any, is still there
            elif name.endswith(".json"):
                try:
                    with open(path, "rb") as file:
                        found[name.removesuffix(".json")] = self._decode(file.read())
                except msgspec.MsgspecError as error:
                    problems.append(f"record {path} cannot be read ({error}); {_put_away(path)}")
        return found, problems


def _put_away(path: str) -> str:
    """Takes a damaged record out of the way; says what became of it."""
    if not os.path.getsize(path):
        os.unlink(path)
        return "it is empty and is removed"
    os.rename(path, path + BAD_SUFFIX)
    return f"kept as {os.path.basename(path)}{BAD_SUFFIX}"


def _append(path: str, content: bytes) -> bool:
    """Adds a line to a file, made if it is missing; False, and nothing done, if it has grown too long for that."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if size + len(content) > _LONGEST:
            return False
        line = b"\n%b" % content if size else content
        written = os.write(file, line)
        if written < len(line):  # the disk is full
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return True
    finally:
        os.close(file)
