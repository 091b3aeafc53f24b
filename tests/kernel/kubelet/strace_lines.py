"""Reads what strace wrote (a file per thread) and words each call as a pod's trace does, so that the two can be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

CALLS = (
    *("mount", "umount2", "pivot_root", "move_mount", "fsopen", "fsconfig", "fsmount", "open_tree", "mount_setattr"),
    *("clone", "clone3", "fork", "vfork", "unshare", "setns", "mkdir", "mkdirat", "sethostname", "capset", "prctl"),
    *("seccomp", "setresuid", "setresgid", "setgroups", "sendto", "sendmsg", "sendmmsg", "execve"),
)
_LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|\?)")
_ASKED = re.compile(r"PR_CAPBSET_READ|PR_GET_\w+|PR_SET_VMA|PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET")


class Call(NamedTuple):
    """One system call: when (seconds since the epoch), by which thread, what, and its arguments in a trace's words."""

    at: float
    thread: int
    what: str
    words: str
    result: int


def read(directory: Path) -> list[Call]:
    """Every call in the files `strace -ff -ttt -o directory/t` wrote that changes something, by time."""
    calls = []
    for path in directory.glob("t.*"):
        for line in path.read_text(errors="replace").splitlines():
            if found := _LINE.match(line):
                at, name, arguments, result = found.groups()
                if worded := _worded(name, arguments, int(result) if result != "?" else 0):
                    calls.append(Call(float(at), int(path.suffix[1:]), *worded, int(result) if result != "?" else 0))
    return sorted(calls)


def _worded(name: str, text: str, result: int) -> tuple[str, str] | None:
    """What a call is in a trace; None for one that changes nothing."""
    if name.startswith("send"):
        return ("netlink", _messages(text)) if "nlmsg_type=" in text else None
    if name in ("clone", "clone3", "fork", "vfork"):
        return "clone", f"{_flags(text)}, {result}"
    if name == "prctl":
        return None if _ASKED.match(text) else ("prctl", _prctl(text))
    arguments = split(text)
    if name == "mount_setattr":
        arguments = [*arguments[:3], *_attributes(arguments[3])]
    elif name == "seccomp":
        arguments = [f"SET_MODE_FILTER {arguments[2].partition('len=')[2].partition(',')[0]} instructions"]
    elif name == "capset":
        arguments = [_capabilities(arguments[1])]
    elif name == "setgroups":
        arguments = split(arguments[1].strip("[]"))
    elif name in ("fsconfig", "sethostname", "mkdir", "mkdirat"):
        arguments = arguments[:-1]
    words = [_word(argument) for argument in arguments]
    while len(words) > 1 and words[-1] in ("", "0"):
        words.pop()
    return ("mkdir" if name == "mkdirat" else name), ", ".join(words)


def split(text: str) -> list[str]:
    """Arguments at the commas that are in no string, structure or list."""
    parts, depth, quoted, start = [], 0, False, 0
    for index, letter in enumerate(text):
        if letter == '"' and text[index - 1 : index] != "\\":
            quoted = not quoted
        elif not quoted and letter in "{[(":
            depth += 1
        elif not quoted and letter in "}])":
            depth -= 1
        elif letter == "," and not depth and not quoted:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in [*parts, text[start:].strip()] if part]


def _word(argument: str) -> str:
    argument = re.sub(r" /\*.*?\*/", "", argument)
    if argument == "NULL":
        return ""
    if argument.startswith('"'):
        return argument.strip('"')
    return "|".join(sorted(argument.split("|")))


def sorted_flags(words: str) -> str:
    """A trace's words with the flags of each argument sorted, as _word sorts them."""
    return ", ".join(_word(word) for word in words.split(", "))


def _flags(text: str) -> str:
    """The flags of a clone as far as they say into what."""
    found = re.search(r"flags=([A-Z_|x0-9]+)", text)
    bookkeeping = {"SIGCHLD", "CLONE_CHILD_SETTID", "CLONE_CHILD_CLEARTID"}  # libc's, for a fork
    return "|".join(sorted(set(found[1].split("|")) - bookkeeping)) if found else "0"


def _attributes(text: str) -> list[str]:
    if text == "NULL":  # a probe for the call itself
        return []
    fields = dict(field.split("=", 1) for field in split(text.strip("{}")))
    named = {"set": "attr_set", "clear": "attr_clr", "propagation": "propagation", "userns": "userns_fd"}
    return [f"{label}={_word(fields[field])}" for label, field in named.items() if _word(fields[field]) != "0"]


def _capabilities(text: str) -> str:
    fields = dict(field.split("=", 1) for field in split(text.strip("{}")))
    return f"effective={fields['effective'].count('1<<')} capabilities"


def _prctl(text: str) -> str:
    arguments = split(text)
    if arguments[0] == "PR_CAP_AMBIENT":
        return arguments[1]
    return " ".join(arguments[:2]) if arguments[0] == "PR_CAPBSET_DROP" else arguments[0]


def _messages(text: str) -> str:
    """What a netlink datagram does to which kinds of objects, in order (linux/rtnetlink.h numbers them in fours)."""
    kinds = {"LINK": "link", "ADDR": "address", "NEIGH": "neighbour", "ROUTE": "route"}
    found = []
    for verb, kind, number, other in re.findall(
        r"nlmsg_type=(?:RTM_(NEW|DEL|GET|SET)(LINK|ADDR|NEIGH|ROUTE)\b|0x([0-9a-f]+)|(\S+?)[,}])", text
    ):
        if number:
            verb = ("NEW", "DEL", "GET", "SET")[int(number, 16) % 4]
            kind = {4: "LINK", 5: "ADDR", 6: "ROUTE", 7: "NEIGH"}.get(int(number, 16) // 4, "")
        found.append(f"{verb.lower()} {kinds[kind]}" if kind in kinds else other)
    return ", ".join(found)
