"""Kills at random, but the same ones each time (CHAOS_SEED, CHAOS_KILLS): what must survive, and what must not be left behind.

Pods come and go on two nodes while kubelets, launchers, keepers and the master are killed with SIGKILL, one to four of a
kind at once. Afterwards every exit code is known, every running container has neither noticed nor lost a line, and the
nodes hold no namespace, mount, link, address, cgroup or directory of a pod that is gone.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from minikube_raw.runtime import roots
from minikube_raw.runtime.template import TITLE
from tests import host
from tests.cluster.waiting import until
from tests.clusters import Cluster, need_root_and_loopback

NAME = "chaos"
SEED = int(os.environ.get("CHAOS_SEED", "7"))
KILLS = int(os.environ.get("CHAOS_KILLS", "25"))
ROUNDS_BETWEEN_COUNTS = 20
ROLES = ("kubelet", "launcher", "keeper", "keeper", "master")
WITNESSES = [f"witness{number}" for number in range(4)]
COUNTER = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


class Chaos:
    """A cluster, pods that come and go on it, and a hand that kills."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.random = random.Random(SEED)
        self.exit_codes: dict[str, int] = {}
        self.kills = 0
        self.killed: list[str] = []  # when, what, where
        self._alive: list[str] = []
        self._made = 0

    def churn(self) -> None:
        """Make up to three pods, of which some end by themselves with a code of their own; delete one that would not."""
        pods = []
        for _ in range(self.random.randint(1, 3)):
            name, code = f"x{self._made}", self.random.randrange(256)
            self._made += 1
            if self.random.random() < 0.6:
                self.exit_codes[name] = code
                pods.append(pod(name, f"sleep {self.random.random() * 2:.2f}; exit {code}", "Never"))
            else:
                self._alive.append(name)
                pods.append(pod(name, "sleep 3600"))
        self.apply(pods)
        if len(self._alive) > 6:
            self.kubectl("delete", "pod", self._alive.pop(0), "--wait=false")

    def kill(self) -> None:
        """Kill some processes of one kind; the host has nobody but `start` to bring a master back."""
        role = self.random.choice(ROLES)
        found = [process for process in self.status()["processes"] if process["role"] == role]
        for process in self.random.sample(found, min(len(found), self.random.choice((1, 1, 2, 4)))):
            with suppress(OSError):
                title = Path(f"/proc/{process['pid']}/cmdline").read_bytes().rstrip(b"\0").decode()
                os.kill(process["pid"], signal.SIGKILL)
                self.kills += 1
                self.killed.append(f"{time.strftime('%T')} {title} on {process['node']}")
        if role == "master":
            self.cluster.cli("start", "--name", NAME)

    def count(self) -> None:
        """Wait for every pod that ends by itself, compare its exit code and delete it."""
        if not self.exit_codes:
            return
        until(self._unfinished, lambda left: left == {}, seconds=40)
        pods = self.pods()
        found = {name: pods[name]["containerStatuses"][0]["state"]["terminated"] for name in self.exit_codes}
        wrong = {name: how for name, how in found.items() if how["exitCode"] != self.exit_codes[name]}
        assert wrong == {}, f"of {self.exit_codes}; {self.kills} killed, last {self.killed[-12:]}"
        self.kubectl("delete", "pods", *self.exit_codes, "--wait=false")
        self.exit_codes.clear()

    def witnesses(self) -> dict[str, Any]:
        """Statuses of the containers that nobody ends."""
        pods = self.pods()
        return {name: pods[name]["containerStatuses"] for name in WITNESSES}

    def expect(self, witnessed: dict[str, Any]) -> None:
        """Fail unless those containers are as they were."""
        changed = {name: now for name, now in self.witnesses().items() if now != witnessed[name]}
        assert changed == {}, f"{self.kills} killed, last {self.killed[-40:]}"

    def _unfinished(self) -> dict[str, Any]:
        """Pods that should have ended by themselves and have not, and who was killed last."""
        left = {name: status for name, status in self.pods().items() if name in self.exit_codes and not is_over(status)}
        return left | ({"killed": self.killed[-12:], "kills": self.kills} if left else {})

    def apply(self, pods: list[dict[str, Any]]) -> None:
        """Create pods."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> None:
        """Run kubectl until the API server is there to answer."""
        until(
            lambda: self.cluster.kubectl(*arguments, stdin=stdin, check=False),
            lambda done: done.returncode == 0,
            seconds=20,
        )

    def status(self) -> Any:
        """Return `minikube-raw status`, decoded."""
        return json.loads(self.cluster.cli("status", "--name", NAME, "-o", "json").stdout)

    def pods(self) -> dict[str, Any]:
        """Statuses of all pods by name."""
        return {item["metadata"]["name"]: item["status"] for item in self.cluster.get("pods")["items"]}

    def belongings(self) -> dict[str, set[str]]:
        """What the nodes hold: kernel objects of the machines, namespaces of their processes, files and cgroups."""
        status = self.status()
        found: dict[str, set[str]] = {"cgroups": {path for path in host.snapshot()["cgroups"] if f"/{NAME}/" in path}}
        for machine in (process for process in status["processes"] if process["role"] == "machine"):
            pid, node = machine["pid"], machine["node"]
            found[f"{node} links"] = set(re.findall(r"(?m)^\d+: ([^@:]+)", inside(pid, "ip", "-o", "link")))
            found[f"{node} routes"] = {
                line.replace("linkdown", "").strip() for line in inside(pid, "ip", "route").splitlines()
            }
            found[f"{node} mounts"] = {
                line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            }
            run = next(self.cluster.folder.glob(f"run/clusters/*/nodes/{node}"))
            state = next(self.cluster.folder.glob(f"state/clusters/*/nodes/{node}"))
            found[f"{node} run"] = set(inside(pid, "find", str(run)).splitlines())
            # what is made ahead of a container has a name by chance, and is not made again before the next container starts
            spares = set((state / "containers").glob(".spare-*"))
            assert len(spares) <= roots.KEPT, spares
            found[f"{node} state"] = {str(path) for path in state.rglob("*") if not spares & {path, *path.parents}}
        for launcher in (process for process in status["processes"] if process["role"] == "launcher"):
            found[f"{launcher['node']} namespaces held"] = held_namespaces(launcher["pid"])
        titles = [title(process["pid"]) for process in status["processes"] if process["role"] == "keeper"]
        keepers = [text for text in titles if text != TITLE]  # a template that was killed is made when it is wanted
        found["keepers"] = {f"keeper {number}" for number in range(len(keepers))}
        return found


def pod(name: str, script: str, restart: str = "Always") -> dict[str, Any]:
    """A busybox pod that runs a shell script."""
    container = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
    spec = {"restartPolicy": restart, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def title(pid: int) -> str:
    """What a process calls itself, "" once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    except OSError:
        return ""


def inside(machine: int, *command: str) -> str:
    """Run a command in a machine's network and mount namespace and return its output."""
    argv = ["nsenter", "--net", "--mount", "--target", str(machine), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def is_over(status: Any) -> bool:
    """Whether a pod has Succeeded or Failed."""
    return status["phase"] in ("Succeeded", "Failed")


def held_namespaces(pid: int) -> set[str]:
    """How many namespaces of each kind a process keeps alive by descriptors."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    kinds = [link.split(":")[0] for link in links if ":[" in link and not link.startswith(("pipe", "socket"))]
    return {f"{kinds.count(kind)} {kind}" for kind in kinds}


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Chaos]:
    need_root_and_loopback()
    made = Chaos(Cluster(tmp_path))
    try:
        made.cluster.cli("up", "--name", NAME, "--nodes", "2")
        yield made
    finally:
        made.cluster.cli("down", "--name", NAME)


@pytest.mark.timeout(3600)
def test_killing_our_processes_loses_nothing_and_leaves_nothing(chaos: Chaos) -> None:
    chaos.apply([pod(f"warm{number}", "exit 0", "Never") for number in range(4)])  # makes each node's bridge
    until(chaos.pods, lambda pods: all(each["phase"] == "Succeeded" for each in pods.values()), seconds=20)
    chaos.kubectl("delete", "pods", "--all")
    # on each node a spare one with its worker
    before = until(chaos.belongings, lambda found: len(found["keepers"]) == 4, seconds=10)
    chaos.apply([pod(name, COUNTER) for name in WITNESSES])
    chaos.kubectl("wait", "pods", "--all", "--for=condition=Ready", "--timeout=50s")
    witnessed = chaos.witnesses()

    for number in itertools.count():
        if chaos.kills >= KILLS:
            break
        chaos.churn()
        chaos.kill()
        if number % ROUNDS_BETWEEN_COUNTS == ROUNDS_BETWEEN_COUNTS - 1:
            chaos.count()
            chaos.expect(witnessed)
    chaos.cluster.cli("start", "--name", NAME)

    chaos.count()
    chaos.expect(witnessed)
    for name in WITNESSES:
        numbers = chaos.cluster.kubectl("logs", name).stdout.split()
        assert numbers == [str(number) for number in range(len(numbers))]
    chaos.kubectl("delete", "pods", "--all")
    until(lambda: host.difference(before, chaos.belongings()), lambda left: left == {}, seconds=20)
