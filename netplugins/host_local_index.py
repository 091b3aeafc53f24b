"""Who holds which of host-local's addresses, without reading every record: a second, hard link to each, named by its owner.

<dataDir>/.owners/<network>/<container id>:<ifname>:<inode>. The records decide: what differs from them (made or removed by
the reference plugin, or before a crash) is put right before anything is answered. A link keeps its record's inode from being
given to another file, so equal inodes are proof. Where links cannot be made, records are read as if there were no index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

Owner = tuple[str, str]  # container id, ifname


class OwnerIndex:
    """The links of one network; used under the network's lock. A descriptor of -1 has none."""

    def __init__(self, directory_fd: int) -> None:
        self._fd = directory_fd
        self._links: dict[int, str] = {}

    @classmethod
    @contextmanager
    def opened(cls, data_directory: str, network: str) -> Iterator[OwnerIndex]:
        """Opens (and makes) the directory for the block."""
        directory = os.path.join(data_directory, ".owners", network)
        fd = -1
        with suppress(OSError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield cls(fd)
        finally:
            if fd >= 0:
                os.close(fd)

    def find(
        self, records: Mapping[int, str], records_fd: int, read: Callable[[str], Owner | None], owner: Owner
    ) -> list[str]:
        """The names of the records (by inode, lying in `records_fd`) of an owner; `read` is asked for those without a link.

        Old records name no interface: they are every interface's of their container.
        """
        links = self._links = inodes(self._fd) if self._fd >= 0 else {}
        for inode in links.keys() - records.keys():
            os.unlink(links.pop(inode), dir_fd=self._fd)
        for inode in records.keys() - links.keys():
            found = read(records[inode])
            if found is not None:
                links[inode] = f"{found[0]}:{found[1]}:{inode}"
                self._link(records_fd, records[inode], links[inode])
        wanted = (f"{owner[0]}:{owner[1]}:", f"{owner[0]}::")
        return [records[inode] for inode, link in links.items() if link.startswith(wanted)]

    def forget(self, inode: int) -> None:
        """Removes the link of a record that goes; one that `find` has not seen goes at the next look."""
        if self._fd >= 0 and (link := self._links.pop(inode, "")):
            with suppress(FileNotFoundError):  # it was never made
                os.unlink(link, dir_fd=self._fd)

    def _link(self, records_fd: int, record: str, link: str) -> None:
        if self._fd >= 0 and "/" not in link:
            with suppress(OSError):  # no hard links here, too long an id: it is read again the next time
                os.link(record, link, src_dir_fd=records_fd, dst_dir_fd=self._fd)


def inodes(directory_fd: int) -> dict[int, str]:
    """The names in a directory by inode, as the directory itself has them."""
    with os.scandir(directory_fd) as entries:
        return {entry.inode(): entry.name for entry in entries}
