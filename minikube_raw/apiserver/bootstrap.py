"""What every cluster has from the start: the four system namespaces with their accounts, the Service `kubernetes` at the range's
first address, and a default StorageClass. Users may change or delete that for good: it is made together with the namespaces only.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import msgspec

from minikube_raw.api import scheme, status
from minikube_raw.api.storage import DEFAULT_CLASS, LOCAL_PROVISIONER
from minikube_raw.apiserver.auth import LOOPBACK
from minikube_raw.apiserver.podaccounts import DEFAULT_ACCOUNT
from minikube_raw.apiserver.resources.core import SYSTEM_NAMESPACES
from minikube_raw.client.transport import Request, Transport

if TYPE_CHECKING:
    from minikube_raw.apiserver.server import APIServer


async def ensure(server: APIServer, service_cidr: str, port: int) -> None:
    """Make what is missing, the Service leading to `port`; what is there is left alone. Raises StatusError."""
    transport = server.local_transport(LOOPBACK)
    if not server.registry.core("namespaces").cache.entries:
        await _create(transport, scheme.path(scheme.STORAGE_CLASS), _STANDARD_CLASS)
    for name in SYSTEM_NAMESPACES:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await _create(transport, scheme.path(scheme.NAMESPACE), namespace)
        # The controller would make it too; but a cluster whose namespaces are there can take pods at once.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT_ACCOUNT}}
        await _create(transport, scheme.path(scheme.SERVICE_ACCOUNT, name), account)
    await _create(transport, scheme.path(scheme.SERVICE, "default"), _kubernetes(service_cidr, port))


_STANDARD_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {DEFAULT_CLASS: "true"}},
    "provisioner": LOCAL_PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def _kubernetes(service_cidr: str, port: int) -> dict[str, Any]:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    address = str(ipaddress.ip_network(service_cidr)[1])
    metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": address, "ports": ports}}


async def _create(transport: Transport, path: str, obj: dict[str, Any]) -> None:
    request = Request("POST", path, {"fieldManager": ("kube-apiserver",)}, msgspec.json.encode(obj))
    response = await transport.request(request)
    if response.code not in (201, 409):
        raise status.from_json(response.body, response.code)
