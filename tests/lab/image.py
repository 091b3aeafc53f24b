"""The disk of a lab machine: a small Debian with a kernel, made from this host's package sources without mounts or loop devices.

`python -m tests.lab.image` builds it, in about a minute, and keeps it under .cache/lab until its recipe changes (this file,
rootfs/, the kernel chosen by LAB_KERNEL: "backports", which is new, or "stable", which is this release's own).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
KERNEL = os.environ.get("LAB_KERNEL", "backports")
CACHE = HERE.parents[1] / ".cache/lab"
ROOTFS = HERE / "rootfs"  # laid into the image before packages are configured

SYSTEM = "initramfs-tools lz4 zstd systemd-sysv dbus udev kmod openssh-server apparmor procps iproute2 ca-certificates"
PRODUCT = "python3 python3-venv busybox-static nftables libseccomp2"
WITNESSES = "runc crun gcc libc6-dev strace iputils-ping"
LEFT_OUT = ("man", "doc", "locale", "info")
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer"
)
# Under emulation these two profiles alone would take as long to compile as the machine to boot.
SLOW_PROFILES = ("lsb_release", "nvidia_modprobe")


class Image(NamedTuple):
    """A root file system (raw, read by overlays only), the kernel that boots it, and the key that logs in as root."""

    disk: Path
    kernel: Path
    initrd: Path
    key: Path


def find() -> Image | None:
    """Return the image if it has been built."""
    made = _directory()
    return Image(made / "root.raw", made / "vmlinuz", made / "initrd.img", made / "key") if made.exists() else None


def build() -> None:
    """Build the image in place of older ones with that kernel. Needs root, mmdebstrap and the package sources' host."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"image-{KERNEL}-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        _build(Path(scratch))
        (Path(scratch) / "image").rename(_directory())


def _directory() -> Path:
    files = sorted(path for path in ROOTFS.rglob("*") if path.is_file())
    parts = [Path(__file__).read_bytes(), *(bytes(path) + path.read_bytes() for path in files)]
    recipe = hashlib.sha256(b"".join(parts)).hexdigest()
    return CACHE / f"image-{KERNEL}-{recipe[:12]}"


def _build(scratch: Path) -> None:
    made, tree, archive = scratch / "image", scratch / "tree", scratch / "root.tar"
    made.mkdir()
    tree.mkdir()
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", made / "key")
    _debootstrap(archive)
    # With extended attributes, which hold file capabilities; devices come with devtmpfs.
    _run("tar", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "-xf", archive, "-C", tree)
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(made / "key.pub", tree / "root/.ssh/authorized_keys")
    for name in SLOW_PROFILES:
        (tree / "etc/apparmor.d" / name).unlink(missing_ok=True)
    for name in ("vmlinuz", "initrd.img"):
        (found,) = (tree / "boot").glob(f"{name}-*")
        found.rename(made / name)
    make_disk(made / "root.raw", tree, "3G")


def _debootstrap(archive: Path) -> None:
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    linux = "linux-image-cloud-amd64" + (f"/{codename}-backports" if KERNEL == "backports" else "")
    packages = [linux, *f"{SYSTEM} {PRODUCT} {WITNESSES}".split()]
    _run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", "--quiet"),
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
        f"--include={','.join(packages)}",
        f'--essential-hook=cp -r {ROOTFS}/. "$1"',
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service',
        f'--customize-hook=chroot "$1" systemctl mask {MASKED}',
        *(codename, archive, *_sources(codename)),
    )


def _sources(codename: str) -> list[str]:
    """This host's own sources of its release, and backports from the same place."""
    form = ["--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"]
    listed = sorted(set(_run("apt-get", "indextargets", *form).split("\n")) - {""})
    lines = [f"deb {line} main" for line in listed]
    if KERNEL == "backports":
        (base,) = (line.split()[0] for line in listed if line.split()[1] == codename)
        lines.append(f"deb {base} {codename}-backports main")
    return lines


def make_disk(disk: Path, tree: Path, size: str) -> None:
    """Write an ext4 file system with the files of a directory into a sparse file; nothing is mounted."""
    with disk.open("wb"):
        os.truncate(disk, int(size.removesuffix("G")) << 30)
    _run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0", "-d", tree, disk)


def _run(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, argv))} failed ({done.returncode}):\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    if find() is None:
        print(f"lab: building a machine's image with the kernel of {KERNEL}: about a minute, once")
        build()
