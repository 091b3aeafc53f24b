"""Pseudo-terminals inside a container's own devpts, opened by descriptor so that no path of the image is trusted.

The peer is opened with TIOCGPTPEER (Linux ≥ 4.13) and not by name: a name could be a link by then (CVE-2025-52565).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from . import steps

TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
_PTMX_DEVICE = os.makedev(5, 2)


def open_pair(multiplexer: int) -> tuple[int, int]:
    """Makes a new terminal of an opened /dev/pts/ptmx, which becomes its master; returns (master, slave), both closed on exec.

    Raises OSError, with the descriptor closed, when that is not the multiplexer's device.
    """
    began = steps.begin()
    try:
        found = os.fstat(multiplexer)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX_DEVICE:
            raise OSError(errno.ENODEV, "not a pseudo-terminal multiplexer", "/dev/pts/ptmx")
        fcntl.ioctl(multiplexer, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(multiplexer, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(multiplexer)
        raise
    steps.end(began, "openpty", "/dev/pts/ptmx")
    return multiplexer, slave


def make_controlling(slave: int) -> None:
    """Makes the terminal that of the calling session, whose leader we must be (setsid(2))."""
    fcntl.ioctl(slave, TIOCSCTTY, 0)


def set_size(terminal: int, width: int, height: int) -> None:
    """Sets the size in characters; the processes in its foreground get SIGWINCH."""
    fcntl.ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
