"""From what a probe saw to what can be compared: figures of the moment go, numbers that name nothing become words."""

from __future__ import annotations

import re

Seen = dict[str, str]

# What changes from one moment to the next under one and the same runtime.
MOMENTARY = re.compile(
    r"status (Vm|Rss)\w+"
    r"|status (non)?voluntary_ctxt_switches"
    r"|status SigQ"  # pending signals of the user, in all containers
    r"|cgroup-value cpuacct/cpuacct\..*"
    r"|cgroup-value cpu/cpu\.stat(\.local)?"
    r"|cgroup-value memory/memory\.(\w+\.)?(max_)?usage_in_bytes"
    r"|cgroup-value memory/memory\.(\w+\.)?failcnt"
    r"|cgroup-value memory/memory\.(stat|numa_stat|\w+\.slabinfo)"
    r"|cgroup-value pids/pids\.(peak|events)"
    r"|cgroup-value blkio/.*"
    r"|cgroup-value (cpu|io|irq|memory)\.pressure"
    r"|cgroup-value (cpu|io|memory)\.(stat|stat\.local|numa_stat)"
    r"|cgroup-value memory\.(\w+\.)?(current|peak|events|events\.local)"
    r"|cgroup-value pids\.(peak|events)"
    r"|sysctl fs/(dentry-state|file-nr|inode-nr|inode-state|aio-nr|quota/.*)"
    r"|sysctl kernel/(ns_last_pid|pty/nr|random/.*|tainted|perf_.*)"
    r"|sysctl net/netfilter/nf_conntrack_count"
    r"|sysctl net/ipv[46]/(conf|neigh)/veth.*"  # other pods' links, on the node's network
)
_OWN_PID = re.compile(
    r"status (Pid|Tgid|Ngid|NS\w+)|entry /proc/(thread-)?self|cgroup-value (.*/)?(cgroup\.(procs|threads)|tasks)"
)
_CONTENT = re.compile(r"read /proc/.*")
_STREAM = re.compile(r"\S+/(stdin|stdout|stderr|output) 01\d{4}")


def comparable(seen: Seen) -> Seen:
    """What a probe saw, as far as it can be the same twice."""
    pid = seen["status Pid"]
    found = {
        key: _value(key, value, pid)
        for key, value in seen.items()
        if not key.startswith("mountinfo ") and not MOMENTARY.fullmatch(key)
    }
    return found | mounts([value for key, value in seen.items() if key.startswith("mountinfo ")])


def _value(key: str, value: str, pid: str) -> str:
    if _OWN_PID.fullmatch(key):
        return re.sub(rf"\b{pid}\b", "PID", value)
    if key == "status PPid":
        return "0" if value == "0" else "another"
    if _CONTENT.fullmatch(key):
        return "empty" if not value else "content"
    if key == "session-keyring":
        return re.sub(r"_ses\.\S+", "_ses.ID", value)
    if key == "cgroup-value devices/devices.list":
        return " ".join(sorted(value.split("\\x0a")))
    return _STREAM.sub("FIFO", value)


def mounts(lines: list[str]) -> Seen:
    """A mountinfo by mount point: the parent's point instead of its number, without device numbers and group numbers."""
    rows = [line.split(" - ", 1) for line in lines]
    fields = [(left.split(" "), right.split(" ", 2)) for left, right in rows]
    points = {left[0]: left[4] for left, _ in fields}
    found: Seen = {}
    for left, (fstype, source, options) in sorted(fields, key=lambda row: int(row[0][0])):
        groups = " ".join(sorted(group.partition(":")[0] for group in left[6:]))
        key = f"mount {left[4]}"
        while key in found:
            key += " again"
        parent = points.get(left[1], "-")
        found[key] = f"on {parent}: {fstype} {source} {left[3]} {left[5]} [{groups}] {options}"
    return found


def differences(ours: Seen, theirs: Seen) -> dict[str, tuple[str, str]]:
    """Keys whose values are not the same, with both values ("" where one saw nothing)."""
    keys = sorted(ours.keys() | theirs.keys())
    return {key: (ours.get(key, ""), theirs.get(key, "")) for key in keys if ours.get(key) != theirs.get(key)}
