"""Where a cluster's files lie on this host, and the record that says what the cluster is.

The record is written before anything it names is made, so that `down` and `start` after a crash at any line know what
may exist. State survives a reboot; everything in the run directory belongs to one boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.linux.durability import write_file

DEFAULT_RUN_DIR = Path("/run/minikube-raw")
HOST = 1
FIRST_NODE = 11


class NodeRecord(msgspec.Struct, frozen=True):
    """A node of the cluster: cpus and memory (bytes) limit its cgroup subtree, None shares the host's."""

    name: str
    ip: str
    cpus: float | None = None
    memory: int | None = None


class ClusterRecord(msgspec.Struct, frozen=True):
    """What a cluster on this host is made of. Addresses are text in CIDR or dotted form."""

    name: str
    link: str  # the host's one veth
    underlay: str
    pod_cidr: str
    service_cidr: str
    api_port: int
    kubeconfig: str
    nodes: tuple[NodeRecord, ...]
    store: str = "sqlite"
    ip_forward: str | None = None  # the host's value before us; None: we did not change it
    node_monitor_grace: float = 16.0  # seconds without a Lease until a node is NotReady
    # Of every node, as KubeletOptions has them: reservations, eviction and image thresholds, log rotation.
    kubelet: dict[str, dict[str, str] | list[str] | bool | int | float | str] = {}
    eviction_after: float = 5.0  # seconds until pods of a dead node move, where they only have the default tolerations

    @property
    def host_ip(self) -> str:
        """The host's own address on the underlay; the API server listens there too."""
        return str(ipaddress.ip_network(self.underlay)[HOST])


class Layout:
    """Paths of one cluster below the state and the run directory."""

    def __init__(self, state_dir: Path, run_dir: Path, name: str) -> None:
        self.name = name
        self.state_root = state_dir
        self.run_root = run_dir
        self.state = state_dir / "clusters" / name
        self.run = run_dir / "clusters" / name
        self.record = self.state / "cluster.json"
        self.pki = self.state / "pki"
        self.store = self.state / "store.sqlite"
        self.images = state_dir / "images"
        self.underlay_netns = self.run / "underlay.net"
        self.logs = self.state / "logs"

    def node_state(self, node: str) -> Path:
        """What of a node survives a power cut."""
        return self.state / "nodes" / node

    def node_run(self, node: str) -> Path:
        """The mount point of a node's own tmpfs; empty on the host's side."""
        return self.run / "nodes" / node

    def process(self, name: str) -> Path:
        """The record of a background process started from the host: `master`, or `machine-NODE`."""
        return self.run / f"{name}.process.json"

    @property
    def cgroup_root(self) -> str:
        """The cgroup of this installation below every hierarchy's root: cgroups have no namespace that a directory could isolate."""
        if self.run_root == DEFAULT_RUN_DIR:
            return "minikube-raw"
        return f"minikube-raw-{hashlib.sha256(os.fsencode(self.run_root)).hexdigest()[:8]}"

    def cgroup(self, node: str | None = None) -> str:
        """The cgroup of the cluster, or of one node."""
        return f"{self.cgroup_root}/{self.name}" + (f"/{node}" if node else "")

    def load(self) -> ClusterRecord | None:
        """The cluster's record, None if there is no such cluster. Raises ValueError when it cannot be read as one.

        A damaged record is read from its copy in the run directory, which lasts as long as what it describes.
        """
        try:
            return read_record(self.record)
        except ValueError:
            if (copy := read_record(self.run / self.record.name)) is not None:
                return copy
            raise

    def remains(self) -> ClusterRecord | None:
        """The record as far as removal needs it: without the kubelets' options, which another release may have written.

        None if there is no record. Raises ValueError when not even that can be read.
        """
        copy = self.run / self.record.name
        try:
            return self.load() or read_record(copy)
        except ValueError:
            for path in (self.record, copy):
                with contextlib.suppress(OSError, msgspec.MsgspecError):
                    found = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
                    return msgspec.convert({**found, "kubelet": {}}, ClusterRecord)
            raise

    def save(self, record: ClusterRecord) -> None:
        """Write the record and its copy; a crash leaves the old one or the new one. Raises ValueError for one that cannot be read back."""
        data = msgspec.json.format(msgspec.json.encode(record), indent=2)
        decode_record(data, self.record)
        for folder in (self.state, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(folder / self.record.name, data, sync=True)

    def remove(self) -> None:
        """Remove the cluster's directories, and those above them that are empty afterwards. A missing one is fine."""
        for tree, root in ((self.run, self.run_root), (self.state, self.state_root)):
            shutil.rmtree(tree, ignore_errors=True)
            remove_empty(tree.parent, down_to=root.parent)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time works on the clusters of a run directory. Raises BlockingIOError if another does."""
        self.run_root.mkdir(parents=True, exist_ok=True)
        fd = os.open(
            self.run_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )  # the directory itself: no lock file to leave behind
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)


def read_record(path: Path) -> ClusterRecord | None:
    """Read a cluster's record, None if there is no file. Raises ValueError when it cannot be read as one."""
    try:
        return decode_record(path.read_bytes(), path)
    except FileNotFoundError:
        return None


def decode_record(data: bytes, path: Path) -> ClusterRecord:
    """Decode a cluster's record. Raises ValueError naming its file."""
    try:
        return msgspec.json.decode(data, type=ClusterRecord)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is not a cluster record: {error}") from error


def clusters(state_dir: Path) -> list[str]:
    """Names of the clusters that have a record under the state directory."""
    return sorted(path.parent.name for path in state_dir.glob("clusters/*/cluster.json"))


def remove_empty(path: Path, *, down_to: Path) -> None:
    """Remove `path` and its parents as long as they are empty, stopping before `down_to`."""
    while path != down_to and path.is_relative_to(down_to):
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        path = path.parent
