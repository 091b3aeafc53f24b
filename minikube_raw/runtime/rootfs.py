"""A container's file system, built by the child that will become the container: overlay, pivot, then one mount after the other.

The root is switched first and everything else is mounted inside it, so no name in the image can lead outside: there is no
outside any more. The list of mounts comes from the OCI spec (spec.py); volumes arrive as descriptors of detached mounts,
which the kubelet opened in its own mount namespace. After enter() nothing may be imported, looked up or dlopened.
"""

from __future__ import annotations

import errno
import os
import stat

from minikube_raw.linux import features, files, mounts, paths, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Spec = dict[str, Any]

_FLAGS: dict[str, int] = {
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "ro": mounts.MS_RDONLY,
    "relatime": mounts.MS_RELATIME,
    "strictatime": 1 << 24,  # MS_STRICTATIME
}
_PROPAGATION: dict[str, int] = {"rprivate": mounts.MS_PRIVATE, "rslave": mounts.MS_SLAVE, "rshared": mounts.MS_SHARED}
# runc, libcontainer/specconv DefaultDevices.
_DEVICES: tuple[tuple[str, int, int], ...] = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS: tuple[tuple[str, str], ...] = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def enter(lowers: Sequence[str], upper: str, work: str, mount_point: str) -> int:
    """Mounts the layers (uppermost first) under a fresh writable one and makes that the root; returns the root's descriptor."""
    mounts.overlay(mount_point, lowers, upper, work, volatile=True)
    mounts.switch_root(mount_point)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def enter_mount(mount: int, mount_point: str) -> int:
    """Makes a detached mount the root, as enter() does with layers of its own; the root's descriptor."""
    mounts.move_mount(mount, mount_point)
    os.close(mount)
    mounts.switch_root(mount_point)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def sorted_volumes(spec: Spec, volumes: Sequence[int], *, images_opened: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Splits descriptors that arrived: those of bind entries, and those of image entries if they were opened for us."""
    binds = sum(entry["type"] == "bind" for entry in spec["mounts"])
    images = sum(entry["type"] == "image" for entry in spec["mounts"]) if images_opened else 0
    return volumes[:binds], volumes[binds : binds + images]


def open_images(spec: Spec, mount_point: str, opened: Sequence[int] = ()) -> list[int]:
    """Opens the volumes that are images (or what their `path` names in them) as detached mounts; before enter().

    `opened` has their layers as mounts where we could not make them ourselves, in a user namespace.
    """
    left, found = list(opened), []
    for entry in spec["mounts"]:
        if entry["type"] != "image":
            continue
        with steps.step("mount image", entry["destination"]):
            if left:
                mounts.move_mount(left[0], mount_point)
                os.close(left.pop(0))
            elif len(entry["layers"]) == 1:  # which is no overlay: that would want two
                mounts.bind(entry["layers"][0], mount_point, recursive=False)
            else:
                mounts.overlay(mount_point, entry["layers"])
            try:
                found.append(_open_inside(mount_point, entry["path"]))
            finally:
                mounts.umount(mount_point, mounts.MNT_DETACH)  # the keeper may hold it yet
    return found


def _open_inside(place: str, path: str) -> int:
    """Returns a detached copy of the mount at a place, or of what a path names in it that no link leads out of."""
    if not path:
        return mounts.open_tree(place, recursive=False)
    top = os.open(place, os.O_PATH | os.O_CLOEXEC)
    found = -1
    try:
        found = mounts.open_beneath(top, path)
        return mounts.open_tree("", recursive=False, dirfd=found)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        for fd in (top, found):
            if fd >= 0:
                os.close(fd)


def open_visible(devices: Sequence[tuple[str, int, int]]) -> dict[str, int]:
    """Opens what a user namespace may mount only while it sees the like (proc, sysfs) and nodes it cannot make; before enter().

    The kernel refuses a new proc or sysfs to a mount namespace that has none in full view (mount_too_revealing).
    """
    opened = {kind: mounts.open_filesystem(kind) for kind in ("proc", "sysfs")}
    for name in [*(name for name, _, _ in _DEVICES), *(name for name, _, _ in devices)]:
        if name not in opened:
            opened[name] = mounts.open_tree(f"/dev/{name}", recursive=False)
    return opened


def populate(
    root: int,
    spec: Spec,
    volumes: Sequence[int],
    images: Sequence[int],
    devices: Sequence[tuple[str, int, int]],
    visible: dict[str, int] | None = None,
) -> int:
    """Mounts all that `spec` lists; `volumes` and `images` are the detached mounts of its bind and image entries in order.

    Returns the null device.

    `devices` are (path below /dev, mode with type, device number) to make beside the standard ones: the host's, when privileged.
    `visible` has what was opened beforehand (open_visible): by a file system's type or a device's path.
    """
    left, visible, null = {"bind": list(volumes), "image": list(images)}, visible or {}, -1
    for entry in spec["mounts"]:
        with steps.step(f"mount {entry['type']}", entry["destination"]):
            if entry["type"] in left:
                _attach_volume(root, entry, left[entry["type"]].pop(0))
            else:
                _mount_system(root, entry, visible)
                if entry["destination"] == "/dev":
                    _make_devices(devices, visible)
                    # Now: a volume mounted on /dev later may call anything so (CVE-2025-31133).
                    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    _cover(spec["linux"], null)
    return null


def attach_volumes(root: int, spec: Spec, volumes: Sequence[int], images: Sequence[int]) -> None:
    """Mounts what populate() would of bind and image entries alone, where all else is there already."""
    left = {"bind": list(volumes), "image": list(images)}
    for entry in spec["mounts"]:
        if entry["type"] in left:
            with steps.step(f"mount {entry['type']}", entry["destination"]):
                _attach_volume(root, entry, left[entry["type"]].pop(0))


def place_for_system(root: int, destination: str) -> int:
    """Opens the place of one of the kernel's file systems, made if it is missing.

    It must not be a link: over a link /proc would land elsewhere (CVE-2019-16884).
    """
    os.close(paths.make_directories_in_root(root, destination))
    return paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY, resolve=paths.RESOLVE_NO_SYMLINKS)


def make_console(root: int, terminal: int) -> None:
    """Shows the container's terminal as /dev/console too, by descriptors: neither name can be swapped (CVE-2025-52565)."""
    place = _place(root, "/dev/console", is_directory=False)
    console = mounts.open_tree("", recursive=False, dirfd=terminal)
    try:
        mounts.move_mount(console, "", place)
    finally:
        os.close(console)
        os.close(place)


def finish(spec: Spec) -> None:
    """Makes the root read-only if asked; the last change to the file system."""
    if spec["root"].get("readonly"):
        mounts.mount("", "/", "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY | mounts.MS_RELATIME)


def _mount_system(root: int, entry: Spec, visible: dict[str, int]) -> None:
    """Mounts one of the kernel's file systems."""
    destination: str = entry["destination"]
    if not destination.startswith("/dev/") and not destination.startswith("/sys/"):
        os.close(place_for_system(root, destination))
    elif destination.startswith("/dev/"):
        files.make_directory(destination)
    options = entry.get("options", ())
    flags = 0
    for option in options:
        flags |= _FLAGS.get(option, 0)
    data = ",".join(option for option in options if option not in _FLAGS)
    if entry["type"] in visible:
        _attach_visible(visible[entry["type"]], destination, readonly=bool(flags & mounts.MS_RDONLY))
    elif entry["type"] == "cgroup":
        _mount_cgroups(destination, flags, entry["controllers"])
    else:
        mounts.mount(entry["source"], destination, entry["type"], flags, data)


def _mount_cgroups(destination: str, flags: int, controllers: Sequence[tuple[str, str]]) -> None:
    """Mounts the container's cgroup namespace: each v1 controller below a tmpfs, or the unified hierarchy alone."""
    if not controllers:
        mounts.mount("cgroup", destination, "cgroup2", flags)
        return
    mounts.mount("tmpfs", destination, "tmpfs", flags & ~mounts.MS_RDONLY, "mode=755")
    for name, options in controllers:
        files.make_directory(f"{destination}/{name}")
        mounts.mount("cgroup", f"{destination}/{name}", "cgroup", flags, options)
        for alias in options.split(","):
            if alias != name and "," in options:
                files.make_symlink(f"{destination}/{alias}", name)
    os.chmod(destination, 0o555)


def _attach_visible(mount: int, destination: str, *, readonly: bool = False) -> None:
    if readonly:
        mounts.mount_setattr("", set=mounts.MOUNT_ATTR_RDONLY, dirfd=mount)
    mounts.move_mount(mount, destination)
    os.close(mount)


def _make_device(name: str, mode: int, number: int, visible: dict[str, int]) -> None:
    if name in visible:
        files.make_empty_file(f"/dev/{name}")
        _attach_visible(visible[name], f"/dev/{name}")
    else:
        os.mknod(f"/dev/{name}", mode, number)


def _make_devices(extra: Sequence[tuple[str, int, int]], visible: dict[str, int]) -> None:
    for name, major, minor in _DEVICES:
        if name in visible:
            _make_device(name, 0, 0, visible)
        else:
            files.make_character_device(f"/dev/{name}", major, minor)
    for name, target in _LINKS:
        files.make_symlink(f"/dev/{name}", target)
    if os.access("/proc/kcore", os.F_OK):  # not every kernel has one
        files.make_symlink("/dev/core", "/proc/kcore")
    standard = {name for name, _, _ in _DEVICES}
    for name, mode, number in extra:
        if name not in standard:
            _make_parents(name)
            _make_device(name, mode, number, visible)


def _make_parents(name: str) -> None:
    """Makes the directories that a device below /dev lies in; os.makedirs would give the upper ones the mode of the umask."""
    for end, letter in enumerate(name):
        if letter == "/":
            files.make_directory(f"/dev/{name[:end]}")


def host_devices() -> list[tuple[str, int, int]]:
    """Lists the device nodes of our own /dev, for a privileged container; call before enter()."""
    found: list[tuple[str, int, int]] = []
    for directory, names, devices in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "fd")]
        for name in devices:
            status = os.lstat(f"{directory}/{name}")
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                found.append((f"{directory}/{name}"[len("/dev/") :], status.st_mode, status.st_rdev))
    return [device for device in found if device[0] not in ("console", "ptmx")]


def _attach_volume(root: int, entry: Spec, volume: int) -> None:
    """Attaches one volume at its place inside the root, made if it is missing; a place on /proc is refused."""
    destination: str = entry["destination"]
    is_directory = stat.S_ISDIR(os.fstat(volume).st_mode)
    target = _place(root, destination, is_directory)
    try:
        if _is_in_proc(target):
            raise OSError(errno.EPERM, "cannot be mounted because it is inside /proc", destination)
        options = entry.get("options", ())
        propagation = next((_PROPAGATION[option] for option in options if option in _PROPAGATION), 0)
        if features.mount_setattr():
            _prepare_volume(volume, options, propagation)
            mounts.move_mount(volume, "", target)
        else:
            mounts.move_mount(volume, "", target)
            _change_volume(f"/proc/self/fd/{volume}", options, propagation)
    finally:
        os.close(target)
        os.close(volume)


def _is_in_proc(place: int) -> bool:
    """Says whether an open file is one of procfs's, or of what masks one of them."""
    if os.fstat(place).st_dev == os.stat("/proc").st_dev:
        return True
    return os.readlink(f"/proc/self/fd/{place}").startswith("/proc/")


def _prepare_volume(volume: int, options: Sequence[str], propagation: int) -> None:
    """Makes a detached mount read-only, with `rro` together with all mounts in it, and sets their propagation."""
    if "noexec" in options:
        mounts.mount_setattr("", set=mounts.MOUNT_ATTR_NOEXEC, dirfd=volume)
    if "ro" in options or "rro" in options:
        mounts.mount_setattr("", set=mounts.MOUNT_ATTR_RDONLY, recursive="rro" in options, dirfd=volume)
    if propagation:
        mounts.mount_setattr("", propagation=propagation, recursive=True, dirfd=volume)


def _change_volume(place: str, options: Sequence[str], propagation: int) -> None:
    """Does the same on kernels before 5.12 to a mount that is attached; they know no `rro`."""
    if "noexec" in options:
        mounts.mount("", place, "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_NOEXEC)
    if "ro" in options:
        mounts.make_readonly(place, recursive=False)
    if propagation:
        mounts.set_propagation(place, propagation | mounts.MS_REC)


def _place(root: int, destination: str, is_directory: bool) -> int:
    """Opens the mount point, making directories and an empty file as needed; raises OSError when its type does not fit."""
    if is_directory:
        return paths.make_directories_in_root(root, destination)
    try:
        target = paths.open_in_root(root, destination, os.O_PATH)
    except FileNotFoundError:
        parent = paths.make_directories_in_root(root, os.path.dirname(destination))
        try:
            files.make_empty_file(os.path.basename(destination), dir_fd=parent)
            return paths.open_in_root(parent, os.path.basename(destination), os.O_PATH)
        finally:
            os.close(parent)
    if stat.S_ISDIR(os.fstat(target).st_mode):
        os.close(target)
        raise IsADirectoryError(errno.EISDIR, "not a directory: a file cannot be mounted over a directory", destination)
    return target


def _cover(linux: Spec, null: int) -> None:
    """Hides (below the null device) and write-protects parts of /proc and /sys; what this kernel has not is passed over."""
    for path in linux.get("readonlyPaths", ()):
        if os.path.lexists(path):
            mounts.bind(path, path, readonly=True)
    for path in linux.get("maskedPaths", ()):
        try:
            is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError:
            continue
        if is_directory:
            mounts.mount("tmpfs", path, "tmpfs", mounts.MS_RDONLY | mounts.MS_RELATIME)
        else:
            cover = mounts.open_tree("", recursive=False, dirfd=null)
            mounts.move_mount(cover, path)
            os.close(cover)
