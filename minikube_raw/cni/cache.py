"""What the last ADD of an attachment was called with and answered, on disk, so that DEL works after any crash.

Layout and fields are libcni's (results/<network>-<container>-<ifname>, kind cniCacheV1): its tools read ours and the
reverse.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KIND = "cniCacheV1"


@dataclass(frozen=True)
class CachedAttachment:
    """One attachment's record."""

    container_id: str
    ifname: str
    netns: str = ""
    runtime_config: dict[str, Any] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] | None = None


class Cache:
    """The records of one network."""

    def __init__(self, directory: Path, network: str) -> None:
        self._directory = directory / "results"
        self._network = network
        self._directory.mkdir(parents=True, exist_ok=True)

    def _path(self, container_id: str, ifname: str) -> Path:
        return self._directory / f"{self._network}-{container_id}-{ifname}"

    @contextmanager
    def locked(self, *, exclusive: bool = False) -> Iterator[None]:
        """Keeps GC apart from ADD and DEL, in other processes too: those share the lock, GC has it alone."""
        fd = os.open(self._directory.parent / f"{self._network}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    def store(self, attachment: CachedAttachment, conflist: dict[str, Any]) -> None:
        """Writes a record; readers see the whole of it or none."""
        record = {
            "kind": KIND,
            "containerId": attachment.container_id,
            "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
            "ifName": attachment.ifname,
            "networkName": self._network,
            "netns": attachment.netns,
            "cniArgs": [list(pair) for pair in attachment.args.items()],
            "capabilityArgs": attachment.runtime_config,
            "result": attachment.result,
        }
        path = self._path(attachment.container_id, attachment.ifname)
        partial = _partial(path)
        partial.write_text(json.dumps(record))
        partial.replace(path)

    def load(self, container_id: str, ifname: str) -> CachedAttachment | None:
        """The record, None when there is none or only a damaged one."""
        return self._read(self._path(container_id, ifname))

    def _read(self, path: Path) -> CachedAttachment | None:
        try:
            record = json.loads(path.read_bytes())
            return CachedAttachment(
                container_id=record["containerId"],
                ifname=record["ifName"],
                netns=record.get("netns") or "",
                runtime_config=record.get("capabilityArgs") or {},
                args=dict(record.get("cniArgs") or ()),
                result=record.get("result"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self, container_id: str, ifname: str) -> None:
        """Forgets an attachment; a missing record, or one that a crash left half written, is fine."""
        path = self._path(container_id, ifname)
        for each in (_partial(path), path):
            with suppress(FileNotFoundError):
                each.unlink()

    def attachments(self) -> list[CachedAttachment]:
        """Every attachment of the network with a readable record."""
        found = (self._read(path) for path in self._directory.glob(f"{self._network}-*"))
        # the glob also meets networks whose name begins with ours
        return [entry for entry in found if entry and self._path(entry.container_id, entry.ifname).exists()]


def _partial(path: Path) -> Path:
    """Where a record is written before it takes its place."""
    return path.with_name(f".{path.name}.partial")
