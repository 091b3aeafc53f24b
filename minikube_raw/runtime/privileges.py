"""The last acts of a process before it becomes a container's program: no_new_privs, user, capabilities, seccomp filter.

In runc's order. A filter is installed last of all, so that it judges the program and none of our preparations. Without
no_new_privs that takes CAP_SYS_ADMIN, which is then kept until the filter stands and dropped under it.
"""

from __future__ import annotations

import binascii
import os

from minikube_raw.linux import apparmor, capabilities, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .users import User

_ADMIN = capabilities.mask(["SYS_ADMIN"])


def drop(spec: dict[str, Any], user: User) -> Callable[[], None]:
    """Changes to the container's user with the asked capabilities, as far as we have them ourselves.

    Returns what remains to be done right before exec.
    """
    wanted = spec["process"]
    code = binascii.a2b_base64(spec["linux"].get("seccompFilter", ""))
    available = capabilities.available()
    kept = capabilities.mask(wanted["capabilities"]) & available
    held = kept | _ADMIN & available if code and not wanted.get("noNewPrivileges") else kept
    if wanted.get("noNewPrivileges"):
        process.set_no_new_privileges()
    if wanted.get("apparmorProfile"):
        apparmor.change_on_exec(wanted["apparmorProfile"])
    process.set_keep_capabilities(True)
    capabilities.drop_bounding(kept)
    process.set_groups(user.groups)
    process.set_ids(user.uid, user.gid)
    process.set_keep_capabilities(False)
    capabilities.apply(held)
    if not code:
        return _nothing
    install = seccomp.Filter(code).install
    if held == kept:
        return install
    give_up = capabilities.prepared(kept)

    def install_and_give_up() -> None:
        install()
        try:
            give_up()
        except OSError as error:  # the filter's answer; runc, which asks in this order too, has these words
            raise OSError(error.errno, f"unable to apply caps: {os.strerror(error.errno or 0)}") from None

    return install_and_give_up


def _nothing() -> None:
    pass
