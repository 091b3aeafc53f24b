"""Which objects the pods of a node use: what the node authorizer asks. Kept per pod from the pods' own bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minikube_raw.apiserver.cache import KindCache
from minikube_raw.apiserver.changes import Change, Entry
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.podspec import containers

_Reference = tuple[str, str]  # plural, name


class References:
    """The pods by node, and per pod the Secrets, ConfigMaps, claims and ServiceAccount it names."""

    def __init__(self, registry: Registry) -> None:
        self._pods = registry.core("pods")
        self._volumes = registry.core("persistentvolumes")
        self._by_node: dict[str, dict[str, Entry]] = {}
        registry.watch_cache.listen(self._record)

    def related(self, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether a pod of the node uses the object, or is it."""
        pods = self._by_node.get(node, {})
        if resource == "pods":
            return self._pods.key(namespace, name) in pods
        if resource == "persistentvolumes":
            return self._claimed(node, name)
        # Decoded when asked: a kubelet asks once per object and pod, while pods change all the time.
        mine = (entry for entry in pods.values() if entry.namespace == namespace)
        return any((resource, name) in _references(entry.name, decode(entry.stored)["spec"]) for entry in mine)

    def _claimed(self, node: str, name: str) -> bool:
        """Whether the claim that has the volume is one of the node's pods'."""
        entry = self._volumes.cache.entries.get(self._volumes.key("", name))
        claim = (decode(entry.stored)["spec"].get("claimRef") or {}) if entry is not None else {}
        return bool(claim) and self.related(
            node, "persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", "")
        )

    def _record(self, cache: KindCache, change: Change) -> None:
        if cache is not self._pods.cache:
            return
        for entry in (change.previous, change.entry):
            if entry is None or not entry.fields["spec.nodeName"]:
                continue
            held = self._by_node.setdefault(entry.fields["spec.nodeName"], {})
            if entry is change.entry:
                held[entry.key] = entry
            else:
                held.pop(entry.key, None)


def _references(pod: str, spec: dict[str, Any]) -> set[_Reference]:
    found = {("serviceaccounts", spec.get("serviceAccountName", ""))}
    found |= {("secrets", secret.get("name", "")) for secret in spec.get("imagePullSecrets") or ()}
    for volume in spec.get("volumes") or ():
        found.update(_of_volume(volume))
        if volume.get("ephemeral"):
            found.add(("persistentvolumeclaims", f"{pod}-{volume['name']}"))
    for container in containers(spec):
        found.update(_of_environment(container))
    return found


def _of_volume(volume: dict[str, Any]) -> Iterator[_Reference]:
    if volume.get("secret"):
        yield "secrets", volume["secret"].get("secretName", "")
    if volume.get("configMap"):
        yield "configmaps", volume["configMap"].get("name", "")
    if volume.get("persistentVolumeClaim"):
        yield "persistentvolumeclaims", volume["persistentVolumeClaim"].get("claimName", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        for kind, plural in (("secret", "secrets"), ("configMap", "configmaps")):
            if source.get(kind):
                yield plural, source[kind].get("name", "")


def _of_environment(container: dict[str, Any]) -> Iterator[_Reference]:
    sources = [variable.get("valueFrom") or {} for variable in container.get("env") or ()]
    for source in sources:
        for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if source.get(kind):
                yield plural, source[kind].get("name", "")
    for source in container.get("envFrom") or ():
        for kind, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if source.get(kind):
                yield plural, source[kind].get("name", "")
