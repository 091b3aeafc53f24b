"""host-local's records on disk, laid out as the reference plugin does, so that both can share a directory.

<dataDir>/<network>/<address> holds "<container id>\\r\\n<ifname>"; last_reserved_ip.<set> the last address given;
`lock` is flocked around every change, so a killed process leaves it open. Nothing is cached: these files are the
truth; host_local_index finds those of an owner. A record is never changed, but removed and made: the index tells by the
directory's time of modification that somebody was here.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from .host_local_index import Owner, OwnerIndex
from .ranges import IPAddress

DEFAULT_DIRECTORY = "/var/lib/cni/networks"
LOCK = "lock"
LAST_RESERVED = "last_reserved_ip."


class Store:
    """The records of one network; make it with Store.locked, since every method wants the lock held."""

    def __init__(self, directory: str, directory_fd: int, index: OwnerIndex) -> None:
        self.directory = directory
        self._fd = directory_fd
        self._index = index

    @classmethod
    @contextmanager
    def locked(cls, data_directory: str, network: str) -> Iterator[Store]:
        """Opens (and makes) the network's directory and holds its lock for the block."""
        data_directory = data_directory or DEFAULT_DIRECTORY
        directory = os.path.join(data_directory, network)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock_fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX)
                with OwnerIndex.opened(data_directory, network, directory_fd) as index:
                    yield cls(directory, directory_fd, index)
            finally:
                os.close(lock_fd)
        finally:
            os.close(directory_fd)

    def _read(self, name: str) -> str:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return ""
        try:
            return os.read(fd, 1024).decode(errors="replace")
        finally:
            os.close(fd)

    def _write(self, name: str, text: str, flags: int) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600, dir_fd=self._fd)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def addresses(self) -> list[str]:
        """All addresses with a record, whoever's, as text."""
        return [name for name in os.listdir(self._fd) if _is_address(name)]

    def owner(self, address: str) -> Owner | None:
        """Who holds the address; None when it is free. A record by an old release names only the container ("", any
        ifname).
        """
        words = self._read(address).split("\n")
        container_id = words[0].strip()
        if not container_id:
            return None  # no record, or one cut off by a crash: its writer held the lock, so nobody is still writing
        return container_id, words[1].strip() if len(words) > 1 else ""

    def owners(self) -> dict[str, Owner]:
        """Who holds which address, by reading every record."""
        found = {address: self.owner(address) for address in self.addresses()}
        return {address: owner for address, owner in found.items() if owner is not None}

    def held_by(self, container_id: str, ifname: str) -> list[str]:
        """The addresses an attachment holds. A record that names no interface is every interface's of its container."""
        wanted = ((container_id, ifname), (container_id, ""))
        if self._index.current:
            named = ((address, owner) for owner in wanted for address in self._index.addresses(owner))
            return [address for address, owner in named if self.owner(address) == owner]
        owners = self.owners()
        self._index.rebuild(owners)
        return [address for address, owner in owners.items() if owner in wanted]

    def reserve(self, address: IPAddress, owner: Owner, range_set: int) -> bool:
        """Records the address for its owner and as the set's last; False when somebody holds it."""
        name = str(address)
        record = "\r\n".join(owner)
        try:
            self._write(name, record, os.O_EXCL)
        except FileExistsError:
            if self.owner(name) is not None:
                return False
            os.unlink(name, dir_fd=self._fd)
            self._write(name, record, os.O_EXCL)
        self._index.add(owner, name)
        self._write(f"{LAST_RESERVED}{range_set}", name, os.O_TRUNC)
        return True

    def last_reserved(self, range_set: int) -> IPAddress | None:
        """The address this range set gave last, None when unknown."""
        with suppress(ValueError):
            return ipaddress.ip_address(self._read(f"{LAST_RESERVED}{range_set}").strip())
        return None

    def release(self, addresses: Iterable[str]) -> None:
        """Frees addresses; freeing twice is fine."""
        for address in addresses:
            owner = self.owner(address)
            with suppress(FileNotFoundError):
                os.unlink(address, dir_fd=self._fd)
            if owner is not None:
                self._index.forget(owner, address)


def _is_address(name: str) -> bool:
    return name[:1].isdigit() or ":" in name
