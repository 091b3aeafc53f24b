"""/proc, /dev and /sys with all that is in and over them, made by a child that waits to be told which container it becomes.

They are the same for nearly every container, and half of what is mounted in one. They wait as detached mounts, so that they can
be attached inside whatever root the container gets. One that wants others (privileged, a volume over them) makes its own.
"""

from __future__ import annotations

import os

from minikube_raw.linux import mounts, steps

from . import rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Spec = dict[str, Any]

_TOPS = ("/proc", "/dev", "/sys")
_VOLUMES = ("bind", "image")


class Prepared:
    """What was made of a `usual` spec (spec.usual_spec): detached trees by their place, and the null device in one of them."""

    __slots__ = ("null", "trees", "usual")

    def __init__(self, usual: Spec, place: str) -> None:
        """Makes them below a tmpfs at `place`, in the namespaces and the cgroup of the caller.

        That stays: it goes with the old root, and each umount2 waits for all CPUs (synchronize_rcu_expedited).
        """
        self.usual = usual
        self.trees: dict[str, int] = {}
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.tmpfs(place)
        stage = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(stage)
            os.chroot(".")
            with steps.step("prepare", " ".join(_TOPS)):
                os.close(rootfs.populate(stage, usual, (), (), ()))
                for destination in _TOPS:
                    self.trees[destination] = mounts.open_tree(destination)
                # Through the tree that will be attached: by the one that stays behind /proc/self/fd/0 would name /null.
                self.null = os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=self.trees["/dev"])
        finally:
            os.fchdir(top)
            os.chroot(".")
            os.close(stage)
            os.close(top)

    def fits(self, spec: Spec) -> bool:
        """Says whether a container with this spec finds in them exactly what would be made for it."""
        system = [entry for entry in spec["mounts"] if entry["type"] not in _VOLUMES]
        linux, usual = spec["linux"], self.usual["linux"]
        return (
            system == self.usual["mounts"]
            and not linux.get("hostDevices")
            and all(linux.get(key) == usual[key] for key in ("maskedPaths", "readonlyPaths"))
            and not any(_covers(entry["destination"]) for entry in spec["mounts"] if entry["type"] in _VOLUMES)
        )

    def attach(self, root: int) -> None:
        """Mounts them inside a root that we stand in by now."""
        for destination, tree in self.trees.items():
            with steps.step("mount prepared", destination):
                place = rootfs.place_for_system(root, destination)
                mounts.move_mount(tree, "", place)
                os.close(place)
        self._close()

    def discard(self) -> None:
        """Gives them up."""
        os.close(self.null)
        self._close()

    def _close(self) -> None:
        for tree in self.trees.values():
            os.close(tree)
        self.trees = {}


def _covers(destination: str) -> bool:
    """Says whether a volume is mounted over one of the trees, or into one where masks come after volumes."""
    place = os.path.normpath(destination)
    return place in ("/", "/dev") or f"{place}/".startswith(("/proc/", "/sys/"))
