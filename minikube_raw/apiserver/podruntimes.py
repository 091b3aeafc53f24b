"""RuntimeClass admission: a pod's class must exist, and says its overhead and where it can run (plugin/pkg/admission/runtimeclass)."""

from __future__ import annotations

from minikube_raw.api import quantity, status
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.strategy import Object


class PodRuntimes:
    """Knows the classes there are."""

    def __init__(self, registry: Registry) -> None:
        self._classes = registry.resources["node.k8s.io", "v1", "runtimeclasses"]

    async def admit(self, pod: Object) -> None:
        """Set overhead, node selector and tolerations of the pod's class. Raises 403."""
        spec, name = pod["spec"], pod["metadata"].get("name", "")
        wanted = spec.get("runtimeClassName")
        if not wanted:
            if spec.get("overhead"):
                raise _rejected(name, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
            return
        found = await self._find(wanted)
        if found is None:
            raise _rejected(name, f'RuntimeClass "{wanted}" not found')
        _set_overhead(spec, name, (found.get("overhead") or {}).get("podFixed") or {})
        _set_scheduling(spec, name, found.get("scheduling") or {})

    async def _find(self, name: str) -> Object | None:
        key = self._classes.key("", name)
        entry = self._classes.cache.entries.get(key)
        if entry is None:
            await self._classes.watch_cache.fresh()
            entry = self._classes.cache.entries.get(key)
        return None if entry is None else decode(entry.stored)


def _set_overhead(spec: Object, name: str, overhead: Object) -> None:
    given = spec.get("overhead")
    if not overhead:
        if given:
            raise _rejected(name, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
        return
    if given is not None and _amounts(given) != _amounts(overhead):
        raise _rejected(name, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    spec["overhead"] = dict(overhead)


def _amounts(given: Object) -> dict[str, quantity.Quantity]:
    return {key: quantity.parse(amount) for key, amount in given.items()}


def _set_scheduling(spec: Object, name: str, placement: Object) -> None:
    selector = spec.get("nodeSelector") or {}
    for key, value in (placement.get("nodeSelector") or {}).items():
        if selector.get(key, value) != value:
            text = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {selector[key]}"
            raise status.forbidden("", "pods", name, text)
        spec["nodeSelector"] = selector = {**selector, key: value}
    for toleration in placement.get("tolerations") or ():
        if toleration not in spec.setdefault("tolerations", []):
            spec["tolerations"].append(toleration)


def _rejected(name: str, why: str) -> status.StatusError:
    return status.forbidden("", "pods", name, f"pod rejected: {why}")
