"""Admission: what depends on other objects or on who asks. Namespaces must live, nodes keep to themselves, Services get addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minikube_raw.api import scheme, status
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import nodes
from minikube_raw.apiserver.auth import User
from minikube_raw.apiserver.cache import KindCache
from minikube_raw.apiserver.changes import Change
from minikube_raw.apiserver.defaultclass import DefaultStorageClass
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.podaccounts import PodAccounts
from minikube_raw.apiserver.podruntimes import PodRuntimes
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.services import Allocator
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import RequestInfo


class Admission:
    """The plugins that a write passes, over what the registry knows."""

    def __init__(self, registry: Registry, service_cidr: str, *, tokens: bool = False) -> None:
        self._namespaces = registry.core("namespaces")
        self._services = registry.core("services")
        self._watch_cache = registry.watch_cache
        self._allocator = Allocator(service_cidr)
        self._default_class = DefaultStorageClass(registry)
        self._pod_accounts = PodAccounts(registry, tokens=tokens)
        self._pod_runtimes = PodRuntimes(registry)
        registry.watch_cache.listen(self._record)

    def _record(self, cache: KindCache, change: Change) -> None:
        if cache is not self._services.cache:
            return
        entry = change.entry or change.previous
        assert entry is not None
        self._allocator.record(entry.key, decode(entry.stored).get("spec", {}) if change.entry else None)

    async def namespace(self, kind: Kind, namespace: str, name: str) -> None:
        """NamespaceLifecycle: refuse to create in a namespace that is not there (404) or going (403)."""
        if not kind.namespaced:
            return
        entry = self._namespaces.cache.entries.get(scheme.NAMESPACE.key("", namespace))
        if entry is None:
            await self._watch_cache.fresh()
            entry = self._namespaces.entry("", namespace)
        if entry.fields["status.phase"] == "Terminating":
            text = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(kind.group, kind.plural, name, text)
            cause = status.Cause(
                "NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace"
            )
            details = status.Details(name=name, group=kind.group, kind=kind.plural, causes=[cause])
            raise status.StatusError(error.code, error.reason, error.message, details)

    async def complete(self, kind: Kind, obj: Object) -> None:
        """Fill in what a new object leaves to other objects. Raises 403."""
        if kind is scheme.POD:
            await self._pod_accounts.admit(obj)
            await self._pod_runtimes.admit(obj)
        elif kind is scheme.PERSISTENT_VOLUME_CLAIM:
            self._default_class.admit(obj)

    def user(self, user: User, info: RequestInfo, new: Object | None, old: Object | None) -> None:
        """NodeRestriction: keep a node's agent to its own node and pods (403)."""
        if user.node_name:
            nodes.admit(user.node_name, info, new, old)

    @contextmanager
    def allocation(self, kind: Kind, key: str, obj: Object, *, keep: bool) -> Iterator[None]:
        """Give a Service the address and ports it lacks: for good with `keep`, unless the write in this block fails. Raises 422."""
        if kind is not scheme.SERVICE:
            yield
            return
        causes = list(self._allocator.allocate(key, obj["spec"]))
        if causes:
            raise status.invalid(kind.group, kind.kind, obj["metadata"].get("name", ""), causes)
        self._allocator.record(key, obj["spec"])
        try:
            yield
        except BaseException:
            self._restore(key)
            raise
        if not keep:
            self._restore(key)

    def _restore(self, key: str) -> None:
        held = self._services.cache.entries.get(key)
        self._allocator.record(key, decode(held.stored)["spec"] if held is not None else None)
