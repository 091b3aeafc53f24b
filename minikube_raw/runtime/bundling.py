"""Writes the OCI bundle of a container that runs: config.json from its record (bundle.py), rootfs from its image's layers.

The bundle joins the pod's namespaces through the container's first process, so it is good for as long as that one lives.
The root file system is the image's, as the container found it; nothing of the running one is touched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.linux import capabilities, mounts, namespaces
from minikube_raw.linux.cgroup_mounts import Hierarchies, hierarchies

from . import bundle, rootfs, seccomp, users
from .cri import NamespaceMode, NamespaceOption
from .layout import Layout
from .pods import read_identity
from .records import ContainerRecord, Identity, SandboxRecord, Shelf

_JOINED = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}  # OCI's word for a namespace → /proc/PID/ns


def write(directory: Path, layout: Layout, container_id: str) -> None:
    """Makes `directory` the bundle of a container. LookupError: it does not run here. FileExistsError, OSError.

    NotImplementedError for a container in a user namespace: its ids are mapped by mounts, which a bundle cannot take along.
    """
    record = _record(layout, container_id)
    if _in_user_namespace(read_identity(layout, container_id)):
        raise NotImplementedError("a container in a user namespace of its own has no bundle")
    lowers: list[str] = record.request["rootfs"]["lowers"]
    (directory / "rootfs").mkdir(parents=True)
    copy_layers(lowers, directory / "rootfs")
    document = describe(layout, record, directory / "rootfs")
    (directory / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))


def describe(layout: Layout, record: ContainerRecord, root: Path) -> dict[str, Any]:
    """Returns config.json of a container that runs; `root` is its file system, for the names of users."""
    identity = read_identity(layout, record.id)
    sandbox = Shelf(layout.sandbox_records, SandboxRecord).read(record.sandbox_id)
    if identity is None or sandbox is None:
        raise LookupError(f"container {record.id} does not run here")
    spec = record.request["spec"]
    facts = bundle.Facts(
        user=_user(root, spec["process"]["user"]),
        namespaces=_namespaces(sandbox.config.namespaces, identity.pid),
        available=capabilities.available(),
        shm=layout.shm(record.sandbox_id),
        oom_score_adj=int(Path(f"/proc/{identity.pid}/oom_score_adj").read_text()),
        seccomp=seccomp.document(record.config.security, spec["process"]["capabilities"], os.uname().machine),
        devices=rootfs.host_devices() if spec["linux"].get("hostDevices") else (),
        unlimited=_unlimited(hierarchies()),
    )
    return bundle.config(spec, facts)


def copy_layers(lowers: Sequence[str], target: Path) -> None:
    """Copies the merged layers (uppermost first), with owners, times, links and attributes, into an empty directory."""

    def merge_and_copy() -> None:
        namespaces.unshare(namespaces.CLONE_FS | namespaces.CLONE_NEWNS)
        mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
        mounts.overlay(merged, lowers)
        subprocess.run(["cp", "-a", f"{merged}/.", str(target)], check=True)

    merged = str(target.parent / "merged")
    os.mkdir(merged)
    try:
        namespaces.in_thread(merge_and_copy)  # the mount goes with the thread's namespace
    finally:
        os.rmdir(merged)


def _in_user_namespace(identity: Identity | None) -> bool:
    """Says whether a process has another user namespace than we."""
    if identity is None:
        return False
    try:
        return os.stat(f"/proc/{identity.pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    except FileNotFoundError as error:
        raise LookupError(f"process {identity.pid} has ended") from error


def _record(layout: Layout, container_id: str) -> ContainerRecord:
    record = Shelf(layout.container_records, ContainerRecord).read(container_id)
    if record is None:
        raise LookupError(f"there is no record of container {container_id}")
    return record


def _user(root: Path, wanted: dict[str, Any]) -> users.User:
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        texts = [users.read_in_root(directory, path) for path in ("/etc/passwd", "/etc/group")]
    finally:
        os.close(directory)
    gid, supplemental, strict = wanted.get("gid"), wanted.get("additionalGids", ()), wanted.get("strict", False)
    return users.resolve(
        wanted.get("username", ""), texts[0], texts[1], gid=gid, supplemental=supplemental, strict=strict
    )


def _unlimited(host: Hierarchies) -> list[str]:
    """What of OCI's resources has no file here: v2's own files beside v1, huge pages where v1 is mounted without them."""
    if host.mode == "v2":
        return [] if "hugetlb" in host.unified_controllers else ["hugepageLimits"]
    return ["unified", *([] if "hugetlb" in host.v1 else ["hugepageLimits"])]


def _namespaces(modes: NamespaceOption, pid: int) -> dict[str, str]:
    """The pod's own are joined through the process `pid`; a PID namespace of the container's own is a new one in the bundle."""
    wanted = {"pid": modes.pid, "network": modes.network, "ipc": modes.ipc, "uts": modes.network}
    return {
        kind: "" if mode is NamespaceMode.CONTAINER else f"/proc/{pid}/ns/{_JOINED[kind]}"
        for kind, mode in wanted.items()
        if mode is not NamespaceMode.NODE
    }
