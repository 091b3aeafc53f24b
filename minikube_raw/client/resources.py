"""Which view our loops read each kind as; a kind that nobody looks into is held as its metadata alone."""

from __future__ import annotations

from typing import Any

from minikube_raw.api import apps, coordination, core, runtimeclasses, scheme, storage
from minikube_raw.api.meta import PartialObject
from minikube_raw.api.scheme import Kind
from minikube_raw.client.rest import Resource

PODS = Resource(scheme.POD, core.Pod)
NODES = Resource(scheme.NODE, core.Node)
NAMESPACES = Resource(scheme.NAMESPACE, core.Namespace)
SERVICES = Resource(scheme.SERVICE, core.Service)
REPLICA_SETS = Resource(scheme.REPLICA_SET, apps.ReplicaSet)
DEPLOYMENTS = Resource(scheme.DEPLOYMENT, apps.Deployment)
LEASES = Resource(scheme.LEASE, coordination.Lease)
SERVICE_ACCOUNTS = Resource(scheme.SERVICE_ACCOUNT, PartialObject)
PERSISTENT_VOLUMES = Resource(scheme.PERSISTENT_VOLUME, storage.PersistentVolume)
PERSISTENT_VOLUME_CLAIMS = Resource(scheme.PERSISTENT_VOLUME_CLAIM, storage.PersistentVolumeClaim)
RUNTIME_CLASSES = Resource(scheme.RUNTIME_CLASS, runtimeclasses.RuntimeClass)
STORAGE_CLASSES = Resource(scheme.STORAGE_CLASS, storage.StorageClass)
EVENTS = Resource(scheme.EVENT, PartialObject)

_TYPED: dict[str, Resource[Any]] = {
    resource.kind.resource: resource
    for resource in (
        PODS,
        NODES,
        NAMESPACES,
        SERVICES,
        REPLICA_SETS,
        DEPLOYMENTS,
        LEASES,
        SERVICE_ACCOUNTS,
        PERSISTENT_VOLUMES,
        PERSISTENT_VOLUME_CLAIMS,
        STORAGE_CLASSES,
        RUNTIME_CLASSES,
        EVENTS,
    )
}


def resource_of(kind: Kind) -> Resource[Any]:
    """Return the resource a kind is held as: with its view above, or with its metadata alone."""
    return _TYPED.get(kind.resource) or Resource(kind, PartialObject)
