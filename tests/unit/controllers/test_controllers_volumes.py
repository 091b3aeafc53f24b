"""What becomes of PersistentVolumes and the claims to them."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import bare_pod

from minikube_raw.api.storage import PersistentVolume, PersistentVolumeClaim
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS

Body = dict[str, Any]


def claim(name: str = "c", size: str = "1Gi", *, annotations: Body | None = None, **spec: Any) -> Body:
    wish = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    metadata = {"name": name, "namespace": "default", "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wish}


def volume(name: str = "v", size: str = "1Gi", *, labels: Body | None = None, **spec: Any) -> Body:
    source = {} if "local" in spec else {"hostPath": {"path": "/x"}}
    wish = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, **source, **spec}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": wish,
    }


def using(name: str, claimed: str, **spec: Any) -> Body:
    return bare_pod(name, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claimed}}], **spec)


@pytest.fixture
def claims(master):
    """Return a function to a claim as the informer has it."""

    def get(name: str = "c") -> PersistentVolumeClaim | None:
        return master.informers.of(PERSISTENT_VOLUME_CLAIMS).get(f"default/{name}")

    return get


@pytest.fixture
def volumes(master):
    """Return a function to a volume as the informer has it."""

    def get(name: str = "v") -> PersistentVolume | None:
        return master.informers.of(PERSISTENT_VOLUMES).get(name)

    return get


async def test_a_claim_goes_when_the_last_pod_that_uses_it_is_gone(master, claims, eventually):
    await master.kubelets.join("n1")
    await master.apply(claim())
    await master.apply(using("p", "c", nodeName="n1"))
    await master.apply(using("waits", "c", schedulingGates=[{"name": "g"}]))

    await master.client.delete(PERSISTENT_VOLUME_CLAIMS, "c", "default")
    await eventually(lambda: claims().metadata.deletion_timestamp)
    await master.client.delete(PODS, "p", "default")

    await eventually(lambda: claims() is None)


async def test_a_volume_that_is_bound_stays_until_it_is_not(master, volumes, eventually):
    await master.apply(volume(claimRef={"namespace": "default", "name": "c", "uid": "u"}, nodeAffinity=None))
    await master.client.patch(PERSISTENT_VOLUMES, "v", {"status": {"phase": "Bound"}}, subresource="status")
    await master.client.delete(PERSISTENT_VOLUMES, "v")
    await eventually(lambda: volumes().metadata.deletion_timestamp)

    await master.client.patch(PERSISTENT_VOLUMES, "v", {"status": {"phase": "Released"}}, subresource="status")

    await eventually(lambda: volumes() is None)
