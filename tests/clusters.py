"""A cluster as its user has it: the command line and a kubectl, in directories of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OLD_KUBECTL = Path(__file__).parents[1] / ".cache/kubernetes-client/usr/bin/kubectl"


class Cluster:
    """A running cluster as a user has it: the command line, and a kubectl."""

    def __init__(self, folder: Path, name: str = "minikube-raw") -> None:
        self.folder = folder
        self.name = name
        self.environment = os.environ | {
            "MINIKUBE_RAW_STATE_DIR": str(folder / "state"),
            "MINIKUBE_RAW_RUN_DIR": str(folder / "run"),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "HOME": str(folder / "home"),
        }

    def cli(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run minikube-raw."""
        return self._run([sys.executable, "-m", "minikube_raw", *arguments], check=check, timeout=timeout)

    def kubectl(
        self,
        *arguments: str,
        stdin: str | None = None,
        check: bool = True,
        timeout: float = 60,
        binary: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `binary` picks another one than the newest at hand."""
        return self._run([binary or newest_kubectl(), *arguments], stdin=stdin, check=check, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get … -o json` prints, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def status(self) -> Any:
        """Return `minikube-raw status -o json`, decoded."""
        return json.loads(self.cli("status", "--name", self.name, "-o", "json").stdout)

    def pid(self, role: str, node: str | None = None) -> int:
        """Return the pid of one process of ours, as the host sees it."""
        return self.pids(role, node)[0]

    def pids(self, role: str, node: str | None = None) -> list[int]:
        """Return the pids of all processes of a role."""
        found = (each for each in self.status()["processes"] if each["role"] == role)
        return [each["pid"] for each in found if node in (None, each["node"])]

    def _run(
        self, argv: list[str], *, stdin: str | None = None, check: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(argv, env=self.environment, input=stdin, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done


@contextmanager
def cluster_of_one(folder: Path, *options: str, name: str = "short", port: int = 6447) -> Iterator[Cluster]:
    """A cluster with one node and options of its own, beside the one that most tests share."""
    need_root_and_loopback()
    made = Cluster(folder, name)
    try:
        own = f"10.{200 + port % 50}.0.0/16"  # beside the clusters of other ports
        made.cli("up", "--name", name, "--api-port", str(port), "--pod-cidr", own, *options)
        yield made
    finally:
        made.cli("down", "--name", name)


def newest_kubectl() -> str:
    """The kubectl on PATH, else Debian's from the cache that `make test` fills."""
    found = shutil.which("kubectl") or (str(OLD_KUBECTL) if OLD_KUBECTL.exists() else None)
    if found is None:
        pytest.skip("no kubectl: neither on PATH nor unpacked by scripts/setup test")
    return found


def need_root_and_loopback() -> None:
    """Skip without root; bring lo up, which is down in the network namespace that `make cluster` has just made."""
    if os.geteuid() != 0:
        pytest.skip("a cluster needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


KUBECTLS = [
    pytest.param(None, id="kubectl-newest"),
    pytest.param(
        str(OLD_KUBECTL),
        id="kubectl-1.20",
        marks=pytest.mark.skipif(
            not OLD_KUBECTL.exists(), reason="Debian's kubernetes-client is not unpacked in .cache"
        ),
    ),
]
