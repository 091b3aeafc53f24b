"""Removes from a node what no record owns: the leftovers of crashes, half-made pods, and sandboxes somebody forgot.

Looks only into directories that are the runtime's own, and at cgroups that carry a sandbox's or container's id; whatever
has another name is somebody else's. Network attachments are CNI's to collect (libcni gc).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from minikube_raw.linux import namespaces
from minikube_raw.linux.cgroups import Cgroup, manager

from . import wire
from .containers import SnapshotStore
from .layout import KEEPER_SOCKET, Layout

QUIT_SECONDS = 2.0
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


class Owned:
    """What records own: ids of sandboxes and containers, and the cgroups of pods."""

    def __init__(self, sandboxes: set[str], containers: set[str], cgroups: set[str]) -> None:
        self.sandboxes, self.containers, self.cgroups = sandboxes, containers, cgroups


def sweep(layout: Layout, cgroup_root: str, snapshots: SnapshotStore, owned: Owned) -> list[str]:
    """Removes everything else; returns what was removed, for the log. Never raises for a single thing that resists."""
    removed = [*_sweep_cgroups(f"{cgroup_root}/kubepods", owned)]
    removed += _sweep_directory(layout.netns_dir, owned.sandboxes, namespaces.unpin)
    removed += _sweep_directory(layout.sandboxes, owned.sandboxes, _remove_sandbox)
    removed += _sweep_directory(layout.containers, owned.containers, _remove_tree)
    for records in (layout.exit_records, layout.container_records):
        removed += _sweep_directory(records, {f"{name}.json" for name in owned.containers}, _remove_record)
    for container_id in set(snapshots.list()) - owned.containers:
        snapshots.remove(container_id)
        removed.append(f"snapshot {container_id}")
    return removed


def _sweep_directory(directory: str, owned: Iterable[str], remove: Callable[[str], None]) -> Iterator[str]:
    for name in sorted(set(os.listdir(directory)) - set(owned)):
        try:
            remove(f"{directory}/{name}")
        except OSError as error:
            yield f"{directory}/{name}: not removed, {error.strerror}"
        else:
            yield f"{directory}/{name}"


def _remove_sandbox(path: str) -> None:
    """Ends the keeper, if there is one, and removes what it shared with us."""
    with suppress(OSError), wire.connect(f"{path}/{KEEPER_SOCKET}") as keeper:
        keeper.settimeout(QUIT_SECONDS)
        wire.send(keeper, {"id": 0, "op": "quit"})
        wire.receive(keeper)
    _remove_tree(path)


def _remove_tree(path: str) -> None:
    shutil.rmtree(path)


def _remove_record(path: str) -> None:
    if not path.endswith(".unreadable"):
        os.unlink(path)


def _sweep_cgroups(root: str, owned: Owned) -> Iterator[str]:
    """Kills and removes containers' cgroups that no record owns, then pods' cgroups left empty by that."""
    for group in _descendants(manager(root)):
        name = group.path.rpartition("/")[2]
        container = _CONTAINER_ID.fullmatch(name) is not None and name not in owned.containers
        pod = name.startswith("pod") and group.path not in owned.cgroups
        if container or pod:
            try:
                group.kill_all(2)
                group.remove()
            except OSError as error:
                yield f"cgroup {group.path}: not removed, {error.strerror}"
            else:
                yield f"cgroup {group.path}"


def _descendants(group: Cgroup) -> Iterator[Cgroup]:
    """Children before their parents."""
    for name in group.children():
        child = group.child(name)
        yield from _descendants(child)
        yield child
