"""What on this host would hinder a cluster, and the cure. `up` refuses what is fatal and mentions the rest.

Every check tries or reads the thing itself; nothing is concluded from version numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from cgroupspy import trees

from minikube_raw.cli.errors import Failure
from minikube_raw.cli.output import Table, print_as
from minikube_raw.linux import cgroups, features

CGROUPS = Path("/sys/fs/cgroup")
INOTIFY_PER_NODE = 8


class Finding(msgspec.Struct, frozen=True):
    """One thing that is in the way. Fatal ones make `up` refuse."""

    what: str
    cure: str
    fatal: bool = False


@click.command()
@click.option("-o", "output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def doctor(output: str) -> None:
    """Say what on this host would hinder a cluster, and the cure."""
    findings = [msgspec.to_builtins(finding) for finding in examine()]
    print_as(output, {"findings": findings, "kernel": features.all()}, tables)
    if any(finding["fatal"] for finding in findings):
        raise SystemExit(1)


def examine() -> Iterator[Finding]:
    """Yield everything that is in the way, fatal things first."""
    for check in CHECKS:
        yield from check()


def refuse_if_hopeless() -> list[Finding]:
    """Raise Failure for the first fatal finding; return those that a new cluster's owner should know at once."""
    for check in (check_overlay, check_loopback):
        for finding in check():
            raise Failure(finding.what, finding.cure)
    return [*check_programs(), *check_forwarding()]


def check_overlay() -> Iterator[Finding]:
    """Container root file systems are overlays."""
    if not features.overlay():
        yield Finding(
            "this kernel cannot mount overlayfs",
            "load it with `modprobe overlay`, or use a kernel with CONFIG_OVERLAY_FS",
            True,
        )


def check_loopback() -> Iterator[Finding]:
    """The API listens on 127.0.0.1; in a network namespace just made, lo is down, and Linux 6.18 lets one listen all the same."""
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            client.connect(server.getsockname())
        except OSError as error:
            yield Finding(f"nothing can be reached on 127.0.0.1: {error.strerror}", "ip link set lo up", True)


def check_programs() -> Iterator[Finding]:
    """The busybox image is made from the host's static busybox."""
    if not shutil.which("busybox"):
        yield Finding(
            "busybox is not installed, so `image: busybox` cannot be built",
            "make setup, or: apt install busybox-static",
        )


def check_cgroups() -> Iterator[Finding]:
    """Limits need the memory, cpu and pids controllers, on v1 or v2."""
    available = {controller.split()[0] for controller in Path("/proc/cgroups").read_text().splitlines()[1:]}
    for name in sorted({"memory", "cpu", "pids"} - available):
        yield Finding(
            f"the kernel has no {name} cgroup controller: {name} limits are not enforced",
            f"boot with cgroup_enable={name}",
        )


def check_forwarding() -> Iterator[Finding]:
    """Another table's dropping forward chain cuts pods off from the world, though not from each other."""
    for family, table, chain in dropping_chains():
        yield Finding(
            f"nftables chain {family} {table} {chain} drops forwarded packets: pods reach each other but nothing outside this host",
            f"nft insert rule {family} {table} {chain} iifname mkr* accept",
        )


def check_limits() -> Iterator[Finding]:
    """Limits that every namespace of the host shares."""
    instances = number("/proc/sys/fs/inotify/max_user_instances")
    if instances is not None and instances < 20 * INOTIFY_PER_NODE:
        yield Finding(
            f"fs.inotify.max_user_instances is {instances}: workloads that watch files fail with `too many open files` early",
            "sysctl -w fs.inotify.max_user_instances=1024",
        )
    pids = number("/proc/sys/kernel/pid_max")
    if pids is not None and pids < 65536:
        yield Finding(f"kernel.pid_max is {pids}: all pods of this host share it", "sysctl -w kernel.pid_max=4194304")


def check_leftovers() -> Iterator[Finding]:
    """cgroups of ours in which no process lives: what a crash left and no `down` has removed yet."""
    for group in top_cgroups():
        if group.name.startswith("minikube-raw") and not populated(group):
            cure = f"if no cluster is meant to be there: find {group} -depth -type d -exec rmdir {{}} +"
            yield Finding(f"{group} holds no process", cure)


def top_cgroups() -> Iterator[Path]:
    """Directories of the cgroups directly below each hierarchy's root; v1's trees as cgroupspy reads them."""
    if cgroups.detect() == "v2":
        yield from (path for path in CGROUPS.iterdir() if path.is_dir())
        return
    for hierarchy in trees.Tree().root.children:
        yield from (CGROUPS / os.fsdecode(hierarchy.name) / os.fsdecode(group.name) for group in hierarchy.children)


def populated(group: Path) -> bool:
    """Whether a process lives in a cgroup or below it."""
    return any(procs.read_text() for procs in group.rglob("cgroup.procs"))


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_overlay,
    check_loopback,
    check_cgroups,
    check_programs,
    check_forwarding,
    check_limits,
    check_leftovers,
)


def dropping_chains() -> Iterator[tuple[str, str, str]]:
    """Yield (family, table, chain) of base chains at the forward hook whose policy is drop."""
    if not shutil.which("nft") or os.geteuid() != 0:
        return
    listed = subprocess.run(["nft", "-j", "list", "chains"], capture_output=True, text=True)
    if listed.returncode:
        return
    entries: list[dict[str, Any]] = json.loads(listed.stdout)["nftables"]
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            yield chain["family"], chain["table"], chain["name"]


def number(path: str) -> int | None:
    """A sysctl's number, None where the kernel or namespace has no such sysctl."""
    try:
        return int(Path(path).read_text())
    except FileNotFoundError:
        return None


def tables(data: dict[str, Any]) -> list[Table]:
    """Findings and kernel features for people."""
    found = [("fatal" if f["fatal"] else "note", f["what"], f["cure"]) for f in data["findings"]]
    kernel = [(name, "yes" if there else "no") for name, there in sorted(data["kernel"].items())]
    return [Table(("", "FINDING", "CURE"), found or [("", "nothing is in the way", "")]), Table(("KERNEL", ""), kernel)]
