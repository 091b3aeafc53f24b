"""Where each step of a pod's trace stands in its picture: a lane per process, rows in which nothing overlaps, a kind by colour.

Pure. tracepage.py draws what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Step = dict[str, Any]

# Kind → (title, what belongs to it). A write or a mkdir is a cgroup's if its path says so.
KINDS = {
    "process": ("namespaces, processes", "clone unshare setns pivot_root sethostname execve"),
    "mount": ("mounts", "mount umount2 move_mount fsopen fsconfig fsmount open_tree mount_setattr"),
    "cgroup": ("cgroups", "rmdir bpf"),
    "network": ("network", "netlink nft ioctl sysctl"),
    "rights": ("rights, limits", "prctl capset seccomp setgroups setresgid setresuid keyctl prlimit rt_sigprocmask"),
    "file": ("files, descriptors", "mkdir write mknod symlink creat openat openat2 close_range openpty"),
    "group": ("a block of steps", ""),
}
_KIND_OF = {call: kind for kind, (_, calls) in KINDS.items() for call in calls.split()}
LANES = {
    "kubelet": "decides; opens volumes",
    "cni": "attaches the network",
    "keeper": "parent of the containers",
    "child": "becomes the container",
}
_ROUNDED_MS = 0.002  # times are rounded: two steps in a row may seem to overlap by this much
_CGROUPS = "/sys/fs/cgroup/"
PAUSE_MS = 250.0  # what begins later than this after everything else has ended is no part of the start


class Bar(NamedTuple):
    """A step in its row."""

    step: int  # its place in the trace
    row: int
    kind: str


class Lane(NamedTuple):
    """One process: its bars, the number of its rows, and how many of its steps lie outside the picture."""

    who: str
    pid: int
    rows: int
    bars: list[Bar]
    ahead: int  # steps before the sandbox was begun: by a keeper that was made ahead of time
    later: int  # steps long after the start: restarts, exec


class Picture(NamedTuple):
    """The lanes on one axis from 0 to `end_ms`."""

    end_ms: float
    lanes: list[Lane]


def kind(step: Step) -> str:
    """Returns the kind of a step, one of KINDS."""
    what: str = step["what"]
    if "/sys/fs/cgroup/" in step["object"] and what in ("write", "mkdir") and "tmpfs" not in step["object"]:
        return "cgroup"
    if " " in what or what[:1].isupper():  # "mount proc", and CRI's and CNI's verbs
        return "group"
    return _KIND_OF.get(what, "file")


def picture(steps: Sequence[Step], start_ms: float | None = None) -> Picture:
    """Lays out the start of a pod, whose first program began after `start_ms`."""
    end = max(start_end(steps), start_ms or 0.0) * 1.01
    processes = sorted({(step["who"], step.get("pid", 0)) for step in steps}, key=lambda each: _order(*each))
    return Picture(end, [_lane(who, pid, steps, end) for who, pid in processes])


def start_end(steps: Sequence[Step]) -> float:
    """Returns when the last step of the start ends, in ms."""
    end = 0.0
    for step in steps:
        if step["at_ms"] > end + PAUSE_MS and end > 0:
            break
        end = max(end, step["at_ms"] + step["took_ms"])
    return end or 1.0


def _order(who: str, pid: int) -> tuple[int, int]:
    names = list(LANES)
    return (names.index(who) if who in names else len(names), pid)


def _lane(who: str, pid: int, steps: Sequence[Step], end: float) -> Lane:
    own = [(index, step) for index, step in enumerate(steps) if (step["who"], step.get("pid", 0)) == (who, pid)]
    shown = [(index, step) for index, step in own if 0 <= step["at_ms"] <= end]
    bars = list(_rows(shown))
    ahead = sum(step["at_ms"] < 0 for _, step in own)
    rows = max((bar.row for bar in bars), default=0) + 1
    return Lane(who, pid, rows, bars, ahead, len(own) - len(shown) - ahead)


def _rows(steps: Iterable[tuple[int, Step]]) -> Iterable[Bar]:
    """Puts each step into the first row that is free by then; a block comes before the steps inside it, hence above them."""
    free: list[float] = []
    for index, step in sorted(steps, key=lambda each: (each[1]["at_ms"], -each[1]["took_ms"])):
        row = next((number for number, since in enumerate(free) if since <= step["at_ms"] + _ROUNDED_MS), len(free))
        free[row : row + 1] = [step["at_ms"] + step["took_ms"]]
        yield Bar(index, row, kind(step))


def totals(steps: Iterable[Step]) -> dict[str, tuple[int, float]]:
    """Returns (number, milliseconds) of each kind; blocks count their steps' time twice and are left out."""
    found: dict[str, tuple[int, float]] = {}
    for step in steps:
        of = kind(step)
        number, milliseconds = found.get(of, (0, 0.0))
        found[of] = number + 1, milliseconds + step["took_ms"]
    return {each: found[each] for each in KINDS if each in found and each != "group"}


def host_objects(steps: Iterable[Step]) -> dict[str, list[str]]:
    """Returns what the pod has on its host, as its steps name it; a cgroup once, whatever the number of hierarchies."""
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        for what, name in _object(step):
            found.setdefault(what, {})[name] = None
    return {what: list(names) for what, names in found.items()}


def _object(step: Step) -> Iterable[tuple[str, str]]:
    what, subject, who = step["what"], step["object"], step["who"]
    if what == "netlink":
        yield from _links(subject)
    elif what == "mkdir" and subject.startswith(_CGROUPS) and who != "child":
        yield "cgroups", subject.removeprefix(_CGROUPS).partition("/")[2]
    elif what == "mkdir" and subject.startswith("/") and who != "child":
        yield "directories", subject
    elif what == "mount" and who != "child":
        target = subject.split(", ")[1]
        yield ("network namespace" if "/netns/" in target else "mounts"), target
    elif what == "fsconfig" and "upperdir" in subject:
        yield "writable layer", subject.rpartition(", ")[2]


def _links(subject: str) -> Iterable[tuple[str, str]]:
    for message in subject.split("; "):
        words = message.split()
        if words[:2] == ["link", "add"]:
            yield "links", f"{words[2]} ({' '.join(words[3:])})" if words[3:] else words[2]
        elif words[:2] in (["address", "add"], ["address", "replace"]):
            yield "addresses", words[2]
