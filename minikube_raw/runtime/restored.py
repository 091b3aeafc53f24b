"""What CRIU has made of a checkpoint, looked at before it runs on: nothing in an archive may give more than the pod asks for.

Credentials, filters and mounts come out of the archive, and whoever made that may have written anything into it.
"""

from __future__ import annotations

import os

from minikube_raw.linux import capabilities, mounts, namespaces, process, signals

from . import wire
from .criu import Failed, place_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
    Mounts = dict[str, tuple[str, str]]

_SETS = ("CapInh", "CapPrm", "CapBnd", "CapAmb")
_VOLUMES = ("bind", "image")
_CGROUPS = ("cgroup", "cgroup2")
_KINDS = {"cgroup": ("tmpfs", *_CGROUPS)}  # of what is mounted where the spec has this type, if not that type itself


def user_of(pid: int) -> Message:
    """As whom a process runs."""
    fields = _status(pid)
    uid, gid = int(fields["Uid"].split()[0]), int(fields["Gid"].split()[0])
    groups = [int(group) for group in fields["Groups"].split()]
    return {"uid": uid, "gid": gid, "supplemental_groups": [gid, *(group for group in groups if group != gid)]}


def check(request: Message, first: int, found: list[int]) -> None:
    """Raises Failed when a process has more than the container's spec gives, or sees files that are not the container's."""
    for kind in ("mnt", "pid"):
        if _namespace(first, kind) == _namespace(os.getpid(), kind):
            raise Failed(f"the checkpoint's processes would be in the node's {kind} namespace")
    if request["privileged"]:
        return
    for pid in found:
        _check_rights(request["spec"], _status(pid))
    _check_mounts(request["spec"], first, _mounts(first))


def _check_rights(spec: Message, fields: dict[str, str]) -> None:
    wanted, who = spec["process"], f"process {fields['Name']} of the checkpoint"
    held = 0
    for each in _SETS:
        held |= int(fields[each], 16)
    if more := capabilities.names(held & ~capabilities.mask(wanted["capabilities"])):
        raise Failed(f"{who} has capabilities that the pod does not ask for: {', '.join(more)}")
    if spec["linux"].get("seccompFilter") and fields["Seccomp"] != "2":
        raise Failed(f"{who} has no seccomp filter, and the pod asks for one")
    if wanted.get("noNewPrivileges") and fields["NoNewPrivs"] != "1":
        raise Failed(f"{who} can gain privileges, which the pod forbids")


def _check_mounts(spec: Message, first: int, mounted: Mounts) -> None:
    """Compares with the spec: what is where, what can be written to, what is hidden, and that there is nothing else."""
    system = {entry["destination"]: entry["type"] for entry in spec["mounts"] if entry["type"] not in _VOLUMES}
    volumes = [place_in(first, entry["destination"]) for entry in spec["mounts"] if entry["type"] in _VOLUMES]
    masked, readonly = _there(first, spec["linux"]["maskedPaths"]), _there(first, spec["linux"]["readonlyPaths"])
    expected = {**dict.fromkeys(masked, "tmpfs"), **dict.fromkeys(readonly, "proc"), **system, "/": "overlay"}
    for place, kind in expected.items():
        found = mounted.get(place, ("nothing", ""))[0]
        if found != kind and found not in _KINDS.get(kind, ()):
            raise Failed(f"the checkpoint has {found} at {place}, where a container has {kind}")
    for place in [*readonly, *_readonly(spec, first, mounted)]:
        if "ro" not in mounted.get(place, ("", "ro"))[1].split(","):
            raise Failed(f"{place} could be written to in the restored container, which the pod forbids")
    for place, (kind, _) in mounted.items():
        inside = any(place.startswith(f"{volume}/") for volume in volumes)
        if place not in expected and place not in volumes and not inside and kind not in _CGROUPS:
            raise Failed(f"the checkpoint has {kind} at {place}, where a container has nothing")


def _readonly(spec: Message, first: int, mounted: Mounts) -> list[str]:
    """Where the spec wants a mount that cannot be written to; of cgroups the mounts, and not what holds them on v1."""
    asked = [entry for entry in spec["mounts"] if {"ro", "rro"} & set(entry.get("options", ()))]
    places = [place_in(first, entry["destination"]) for entry in asked if entry["type"] != "cgroup"]
    if any(entry["type"] == "cgroup" for entry in asked):
        places += [place for place, (kind, _) in mounted.items() if kind in _CGROUPS]
    return [*places, *(["/"] if spec["root"].get("readonly") else [])]


def _there(first: int, paths: list[str]) -> list[str]:
    """Those paths that this kernel has."""
    return [path for path in paths if os.path.lexists(f"/proc/{first}/root{path}")]


def _mounts(pid: int) -> Mounts:
    """(file system type, mount options) by mount point; the uppermost where several lie at one."""
    found = {}
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            place, options = fields.split()[4:6]
            found[mounts.unescape(os.fsencode(place))] = (rest.split()[0], options)
    return found


def _namespace(pid: int, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.split(":", 1) for line in file)
        return {name: value.strip() for name, value in pairs}


def rename(first: int, hostname: str) -> None:
    """Gives a container the pod's name in the UTS namespace of its own that it comes back with."""
    if _namespace(first, "uts") == _namespace(os.getpid(), "uts"):
        return
    ours, theirs = namespaces.open_namespace("uts"), namespaces.open_namespace("uts", first)
    try:
        namespaces.setns(theirs, namespaces.CLONE_NEWUTS)
        process.set_hostname(hostname)
        namespaces.setns(ours, namespaces.CLONE_NEWUTS)
    finally:
        wire.close([ours, theirs])


def set_oom_score_adj(found: list[int], value: int) -> None:
    """Gives all processes the pod's, in place of what the checkpoint's had."""
    for pid in found:
        process.set_oom_score_adj(value, pid)


def go_on(found: list[int]) -> None:
    """Lets stopped processes run."""
    for pid in found:
        try:
            os.kill(pid, signals.number("SIGCONT"))
        except ProcessLookupError:
            pass  # another one that runs already had it end
