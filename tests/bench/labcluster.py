"""A cluster for one benchmark, in temporary directories, with a client for its API and the pids behind its pods."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from minikube_raw.client.http import HTTPTransport, client_context
from minikube_raw.client.rest import Client

NAME = "bench"
PATIENCE = 120.0  # seconds, with any one command


class RunningPod(NamedTuple):
    """Where a pod runs: its address and its first process as the host sees it."""

    ip: str
    pid: int


class LabCluster:
    """`with LabCluster(nodes=1) as cluster:` is up for the block; `seconds` says how long `up` took."""

    def __init__(self, nodes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mkr-bench-")
        self.folder = Path(self._folder.name)
        self.count = nodes
        self.environment = os.environ | {
            "MINIKUBE_RAW_STATE_DIR": str(self.folder / "state"),
            "MINIKUBE_RAW_RUN_DIR": str(self.folder / "run"),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "HOME": str(self.folder),
        }
        self.seconds = 0.0

    def __enter__(self) -> LabCluster:
        began = time.perf_counter()
        try:
            self.cli("up", "--name", NAME, "--nodes", str(self.count))
        except subprocess.CalledProcessError as error:
            self.__exit__(None, None, None)
            raise RuntimeError(error.stderr) from error
        self.seconds = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cli("down", "--name", NAME)
        self._folder.cleanup()

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes."""
        return [f"{NAME}-{n + 1}" for n in range(self.count)]

    def cli(self, *arguments: str) -> str:
        """Run minikube-raw and return what it printed."""
        command = [sys.executable, "-m", "minikube_raw", *arguments]
        return self._run(command)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed."""
        return self._run(["kubectl", *arguments], stdin)

    def _run(self, command: list[str], stdin: str | None = None) -> str:
        return subprocess.run(
            command, env=self.environment, input=stdin, check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    def processes(self) -> list[dict[str, Any]]:
        """The processes of `status -o json`."""
        return list(json.loads(self.cli("status", "--name", NAME, "-o", "json"))["processes"])

    url = "https://127.0.0.1:6443"

    def tls(self) -> ssl.SSLContext:
        """What makes a client of the API its administrator."""
        pki = self.folder / "state/clusters" / NAME / "pki"
        return client_context(ca_file=pki / "ca.crt", cert_file=pki / "admin.crt", key_file=pki / "admin.key")

    def client(self) -> Client:
        """A client of the API as its administrator; make and close it inside one event loop."""
        return Client(HTTPTransport(self.url, self.tls()))

    def sleeping_pod(self, name: str, node: str) -> RunningPod:
        """Start a pod that sleeps on a node and return where it is."""
        seconds = str(100_000 + abs(hash(name)) % 100_000)
        manifest = pod(name, node=node)
        manifest["spec"]["containers"][0]["command"] = ["sleep", seconds]
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=30s")
        ip = self.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")
        return RunningPod(ip, next(pids_of(f"sleep\0{seconds}\0")))


def pids_of(command: str) -> Iterator[int]:
    """Pids, as the host sees them, of processes with this command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == command.encode():
                yield int(folder.name)


def pod(name: str, *, node: str = "", labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A Pod that sleeps, as kubectl run would make it."""
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "100000"]}],
    }
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}
