"""What the kubelet remembers of sandboxes and containers on disk: one JSON file each, written whole or not at all.

Records are written before the thing they name is made, so that a crash of ours leaves nothing unknown. Only exit records are
synced: nothing of the others outlives a power cut, and one that never reached the disk, or came back empty or cut off, only
means that its sandbox or container is made anew. A file that cannot be read is reported, and kept under another name until
the next start unless it is empty; the rest goes on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from . import atomic
from .cri import ContainerConfig, LinuxContainerUser, PodSandboxConfig

BAD_SUFFIX = ".unreadable"


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

    def __init__(self, directory: str, kind: type[Record]) -> None:
        self._directory = directory
        self._decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(kind)
        os.makedirs(directory, 0o700, exist_ok=True)

    def path(self, record_id: str) -> str:
        """Returns where the record of an id lies."""
        return f"{self._directory}/{record_id}.json"

    def write(self, record_id: str, record: Record, *, sync: bool = False) -> None:
        """Writes or replaces a record."""
        atomic.write(self.path(record_id), msgspec.json.encode(record), sync=sync)

    def read(self, record_id: str) -> Record | None:
        """Returns one record; None if there is none or it cannot be read."""
        try:
            with open(self.path(record_id), "rb") as file:
                return self._decoder.decode(file.read())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

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
                        found[name.removesuffix(".json")] = self._decoder.decode(file.read())
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
