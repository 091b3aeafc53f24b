"""What every active namespace has: the ServiceAccount `default` and the ConfigMap kube-root-ca.crt."""

from __future__ import annotations

from typing import Any

from minikube_raw.api import scheme
from minikube_raw.api.core import ConfigMap, Namespace
from minikube_raw.api.meta import PartialObject
from minikube_raw.api.status import StatusError
from minikube_raw.client.resources import NAMESPACES, SERVICE_ACCOUNTS, resource_of
from minikube_raw.client.rest import Resource
from minikube_raw.controllers.controller import Context, Controller

ROOT_CA = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)
_WHOLE_CONFIG_MAPS = Resource(scheme.CONFIG_MAP, ConfigMap)


class NamespaceContentsController:
    """Furnishes namespaces, also again after somebody cleared them; `run` until cancelled."""

    def __init__(self, context: Context) -> None:
        self._client, self._root_ca = context.client, context.options.root_ca
        self._namespaces = context.informers.of(NAMESPACES)
        self._accounts = context.informers.of(SERVICE_ACCOUNTS)
        self._config_maps = context.informers.of(resource_of(scheme.CONFIG_MAP))
        self._controller = Controller("namespacecontents", self._reconcile, context, workers=2)
        self._namespaces.add_handler(self._namespace_changed)
        self._accounts.add_handler(self._content_changed)
        self._config_maps.add_handler(self._content_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, name: str) -> float | None:
        namespace = self._namespaces.get(name)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return None
        if self._accounts.get(f"{name}/default") is None:
            await self._create(SERVICE_ACCOUNTS, name, {"metadata": {"name": "default"}})
        if self._root_ca:
            await self._ensure_root_ca(name)
        return None

    async def _ensure_root_ca(self, namespace: str) -> None:
        data = {"ca.crt": self._root_ca}
        if self._config_maps.get(f"{namespace}/{ROOT_CA}") is None:
            annotations = {"kubernetes.io/description": _DESCRIPTION}
            body = {"metadata": {"name": ROOT_CA, "annotations": annotations}, "data": data}
            await self._create(_WHOLE_CONFIG_MAPS, namespace, body)
            return
        # Our copies hold metadata only; whether the certificate is still right only the object itself can say.
        found = await self._client.get(_WHOLE_CONFIG_MAPS, ROOT_CA, namespace)
        if found.data != data:
            await self._client.patch(_WHOLE_CONFIG_MAPS, ROOT_CA, {"data": data}, namespace)

    async def _create(self, resource: Resource[Any], namespace: str, body: dict[str, Any]) -> None:
        kind = {"apiVersion": resource.kind.api_version, "kind": resource.kind.kind}
        try:
            await self._client.create(resource, kind | body, namespace)
        except StatusError as error:
            terminating = error.code in (403, 404)
            if error.reason != "AlreadyExists" and not terminating:
                raise

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and old is None:
            self._controller.queue.add(new.metadata.name)

    def _content_changed(self, old: PartialObject | None, new: PartialObject | None) -> None:
        view = new if new is not None else old
        if view is not None and view.metadata.name in ("default", ROOT_CA) and old is not None:
            self._controller.queue.add(view.metadata.namespace)
