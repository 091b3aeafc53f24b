"""Pods of a lab machine that run without a master."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from tests.lab.machine import REPOSITORY, Machine

Json = dict[str, Any]
# Starts the agent with other options than the command line gives it, and the pod that it stays for.
_START = """
import json, sys
from pathlib import Path
import msgspec
from minikube_raw.kubelet import localagent
made = localagent.options_for(Path("/var/lib/minikube-raw"), Path("/run/minikube-raw"))
localagent.submit(msgspec.structs.replace(made, **json.loads(sys.argv[1])), json.loads(sys.argv[2]))
"""
_ASK = """
import sys
from pathlib import Path
from minikube_raw.kubelet import localagent
made = localagent.options_for(Path("/var/lib/minikube-raw"), Path("/run/minikube-raw"))
print(localagent.get(made, sys.argv[1]).decode(), end="")
"""


def container(script: str, resources: Json | None = None, **more: Any) -> Json:
    """A container of a shell script."""
    return {"name": "c", "image": "busybox", "command": ["sh", "-c", script], "resources": resources or {}, **more}


def python(script: str, resources: Json | None = None) -> Json:
    """A container of a Python script: the machine's own Python, in its own files."""
    command = ["chroot", "/host", "python3", "-uc", script]
    return container("", resources, command=command, volumeMounts=[{"name": "host", "mountPath": "/host"}])


def pod(name: str, *containers: Json, **spec: Any) -> Json:
    """A pod of these; one that is a program of the machine finds its files."""
    host = {"name": "host", "hostPath": {"path": "/"}}
    body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": [host], "containers": containers}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {**body, **spec},
    }


def run(lab: Machine, made: Json, *, until: str = "started") -> Json:
    """Run a pod and return it as it is when it has started or ended."""
    words = f"pod run --wait {until} --timeout 240 -o json -f -"
    found: Json = json.loads(lab.product(words, check=until != "ended", stdin=json.dumps(made)))
    return found


def run_under(lab: Machine, options: Json, first: Json) -> None:
    """Start an agent with these options and its first pod, with which it leaves; more come by `run`."""
    arguments = " ".join(shlex.quote(json.dumps(each)) for each in (options, first))
    lab.run(f"{REPOSITORY}/.venv/bin/python -c {shlex.quote(_START)} {arguments}", timeout=200)
    running(lab, first["metadata"]["name"])


def ask(lab: Machine, path: str) -> str:
    """What the agent answers on its socket."""
    return lab.run(f"{REPOSITORY}/.venv/bin/python -c {shlex.quote(_ASK)} {path}")


def ended(found: Json) -> Json:
    """How the container of a pod has ended."""
    (status,) = found["status"]["containerStatuses"]
    terminated: Json = status["state"]["terminated"]
    return terminated


class Cgroup:
    """The cgroup of a pod, of its container, or one above them."""

    def __init__(self, lab: Machine, path: str) -> None:
        self._lab, self.path = lab, path

    @classmethod
    def of_pod(cls, lab: Machine, found: Json) -> Cgroup:
        """A pod's own."""
        return cls(lab, lab.run(f"find /sys/fs/cgroup -name pod{found['metadata']['uid']}").strip())

    def container(self) -> Cgroup:
        """That of its only container."""
        return Cgroup(self._lab, self._lab.run(f"find {self.path} -mindepth 1 -type d").strip())

    def above(self, levels: int = 1) -> Cgroup:
        """One that it lies in."""
        return Cgroup(self._lab, self.path.rsplit("/", levels)[0])

    def read(self, *files: str) -> dict[str, str]:
        """Files by name."""
        lines = self._lab.run(f"cd {self.path} && grep -s '' {' '.join(files)} /dev/null").splitlines()
        return dict(line.split(":", 1) for line in lines)

    def count(self, file: str, name: str) -> int:
        """A number of a flat keyed file."""
        words = self._lab.run(f"cat {self.path}/{file}").split()
        return int(words[words.index(name) + 1])


def running(lab: Machine, name: str, timeout: float = 300) -> dict[str, Any]:
    """The pod, once it is ready."""
    deadline = time.monotonic() + timeout
    while True:
        items = json.loads(lab.product("pod list -o json"))["items"]
        for pod in items:
            conditions = pod["status"].get("conditions", [])
            if pod["metadata"]["name"] == name and {"type": "Ready", "status": "True"}.items() in [
                {key: condition[key] for key in ("type", "status")}.items() for condition in conditions
            ]:
                found: dict[str, Any] = pod
                return found
        assert time.monotonic() < deadline, items
        time.sleep(1)
