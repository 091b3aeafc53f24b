"""Who holds which of host-local's addresses, without reading every record: a symbolic link per owner, its text the addresses.

<dataDir>/.owners/<network>/<container id>:<ifname> -> "10.1.0.2 fd00::2". The records decide. Whoever changes them through this
index leaves both directories with a time of modification that no clock gives; any other change (the reference plugin's, or
one that a crash cut off) replaces that time, and then every record is read again. Where an owner cannot be a link's name, or
no link can be made, the time is never set and every record is read each time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache

Owner = tuple[str, str]  # container id, ifname
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class OwnerIndex:
    """The links of one network; used under the network's lock. While it is not `current`, nothing is looked up or noted here."""

    def __init__(self, directory_fd: int, records_fd: int) -> None:
        self._fds = (directory_fd, records_fd)
        self._fd = directory_fd
        self._mark = _mark(os.fstat(records_fd).st_ino)
        self.current = directory_fd >= 0 and all(os.fstat(fd).st_mtime_ns == self._mark for fd in self._fds)
        self._changed = False

    @classmethod
    @contextmanager
    def opened(cls, data_directory: str, network: str, records_fd: int) -> Iterator[OwnerIndex]:
        """Opens (and makes) the directory for the block."""
        directory = os.path.join(data_directory, ".owners", network)
        fd = -1
        with suppress(OSError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            index = cls(fd, records_fd)
            yield index
            index._set_mark()
        finally:
            if fd >= 0:
                os.close(fd)

    def addresses(self, owner: Owner) -> list[str]:
        """What the link of an owner says; nothing without one."""
        try:
            return os.readlink(_name(owner), dir_fd=self._fd).split()
        except FileNotFoundError:
            return []

    def add(self, owner: Owner, address: str) -> None:
        """Notes a record that was made."""
        if self.current:
            self._write(owner, [*self.addresses(owner), address])

    def forget(self, owner: Owner, address: str) -> None:
        """Notes a record that was removed."""
        if self.current:
            self._write(owner, [each for each in self.addresses(owner) if each != address])

    def rebuild(self, owners: Mapping[str, Owner]) -> None:
        """Makes the links be those of all records, given as the owner of each address; `current` if that could be done."""
        if self._fd < 0:
            return
        wanted: dict[str, tuple[Owner, list[str]]] = {}
        for address, owner in owners.items():
            wanted.setdefault(_name(owner), (owner, []))[1].append(address)
        self.current = self._changed = True
        for name in os.listdir(self._fd):
            if name in wanted and _text(self._fd, name) == " ".join(wanted[name][1]):
                del wanted[name]
            else:
                os.unlink(name, dir_fd=self._fd)
        for owner, addresses in wanted.values():
            self._write(owner, addresses)

    def _write(self, owner: Owner, addresses: list[str]) -> None:
        name, self._changed = _name(owner), True
        if "/" in name or "\0" in name:
            self.current = False
            return
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
            if addresses:
                os.symlink(" ".join(addresses), name, dir_fd=self._fd)
        except OSError:  # no links here, or too long an id
            self.current = False

    def _set_mark(self) -> None:
        if self.current and self._changed:
            with suppress(OSError):
                for fd in self._fds:
                    os.utime(fd, ns=(self._mark, self._mark))


def _name(owner: Owner) -> str:
    return ":".join(owner)


def _text(directory_fd: int, name: str) -> str:
    """A link's text, "" for what is none: earlier releases had other files here."""
    try:
        return os.readlink(name, dir_fd=directory_fd)
    except OSError:
        return ""


@cache
def _mark(inode: int) -> int:
    """A time in the first seconds of 1970, of this boot and this directory of records alone.

    What a power cut left of records and links is not believed, nor records that were brought back from a copy.
    """
    with open(_BOOT_ID, "rb") as file:
        return zlib.crc32(b"%b%d" % (file.read(), inode))
