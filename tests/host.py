"""What the host has: a snapshot of links, routes, rules, mounts, cgroups, processes, namespaces and files, to compare before and after."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FOLDERS = ("/run", "/var/lib/minikube-raw", "/var/run", "/etc/cni", "/opt/cni", "/root", "/var/log")
TITLES = ("master :", "kubelet ", "launcher ", "keeper ", "pause")  # what our processes call themselves
# Written by others at any time, or by tools the tests call themselves.
IGNORED = (
    "/root/.cache",
    "/root/.pyenv",
    "/root/.kube/cache",
    "/root/.local",
    "/root/.npm",
    "/run/user",
    "/root/.config",
)


def snapshot(*, without: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Return what the host has now, kind by kind, leaving out the kinds in `without`."""
    found = {
        "links": _lines(["ip", "-o", "link"], field=1),
        "addresses": _lines(["ip", "-br", "addr"]),
        "routes": _lines(["ip", "route", "show", "table", "all"]),
        "rules": _lines(["ip", "rule"]),
        "nftables": _lines(["nft", "list", "tables"]),
        "mounts": {
            line.split(" ", 4)[4].split(" ")[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        },
        "cgroups": _cgroups(),
        "processes": _processes(),
        "sysctls": {Path("/proc/sys/net/ipv4/ip_forward").read_text()},
        "files": {path for folder in FOLDERS for path in _files(folder)},
    }
    return {kind: things for kind, things in found.items() if kind not in without}


def difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, list[str]]:
    """Return what appeared (+) and what vanished (-), by kind; empty if nothing did."""
    changes = {}
    for kind in before:
        lines = [f"+ {x}" for x in sorted(after[kind] - before[kind])] + [
            f"- {x}" for x in sorted(before[kind] - after[kind])
        ]
        if lines:
            changes[kind] = lines
    return changes


def _lines(command: list[str], field: int | None = None) -> set[str]:
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[field] if field is not None else line.strip() for line in output}


def _cgroups() -> set[str]:
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "process_api" not in folder}


def _processes() -> set[str]:
    """Command lines of processes that are ours; other people's come and go."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if text.startswith(TITLES) or "machine.init" in text or "-m minikube_raw" in text:
            found.add(f"{folder.name} {text}")
    return found


def _files(folder: str) -> set[str]:
    found = set()
    for base, folders, files in os.walk(folder):
        if base.startswith(IGNORED):
            folders.clear()
            continue
        found |= {os.path.join(base, name) for name in (*folders, *files)}
    return {path for path in found if not path.startswith(IGNORED)}
