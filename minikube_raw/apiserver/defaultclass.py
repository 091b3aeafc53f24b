"""DefaultStorageClass: a claim that names no class gets the cluster's default one (plugin/pkg/admission/storage, v1.36)."""

from __future__ import annotations

from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources import storage
from minikube_raw.apiserver.resources.persistentvolumes import class_of
from minikube_raw.apiserver.resources.strategy import Object


class DefaultStorageClass:
    """Knows the classes there are. With several defaults the newest counts, of equal age the first by name."""

    def __init__(self, registry: Registry) -> None:
        self._classes = registry.resources["storage.k8s.io", "v1", "storageclasses"]

    def admit(self, claim: Object) -> None:
        """Set the claim's class; a claim that asks for no class (an empty name) keeps that."""
        if class_of(claim) is not None:
            return
        found = [decode(entry.stored) for entry in self._classes.cache.entries.values()]
        defaults = sorted(
            (each for each in found if storage.is_default(each)), key=lambda each: each["metadata"]["name"]
        )
        defaults.sort(key=lambda each: str(each["metadata"]["creationTimestamp"]), reverse=True)
        if defaults:
            claim["spec"]["storageClassName"] = defaults[0]["metadata"]["name"]
