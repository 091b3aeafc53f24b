"""Static pods: manifests in a directory of the node, run whether or not there is an API server.

A file is one pod. Its uid is made from what the file says, so a changed file is another pod, which waits until the one it
replaces is gone. What the API server gets to see of them is `mirrors`' business. Names, uids and annotations are those of
Kubernetes (pkg/kubelet/config/common.go, applyDefaults).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from minikube_raw.api import name_rules
from minikube_raw.api.core import Pod
from minikube_raw.api.go_text import quoted
from minikube_raw.client.clock import Clock, timestamp
from minikube_raw.kubelet import pods
from minikube_raw.kubelet.objects import references
from minikube_raw.kubelet.workers import PodWorkers

log = logging.getLogger(__name__)
Json = dict[str, Any]
Tell = Callable[[str, str, str], None]  # an Event about the node: type, reason, message
HASH, SEEN, MIRROR = (f"kubernetes.io/config.{name}" for name in ("hash", "seen", "mirror"))
SUFFIXES = (".yaml", ".yml", ".json")
_STAYS = {"operator": "Exists", "effect": "NoExecute"}  # a static pod cannot be moved elsewhere


class StaticPods:
    """The pods of a directory. `read` compares it with what is known, `feed` with the workers; both may be repeated."""

    def __init__(self, directory: Path, node_name: str, clock: Clock, tell: Tell) -> None:
        self._directory, self._node, self._clock, self._tell = directory, node_name, clock, tell
        self._objects: dict[str, Json] = {}  # namespace/name → the pod as the API server is to see it
        self._pods: dict[str, Pod] = {}
        self._fed: set[str] = set()
        self._told: dict[str, str] = {}

    @property
    def objects(self) -> Mapping[str, Json]:
        """Pods as plain data by namespace/name, complete but for what marks a mirror."""
        return self._objects

    def read(self) -> None:
        """Take in what the directory holds now. A file that is no pod is told of once, and the others go on."""
        objects: dict[str, Json] = {}
        views: dict[str, Pod] = {}
        for path in self._files():
            try:
                made = static_pod(path.read_bytes(), self._node)
                view = pods.from_manifest(made)
                if pods.key(view) in views:
                    raise ValueError(f"pod {pods.key(view)} is in another file too")
                _check(view)
            except (OSError, ValueError, yaml.YAMLError) as error:
                self._complain(path, error)
                continue
            self._told.pop(path.name, None)
            key = pods.key(view)
            if key in self._pods and self._pods[key].metadata.uid == view.metadata.uid:
                made, view = self._objects[key], self._pods[key]
            else:
                made["metadata"]["annotations"][SEEN] = timestamp(self._clock.now())
                view = pods.from_manifest(made)
            objects[key], views[key] = made, view
        self._objects, self._pods = objects, views

    def feed(self, workers: PodWorkers, *, networked: bool) -> None:
        """Hand the pods to workers; before the node has its network only those that use the node's own."""
        wanted = {pod.metadata.uid for pod in self._pods.values()}
        for uid in self._fed - wanted:
            workers.remove(uid)
        self._fed &= wanted
        for pod in self._pods.values():
            if (networked or pod.spec.host_network) and not workers.has_another(pod):
                self._fed.add(pod.metadata.uid)
                workers.update(pod)

    def _files(self) -> Iterator[Path]:
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                if path.suffix in SUFFIXES and not path.name.startswith("."):
                    yield path

    def _complain(self, path: Path, error: Exception) -> None:
        text = f"{path.name} is not run: {' '.join(str(error).split())}"
        if self._told.get(path.name) != text:
            self._told[path.name] = text
            log.warning("static pod %s/%s", self._directory, text)
            self._tell("Warning", "FailedStaticPod", text)


def static_pod(content: bytes, node: str) -> Json:
    """The pod of a file, named for the node. Raises ValueError, yaml.YAMLError."""
    pod = yaml.load(content, Loader=yaml.CSafeLoader)
    if not isinstance(pod, dict) or pod.get("kind") != "Pod":
        raise ValueError("it is not a manifest of kind Pod")
    meta, spec = dict(pod.get("metadata") or {}), dict(pod.get("spec") or {})
    uid = hashlib.md5(f"{node}\0".encode() + msgspec.json.encode(pod), usedforsecurity=False).hexdigest()
    meta["name"] = f"{meta.get('name', '')}-{node.lower()}"
    meta["namespace"] = meta.get("namespace") or "default"
    meta["uid"] = uid
    meta["annotations"] = {**(meta.get("annotations") or {}), HASH: uid, pods.CONFIG_SOURCE: "file"}
    spec["nodeName"] = node
    spec["tolerations"] = [*(spec.get("tolerations") or ()), _STAYS]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _check(pod: Pod) -> None:
    if pod.metadata.name.startswith("-") or not pod.spec.containers:
        raise ValueError("a pod needs metadata.name and at least one of spec.containers")
    if pod.spec.ephemeral_containers:
        raise ValueError("static pods do not support ephemeral containers")
    for kind in _referenced(pod):
        raise ValueError(f"static pods may not reference {kind}")
    for path, rule, value in _names(pod):
        for wrong in rule(value):
            raise ValueError(f"{path}: Invalid value: {quoted(value)}: {wrong}")


def _referenced(pod: Pod) -> Iterator[str]:
    """Kinds of objects of the API that the pod would need, in a kubelet's order: it has to run where there is no API."""
    kinds = {each.kind for each in references(pod)}
    parts = [part for each in pod.spec.volumes if each.projected for part in each.projected.sources]
    needed = (
        ("serviceaccounts", pod.spec.service_account_name or any(part.service_account_token for part in parts)),
        ("secrets", "secrets" in kinds or pod.spec.image_pull_secrets),
        ("configmaps", "configmaps" in kinds),
        ("resourceclaims", pod.spec.resource_claims),
        ("persistentvolumeclaims", any(each.claim_name(pod.metadata.name) for each in pod.spec.volumes)),
    )
    yield from (kind for kind, found in needed if found)


def _names(pod: Pod) -> Iterator[tuple[str, Callable[[str], list[str]], str]]:
    """What becomes a part of a path on the node; no API server has looked at it."""
    yield "metadata.name", name_rules.dns_subdomain, pod.metadata.name
    yield "metadata.namespace", name_rules.dns_label, pod.metadata.namespace
    for container in pods.all_containers(pod):
        yield "spec.containers.name", name_rules.dns_label, container.name
    for volume in pod.spec.volumes:
        yield "spec.volumes.name", name_rules.dns_label, volume.name
