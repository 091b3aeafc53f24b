"""User namespaces as descriptors, for mounts with other owners (mount_setattr(2) MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import errno
import os
from ctypes import c_int

from .syscalls import bind, checked

CLONE_NEWUSER = 0x10000000

_unshare = bind("unshare", c_int)


def new_user_namespace(first_id: int, count: int = 65_536) -> int:
    """Returns a user namespace whose ids 0 to count-1 are ours from `first_id` on; closed on exec. Raises OSError.

    A short-lived child makes it: the kernel refuses unshare(CLONE_NEWUSER) to a process with threads.
    """
    ready, tell = os.pipe()
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_stay_in_new_namespace(tell, hold, let_go))
    try:
        os.close(tell)
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "a user namespace cannot be made here (user.max_user_namespaces?)")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as ids:
                ids.write(f"0 {first_id} {count}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for descriptor in (ready, hold, let_go):
            os.close(descriptor)
        os.waitpid(child, 0)


def _stay_in_new_namespace(tell: int, hold: int, let_go: int) -> int:
    """In the child: tells when the namespace is there and stays until the parent lets go (or ends)."""
    os.close(let_go)
    try:
        checked("unshare", "CLONE_NEWUSER", _unshare, CLONE_NEWUSER, step=(CLONE_NEWUSER,))
    except OSError:
        return 1
    os.write(tell, b"1")
    os.read(hold, 1)
    return 0
