"""The recorded arguments of system calls in words: flags by their names in the kernel's headers, as strace prints them.

Recording keeps the numbers (linux/steps.py), since a pod's start must not pay for words; reading a trace names them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Flags = Mapping[int, str]

MOUNT: Flags = {
    1 << 0: "MS_RDONLY",
    1 << 1: "MS_NOSUID",
    1 << 2: "MS_NODEV",
    1 << 3: "MS_NOEXEC",
    1 << 5: "MS_REMOUNT",
    1 << 10: "MS_NOATIME",
    1 << 12: "MS_BIND",
    1 << 13: "MS_MOVE",
    1 << 14: "MS_REC",
    1 << 17: "MS_UNBINDABLE",
    1 << 18: "MS_PRIVATE",
    1 << 19: "MS_SLAVE",
    1 << 20: "MS_SHARED",
    1 << 21: "MS_RELATIME",
    1 << 24: "MS_STRICTATIME",
}
UMOUNT: Flags = {1: "MNT_FORCE", 2: "MNT_DETACH", 8: "UMOUNT_NOFOLLOW"}
CLONE: Flags = {
    0x80: "CLONE_NEWTIME",
    0x200: "CLONE_FS",
    0x1000: "CLONE_PIDFD",
    0x8000: "CLONE_PARENT",
    0x20000: "CLONE_NEWNS",
    0x200000: "CLONE_CHILD_CLEARTID",
    0x1000000: "CLONE_CHILD_SETTID",
    0x2000000: "CLONE_NEWCGROUP",
    0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER",
    0x20000000: "CLONE_NEWPID",
    0x40000000: "CLONE_NEWNET",
    0x200000000: "CLONE_INTO_CGROUP",
}
AT: Flags = {0x1000: "AT_EMPTY_PATH", 0x8000: "AT_RECURSIVE"}
OPEN_TREE: Flags = {1: "OPEN_TREE_CLONE", 0x80000: "OPEN_TREE_CLOEXEC", **AT}
MOVE_MOUNT: Flags = {4: "MOVE_MOUNT_F_EMPTY_PATH", 0x40: "MOVE_MOUNT_T_EMPTY_PATH"}
ATTRIBUTES: Flags = {
    1: "MOUNT_ATTR_RDONLY",
    2: "MOUNT_ATTR_NOSUID",
    4: "MOUNT_ATTR_NODEV",
    8: "MOUNT_ATTR_NOEXEC",
    0x100000: "MOUNT_ATTR_IDMAP",
    0x200000: "MOUNT_ATTR_NOSYMFOLLOW",
}
COMMANDS = {0: "FSCONFIG_SET_FLAG", 1: "FSCONFIG_SET_STRING", 5: "FSCONFIG_SET_FD", 6: "FSCONFIG_CMD_CREATE"}
_AT_FDCWD = -100

# Which argument of which call is a set of flags.
FLAGS: Mapping[str, Mapping[int, Flags]] = {
    "mount": {3: MOUNT},
    "umount2": {1: UMOUNT},
    "unshare": {0: CLONE},
    "setns": {1: CLONE},
    "clone": {0: CLONE},
    "fsopen": {1: {1: "FSOPEN_CLOEXEC"}},
    "fsmount": {1: {1: "FSMOUNT_CLOEXEC"}, 2: ATTRIBUTES},
    "open_tree": {2: OPEN_TREE},
    "move_mount": {4: MOVE_MOUNT},
    "mount_setattr": {2: AT, 3: ATTRIBUTES, 4: ATTRIBUTES, 5: MOUNT},
}
_DIRECTORIES = {"open_tree": (0,), "move_mount": (2,), "mount_setattr": (0,)}  # descriptors that may be AT_FDCWD
# Arguments that a bare value would not explain.
_LABELS = {
    "mount_setattr": {3: "set", 4: "clear", 5: "propagation", 6: "userns"},
    "capset": {0: "effective", 1: "permitted", 2: "inheritable"},
}


def words(call: str, subject: str | Sequence[object]) -> str:
    """Returns a step's object as it is shown: arguments in the call's order; trailing ones that say nothing are left out."""
    if isinstance(subject, str):
        return subject
    shown = [_argument(call, index, value) for index, value in enumerate(subject)]
    while len(shown) > 1 and shown[-1] in ("", "0"):
        shown.pop()
    labels = _LABELS.get(call, {})
    named = [f"{labels[index]}={text}" if index in labels else text for index, text in enumerate(shown)]
    return ", ".join(text for index, text in enumerate(named) if index not in labels or shown[index] != "0")


def _argument(call: str, index: int, value: object) -> str:
    if not isinstance(value, int):
        return '""' if value == "" and call in _DIRECTORIES else str(value)
    if flags := FLAGS.get(call, {}).get(index):
        return flag_names(value, flags)
    if call == "fsconfig" and index == 1:
        return COMMANDS.get(value, str(value))
    if value == _AT_FDCWD and index in _DIRECTORIES.get(call, ()):
        return "AT_FDCWD"
    return f"{value:#x}" if call == "capset" and value else str(value)


def flag_names(value: int, flags: Flags) -> str:
    """Returns the names of the bits in a number, what has no name in hexadecimal; "0" for none."""
    names = [name for bit, name in flags.items() if value & bit]
    rest = value & ~sum(flags)
    return "|".join([*names, f"{rest:#x}"] if rest else names) or "0"
