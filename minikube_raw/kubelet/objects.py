"""The ConfigMaps, Secrets and Services that this node's pods refer to, followed one object at a time.

A node may only read objects its pods use, and by name; so each has a watch of its own while some pod needs it, as
the kubelet's watch-based manager has. A change wakes the pods that refer to it: a missing ConfigMap that appears starts them.
Immutable objects are read once and not watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from minikube_raw.api import scheme
from minikube_raw.api.core import ConfigMap, Pod, Secret, Service
from minikube_raw.client.informer import Informer
from minikube_raw.client.rest import Client, Resource
from minikube_raw.kubelet import env
from minikube_raw.kubelet.pods import every_container, is_static

CONFIG_MAPS = Resource(scheme.CONFIG_MAP, ConfigMap)
SECRETS = Resource(scheme.SECRET, Secret)
SYNC_SECONDS = 10.0
_RESOURCES: dict[str, Resource[Any]] = {"configmaps": CONFIG_MAPS, "secrets": SECRETS}


class Reference(msgspec.Struct, frozen=True):
    """An object by kind ("configmaps", "secrets"), namespace and name."""

    kind: str
    namespace: str
    name: str


class ReferredObjects(Protocol):
    """Where a pod worker gets the objects its pod refers to."""

    async def of(self, pod: Pod) -> env.Referred:
        """Present state of everything the pod refers to; what does not exist is not in it."""
        ...

    def release(self, uid: str) -> None:
        """The pod needs nothing any more."""
        ...


def references(pod: Pod) -> set[Reference]:
    """Everything a pod's variables and volumes are made from."""
    return {Reference(kind, pod.metadata.namespace, name) for kind, name in _names(pod) if name}


def _names(pod: Pod) -> Iterator[tuple[str, str]]:
    for container in every_container(pod):
        for source in container.env_from:
            yield "configmaps", source.config_map_ref.name if source.config_map_ref else ""
            yield "secrets", source.secret_ref.name if source.secret_ref else ""
        for each in (variable.value_from for variable in container.env if variable.value_from):
            yield "configmaps", each.config_map_key_ref.name if each.config_map_key_ref else ""
            yield "secrets", each.secret_key_ref.name if each.secret_key_ref else ""
    for volume in pod.spec.volumes:
        yield "configmaps", volume.config_map.name if volume.config_map else ""
        yield "secrets", volume.secret.secret_name if volume.secret else ""
        for part in volume.projected.sources if volume.projected else ():
            yield "configmaps", part.config_map.name if part.config_map else ""
            yield "secrets", part.secret.name if part.secret else ""


class NoObjects:
    """A node without an API server: nothing can be referred to."""

    async def of(self, pod: Pod) -> env.Referred:
        """Nothing."""
        return env.Referred()

    def release(self, uid: str) -> None:
        """Nothing is held."""


class _Watched:
    """One object's informer, its task and the pods that need it."""

    def __init__(self, informer: Informer[Any], task: asyncio.Task[None]) -> None:
        self.informer = informer
        self.task = task
        self.users: set[str] = set()

    @property
    def view(self) -> Any:
        """The object as last heard of, None while there is none."""
        return next(iter(self.informer.cache.values()), None)

    def stop_if_immutable(self) -> None:
        """Follow no more what cannot change; what was read stays."""
        if getattr(self.view, "immutable", False):
            self.task.cancel()


class WatchedObjects:
    """Follows what pods refer to; `wake` is called with the uid of a pod whose object changed."""

    def __init__(self, client: Client, services: Informer[Service], wake: Callable[[str], None]) -> None:
        self._client = client
        self._services = services
        self._wake = wake
        self._watched: dict[Reference, _Watched] = {}

    async def of(self, pod: Pod) -> env.Referred:
        """Wait for the first list of each object (at most SYNC_SECONDS; raises TimeoutError) and return what exists."""
        if is_static(pod):  # it runs while the API server is away, and may refer to nothing there
            return env.Referred(services=tuple(self._linked(pod)))
        needed = references(pod)
        watched = [self._follow(each, pod.metadata.uid) for each in needed]
        async with asyncio.timeout(SYNC_SECONDS):
            for each in watched:
                await each.informer.wait_synced()
            await self._services.wait_synced()
        for each in watched:
            each.stop_if_immutable()
        found = {each: self._watched[each].view for each in needed}
        return env.Referred(
            config_maps={each.name: view for each, view in found.items() if isinstance(view, ConfigMap)},
            secrets={each.name: view for each, view in found.items() if isinstance(view, Secret)},
            services=tuple(self._linked(pod)),
        )

    def release(self, uid: str) -> None:
        """Stop following what only this pod needed."""
        for reference, watched in list(self._watched.items()):
            watched.users.discard(uid)
            if not watched.users:
                watched.task.cancel()
                del self._watched[reference]

    async def close(self) -> None:
        """Stop all watches."""
        tasks = [watched.task for watched in self._watched.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, reference: Reference, uid: str) -> _Watched:
        watched = self._watched.get(reference)
        if watched is None:
            watched = self._watched[reference] = self._start(reference)
        watched.users.add(uid)
        return watched

    def _start(self, reference: Reference) -> _Watched:
        resource = _RESOURCES[reference.kind]
        informer = Informer(
            self._client, resource, namespace=reference.namespace, field_selector=f"metadata.name={reference.name}"
        )
        watched = _Watched(informer, asyncio.create_task(informer.run(), name=f"watch {reference}"))
        informer.add_handler(lambda old, new: self._changed(watched))
        return watched

    def _changed(self, watched: _Watched) -> None:
        for uid in watched.users:
            self._wake(uid)

    def _linked(self, pod: Pod) -> Iterator[Service]:
        """Services a container gets variables of: the API server's, and with enableServiceLinks its namespace's."""
        for service in sorted(self._services.cache.values(), key=lambda each: each.metadata.name):
            meta = service.metadata
            if (meta.namespace, meta.name) == ("default", "kubernetes") or (
                pod.spec.enable_service_links and meta.namespace == pod.metadata.namespace
            ):
                yield service
