"""The API server of a cluster in a lab machine, asked with the administrator's certificate: the image has no kubectl."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

from tests.lab.machine import REPOSITORY, Machine

_ASK = """
import ssl, sys, urllib.request
pki = "/var/lib/minikube-raw/clusters/minikube-raw/pki/"
context = ssl.create_default_context(cafile=pki + "ca.crt")
context.load_cert_chain(pki + "admin.crt", pki + "admin.key")
wish = sys.stdin.buffer.read()
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("https://127.0.0.1:6443" + sys.argv[1], wish or None, headers, method=sys.argv[2])
print(urllib.request.urlopen(request, context=context).read().decode())
"""
PODS = "/api/v1/namespaces/default/pods"


def ask(lab: Machine, path: str, wish: Any = None, *, method: str = "") -> Any:
    """GET a path of the API server, POST there, or what `method` says."""
    method = method or ("GET" if wish is None else "POST")
    command = f"{REPOSITORY}/.venv/bin/python -c {shlex.quote(_ASK)} {path} {method}"
    return json.loads(lab.run(command, stdin="" if wish is None else json.dumps(wish)))


def create(lab: Machine, name: str, container: dict[str, Any], **spec: Any) -> None:
    """Create a pod of one container."""
    containers = [{"name": "c", "image": "busybox", **container}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}
    ask(lab, PODS, pod)


def remove(lab: Machine, name: str) -> None:
    """Delete a pod, and wait until its node has nothing of it."""
    ask(lab, f"{PODS}/{name}", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 1}, method="DELETE")
    until(lambda: [pod["metadata"]["name"] for pod in ask(lab, PODS)["items"]], lambda names: name not in names)


def status(lab: Machine, name: str) -> Any:
    """A pod's."""
    return ask(lab, f"{PODS}/{name}")["status"]


def until(look: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 240) -> Any:
    """Look again and again until it is as wanted; emulated machines are slow."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(1)
    return found


def in_phase(lab: Machine, name: str, phase: str) -> Any:
    """A pod's status once it is in a phase."""
    return until(lambda: status(lab, name), lambda found: found.get("phase") == phase)
