"""PSI triggers: the kernel says when tasks have stalled for want of a resource, so that nobody has to look (psi.rst)."""

from __future__ import annotations

import os
import select

_STALL_US = 100_000
# Without CAP_SYS_RESOURCE a window must be a multiple of two seconds.
_WINDOW_US = 2_000_000


def open_trigger(path: str, stall_us: int = _STALL_US) -> int:
    """Returns a descriptor that is readable once tasks of a PSI file's cgroup have stalled `stall_us` within two seconds.

    It is an epoll that waits for the file's POLLPRI, since event loops wait for input only; the trigger ends with it.
    OSError where the kernel has no PSI, or not for this cgroup. The caller owns two descriptors: see `close_trigger`.
    """
    file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(file, f"some {stall_us} {_WINDOW_US}\0".encode())
        waiting = select.epoll()
        waiting.register(file, select.EPOLLPRI)
    except OSError:
        os.close(file)
        raise
    _files[waiting.fileno()] = (waiting, file)
    return waiting.fileno()


def take(trigger: int) -> None:
    """Takes note of what a trigger said, so that it can say it again."""
    _files[trigger][0].poll(0)


def close_trigger(trigger: int) -> None:
    """Ends a trigger."""
    waiting, file = _files.pop(trigger)
    waiting.close()
    os.close(file)


_files: dict[int, tuple[select.epoll, int]] = {}
