"""Users and groups as an image's own /etc/passwd and /etc/group know them.

The files are hostile input and are parsed here, never by glibc's NSS: that would load libraries from the image
(CVE-2019-14271). The rules are those of runc's libcontainer/user and containerd's WithUser.
"""

from __future__ import annotations

import os
import stat

from minikube_raw.linux import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LARGEST_FILE = 4 << 20
_HIGHEST_ID = (1 << 31) - 1


class UnknownUser(Exception):
    """The image does not know the user or group by that name."""


class User:
    """Who a process runs as: uid, gid, supplementary groups (the primary one first, as containerd has it) and home."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def resolve(
    wanted: str,
    passwd: str,
    group: str,
    *,
    gid: int | None = None,
    supplemental: Iterable[int] = (),
    strict: bool = False,
) -> User:
    """Returns the user for `wanted` ("name", "uid", either with ":group"; empty is root) given the two files' texts.

    Numbers are ids and nothing else, as for containerd. `gid` overrides the primary group; `strict` leaves out the groups
    of which the file says the user is a member.
    Raises UnknownUser for a name that is not there; an unknown number is fine.
    """
    user_name, _, group_name = wanted.partition(":")
    name, uid, primary, home = _user(user_name or "0", passwd)
    members: list[int] = []
    if gid is None and group_name:
        gid = _group(group_name, group)
    elif name and not strict:
        members = [number for _, number, users in _groups(group) if name in users]
    chosen = primary if gid is None else gid
    groups = list(dict.fromkeys([chosen, *members, *supplemental]))
    return User(uid, chosen, groups, home or "/")


def _user(wanted: str, passwd: str) -> tuple[str, int, int, str]:
    """Returns (name, uid, gid, home). A number is never a name: an image would say who runAsUser is."""
    number, is_number = _number(wanted), _is_number(wanted)
    for fields in _entries(passwd, 6):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (uid == number if is_number else fields[0] == wanted):
            return fields[0], uid, gid, fields[5]
    if number is None:
        raise UnknownUser(f"unable to find user {wanted}: no matching entries in passwd file")
    return "", number, 0, "/"


def _group(wanted: str, group: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for name, gid, _ in _groups(group):
        if name == wanted and not _is_number(wanted):
            return gid
    raise UnknownUser(f"unable to find group {wanted}: no matching entries in group file")


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _entries(group, 4):
        gid = _number(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3].split(",")


def _entries(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.split("\n"):
        entry = line.strip().split(":")
        if len(entry) >= fields - 1 and not line.startswith("#"):
            yield [*entry, ""]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int | None:
    if not _is_number(text):
        return None
    digits = text.lstrip("0")[: len(str(_HIGHEST_ID)) + 1]  # int() raises ValueError for thousands of digits
    number = int(digits or "0")
    return number if number <= _HIGHEST_ID else None


def read_in_root(root: int, path: str) -> str:
    """Returns a text file of an image, resolved inside `root`; empty when it is missing, no regular file or absurdly large."""
    try:
        file = paths.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_FILE:
            return ""
        return os.read(file, _LARGEST_FILE).decode("utf-8", "replace")
    finally:
        os.close(file)
