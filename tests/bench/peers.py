"""What pod start is compared with: commands of other runtimes that start one container on the same root file system.

Each in directories of its own, below those that a test's mount namespace hides from the host. What a peer needs and the
host does not give (podman's default limits, without CAP_SYS_RESOURCE) is told on its command line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from minikube_raw.linux import mounts

PLUGINS = Path("/usr/lib/cni")  # containernetworking-plugins
CTR_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "bench-ctr",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "benchctr0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.248.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}


class Peer(NamedTuple):
    """A command that starts the clock of `image` under `name`; ID in it is a new name each time. `most`: ours to it."""

    name: str
    command: list[str]
    most: float
    note: str


@contextmanager
def installed(folder: Path, archive: Path, image: str) -> Iterator[list[Peer]]:
    """Those that are here. `folder` has the root file system as `rootfs`, `archive` the same as an image."""
    with ExitStack() as stack:
        found = []
        if shutil.which("runc"):
            found.append(runc(folder))
        if shutil.which("containerd") and PLUGINS.is_dir():
            found.append(stack.enter_context(ctr(folder, archive, image)))
        if shutil.which("podman"):
            found.append(stack.enter_context(podman(folder)))
        yield found


def runc(folder: Path) -> Peer:
    """`runc run` alone: no network, no overlay."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "rootfs").symlink_to(folder / "rootfs")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/clock"]}
    spec["root"] = {"path": str(folder / "rootfs"), "readonly": True}
    (bundle / "config.json").write_text(json.dumps(spec))
    command = ["runc", "--root", str(folder / "runc"), "run", "--bundle", str(bundle), "ID"]
    return Peer("runc run", command, 0.7, "no network, no overlay")


@contextmanager
def ctr(folder: Path, archive: Path, image: str) -> Iterator[Peer]:
    """`ctr run --cni` with a containerd of our own and the reference plugins: bridge and masquerading as ours."""
    with covered("/etc/cni/net.d"), covered("/var/lib/cni"), covered("/opt/cni/bin"), containerd(folder) as command:
        mounts.bind(str(PLUGINS), "/opt/cni/bin")
        Path("/etc/cni/net.d/10-bench.conflist").write_text(json.dumps(CTR_NETWORK))
        subprocess.run([*command, "images", "import", str(archive)], check=True, capture_output=True)
        try:
            yield Peer("ctr run --cni", [*command, "run", "--rm", "--cni", image, "ID"], 0.2, "bridge and overlay")
        finally:
            mounts.umount("/opt/cni/bin")
            subprocess.run(["ip", "link", "delete", "benchctr0"], capture_output=True, check=False)


@contextmanager
def podman(folder: Path) -> Iterator[Peer]:
    """`podman run` with its default bridge network, on the root file system as it lies there (no overlay)."""
    places = {"--root": "root", "--runroot": "runroot", "--tmpdir": "tmp", "--network-config-dir": "networks"}
    # crun, which it would take where that is installed, refuses hybrid hosts
    command = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    for option, name in places.items():
        (folder / "podman" / name).mkdir(parents=True)
        command += [option, str(folder / "podman" / name)]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    run = [*command, "run", "--rm", "--name", "ID", *limits, "--rootfs", str(folder / "rootfs"), "/clock"]
    with covered("/var/lib/cni"):
        try:
            yield Peer("podman run", run, 1 / 15, "its bridge network, no overlay")
        finally:
            subprocess.run(["ip", "link", "delete", "cni-podman0"], capture_output=True, check=False)
            forget_cgroup("libpod_parent")


@contextmanager
def containerd(folder: Path) -> Iterator[list[str]]:
    """A containerd of our own in the folder, and the ctr command that talks to it."""
    socket = folder / "containerd.sock"
    config = folder / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/ctr-root"\nstate = "{folder}/ctr-state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\n  address = "{socket}"\n[ttrpc]\n  address = "{socket}.ttrpc"\n'
    )
    with (
        open(folder / "containerd.log", "wb") as log,
        subprocess.Popen(["containerd", "-c", config], stderr=log) as daemon,
    ):
        deadline = time.monotonic() + 20
        try:
            while subprocess.run(["ctr", "-a", socket, "version"], capture_output=True).returncode:
                if time.monotonic() > deadline:
                    raise TimeoutError((folder / "containerd.log").read_text()[-2000:])
                time.sleep(0.1)
            yield ["ctr", "-a", str(socket)]
        finally:
            daemon.terminate()
    forget_cgroup("default")  # ctr makes it, named after its namespace, and leaves it behind


def forget_cgroup(name: str) -> None:
    """Removes an empty cgroup and all below it from every hierarchy, also from those we have nothing in."""
    for root in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for directory, _, _ in os.walk(root, topdown=False):
            os.rmdir(directory)


@contextmanager
def covered(directory: str) -> Iterator[None]:
    """An empty tmpfs over a directory of the host's, made (and removed again) where it is missing."""
    made = [str(path) for path in (*reversed(Path(directory).parents), Path(directory)) if not path.exists()]
    Path(directory).mkdir(parents=True, exist_ok=True)
    mounts.tmpfs(directory)
    try:
        yield
    finally:
        mounts.umount(directory)
        for path in reversed(made):
            with suppress(OSError):
                Path(path).rmdir()
