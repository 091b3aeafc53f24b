"""What becomes of PersistentVolumes and the claims to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from simulated import bare_pod

from minikube_raw.api import storage
from minikube_raw.api.storage import PersistentVolume, PersistentVolumeClaim
from minikube_raw.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES

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


def storage_class(name: str, provisioner: str = "example.com/x", *, default: bool = False, **fields: Any) -> Body:
    notes = {storage.DEFAULT_CLASS: "true"} if default else {}
    metadata = {"name": name, "annotations": notes}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": metadata,
        "provisioner": provisioner,
        **fields,
    }


def phases(claimed: PersistentVolumeClaim | None, given: PersistentVolume | None) -> tuple[str, str]:
    return claimed.status.phase if claimed else "", given.status.phase if given else ""


async def events(master, reason: str, about: str = "") -> list[str]:
    """Wait for the first Events of a reason."""
    async with asyncio.timeout(60):
        while not (said := await master.events(reason, about)):  # noqa: ASYNC110 -- the Event is on the server only
            await asyncio.sleep(0.001)
    return said


async def told(master, about: str, message: str) -> None:
    """Wait for an Event of that text."""
    async with asyncio.timeout(60):
        while message not in await master.events(about=about):  # noqa: ASYNC110 -- the Event is on the server only
            await asyncio.sleep(0.001)


async def join(master, name: str) -> None:
    """Let a node join that says where it keeps volumes."""
    await master.kubelets.join(name)
    notes = {"labels": {"kubernetes.io/hostname": name}, "annotations": {storage.LOCAL_VOLUMES: "/state/volumes"}}
    await master.client.patch(NODES, name, {"metadata": notes})


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


async def test_a_volume_that_is_bound_stays_until_its_claim_is_gone(master, claims, volumes, eventually):
    await master.apply(volume())
    await master.apply(claim(storageClassName=""))
    await eventually(lambda: phases(claims(), volumes()) == ("Bound", "Bound"))

    await master.client.delete(PERSISTENT_VOLUMES, "v")
    await eventually(lambda: volumes().metadata.deletion_timestamp)
    await master.client.delete(PERSISTENT_VOLUME_CLAIMS, "c", "default")

    await eventually(lambda: volumes() is None)


# --- binding ---


async def test_a_claim_and_its_volume_name_each_other(master, claims, volumes, eventually):
    await master.apply(volume("big", "5Gi"))
    await master.apply(volume("small", "1Gi"))
    await eventually(
        lambda: all(volumes(name) and volumes(name).status.phase == "Available" for name in ("big", "small"))
    )
    await master.apply(claim(size="500Mi", storageClassName=""))

    await eventually(lambda: phases(claims(), volumes("small")) == ("Bound", "Bound"))

    bound, given = claims(), volumes("small")
    assert bound.spec.volume_name == "small"
    assert bound.status.capacity == {"storage": "1Gi"}
    assert bound.status.access_modes == ("ReadWriteOnce",)
    assert bound.metadata.annotations == {storage.BIND_COMPLETED: "yes", storage.BOUND_BY_CONTROLLER: "yes"}
    assert given.metadata.annotations == {storage.BOUND_BY_CONTROLLER: "yes"}
    assert (given.spec.claim_ref.uid, given.spec.claim_ref.name) == (bound.metadata.uid, "c")
    assert volumes("big").status.phase == "Available"


async def test_a_volume_kept_for_a_claim_goes_to_no_other(master, claims, volumes, eventually):
    await master.apply(volume("kept", claimRef={"namespace": "default", "name": "later"}))
    await master.apply(claim("other", storageClassName=""))
    await eventually(lambda: volumes("kept") and volumes("kept").status.phase == "Available")

    await master.apply(claim("later", "2Gi", storageClassName=""))
    await master.apply(claim("named", "1Mi", storageClassName="", volumeName="kept"))
    text = "no persistent volumes available for this claim and no storage class is set"
    await told(master, "later", text)
    await master.client.delete(PERSISTENT_VOLUME_CLAIMS, "later", "default")
    await eventually(lambda: claims("later") is None)
    await master.apply(claim("later", storageClassName=""))

    await eventually(lambda: claims("later") and claims("later").status.phase == "Bound")
    assert storage.BOUND_BY_CONTROLLER not in volumes("kept").metadata.annotations
    assert claims("other").status.phase == claims("named").status.phase == "Pending"


@pytest.mark.parametrize(
    ("wish", "offer"),
    [
        pytest.param({"storageClassName": "a"}, {"storageClassName": "b"}, id="class"),
        pytest.param({"accessModes": ["ReadWriteMany"]}, {}, id="access mode"),
        pytest.param({"volumeMode": "Block"}, {}, id="volume mode"),
        pytest.param({"selector": {"matchLabels": {"disk": "ssd"}}}, {"labels": {"disk": "old"}}, id="selector"),
        pytest.param({"resources": {"requests": {"storage": "2Gi"}}}, {}, id="size"),
    ],
)
async def test_a_volume_that_does_not_suit_stays_available(master, claims, volumes, eventually, wish, offer):
    await master.apply(volume(**{"storageClassName": "a", **offer}))
    await master.apply(claim(**{"storageClassName": "a", **wish}))
    await master.apply(claim("after", storageClassName="x"))
    await master.apply(volume("other", storageClassName="x"))

    await eventually(lambda: phases(claims("after"), volumes("other")) == ("Bound", "Bound"))

    assert (claims().status.phase, volumes().status.phase) == ("Pending", "Available")


async def test_a_claim_that_waits_says_for_what(master, eventually):
    await master.apply(storage_class("waits", volumeBindingMode="WaitForFirstConsumer"))
    await master.apply(storage_class("ext"))
    for name, of_class in (("none", ""), ("missing", "nosuch"), ("first", "waits"), ("external", "ext")):
        await master.apply(claim(name, storageClassName=of_class))

    expected = {
        "none": "no persistent volumes available for this claim and no storage class is set",
        "missing": 'storageclass.storage.k8s.io "nosuch" not found',
        "first": "waiting for first consumer to be created before binding",
        "external": "Waiting for a volume to be created either by the external provisioner 'example.com/x' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
        "registered.",
    }
    for name, message in expected.items():
        await told(master, name, message)


async def test_a_claim_gets_a_default_class_that_came_later(master, claims, eventually):
    await master.client.delete(STORAGE_CLASSES, "standard")
    await eventually(lambda: master.informers.of(STORAGE_CLASSES).get("standard") is None)
    await master.apply(claim())
    await eventually(claims)

    await master.apply(storage_class("late", default=True))

    await eventually(lambda: claims().spec.storage_class_name == "late")


@pytest.mark.parametrize(("policy", "phase"), [("Retain", "Released"), ("Delete", "Failed"), ("Recycle", "Failed")])
async def test_a_volume_whose_claim_is_gone_is_kept_or_has_failed(master, claims, volumes, eventually, policy, phase):
    await master.apply(volume(persistentVolumeReclaimPolicy=policy))
    await master.apply(claim(storageClassName=""))
    await eventually(lambda: phases(claims(), volumes()) == ("Bound", "Bound"))

    await master.client.delete(PERSISTENT_VOLUME_CLAIMS, "c", "default")

    await eventually(lambda: volumes().status.phase == phase)
    if policy == "Delete":
        text = 'error getting deleter volume plugin for volume "v": no volume plugin matched'
        assert volumes().status.message == text


async def test_a_claim_whose_volume_vanished_is_lost(master, claims, volumes, eventually):
    await master.apply(volume())
    await master.apply(claim(storageClassName=""))
    await eventually(lambda: phases(claims(), volumes()) == ("Bound", "Bound"))

    await master.client.delete(PERSISTENT_VOLUMES, "v")
    await master.client.patch(PERSISTENT_VOLUMES, "v", {"metadata": {"finalizers": None}})

    await eventually(lambda: claims().status.phase == "Lost")
    said = await events(master, "ClaimLost")
    assert said == ["Bound claim has lost its PersistentVolume. Data on the volume is lost!"]


# --- ephemeral volumes ---


async def test_an_ephemeral_volume_is_claimed_for_its_pod_and_goes_with_it(master, claims, eventually):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": claim(storageClassName="nosuch")["spec"]}
    await master.apply(bare_pod("p", volumes=[{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]))

    await eventually(lambda: claims("p-own"))
    made = claims("p-own")
    assert (made.metadata.labels, made.metadata.controller.name) == ({"a": "b"}, "p")
    assert (made.spec.storage_class_name, made.status.phase) == ("nosuch", "Pending")

    await master.client.delete(PODS, "p", "default")
    await eventually(lambda: claims("p-own") is None)


async def test_a_claim_of_somebody_else_is_no_pods_ephemeral_volume(master, claims, eventually):
    await master.apply(claim("p-own", storageClassName=""))
    await eventually(lambda: claims("p-own"))
    template = {"spec": claim()["spec"]}
    await master.apply(bare_pod("p", volumes=[{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]))

    said = await events(master, "FailedBinding", "p")
    assert said == ["ephemeral volume own: PVC default/p-own was not created for pod default/p (pod is not owner)"]


# --- the provisioner in the box ---


async def test_a_claim_of_the_default_class_becomes_a_directory_of_its_pods_node(master, claims, volumes, eventually):
    await join(master, "n1")
    await master.apply(claim())
    await master.apply(using("p", "c"))

    await eventually(lambda: claims() and claims().status.phase == "Bound" and master.places()["n1"] == 1)

    made = volumes(f"pvc-{claims().metadata.uid}")
    assert made.spec.local.path == f"/state/volumes/{made.metadata.name}"
    assert made.metadata.labels == {storage.LOCAL_NODE: "n1"}
    assert set(made.metadata.finalizers) == {storage.LOCAL_DATA, storage.PV_PROTECTION}
    assert made.spec.node_affinity.required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["n1"]
    assert (made.spec.persistent_volume_reclaim_policy, made.spec.storage_class_name) == ("Delete", "standard")
    assert claims().metadata.annotations[storage.SELECTED_NODE] == "n1"


async def test_a_second_pod_follows_the_volume_to_its_node(master, claims, eventually):
    for name in ("n1", "n2"):
        await join(master, name)
    await master.apply(claim())
    await master.apply(using("first", "c", nodeSelector={"kubernetes.io/hostname": "n2"}))
    await eventually(lambda: master.places()["n2"] == 1)

    for number in range(3):
        await master.apply(using(f"more-{number}", "c"))
    await eventually(lambda: master.places()["n2"] == 4)

    await master.apply(using("elsewhere", "c", nodeSelector={"kubernetes.io/hostname": "n1"}))
    said = await events(master, "FailedScheduling", "elsewhere")
    assert said == [
        (
            "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) didn't "
            "match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/2 nodes are available: "
            "2 Preemption is not helpful for scheduling."
        )
    ]


async def test_a_deleted_claims_volume_waits_for_the_node_to_remove_the_data(master, claims, volumes, eventually):
    await join(master, "n1")
    await master.apply(claim())
    await master.apply(using("p", "c"))
    await eventually(lambda: claims() and claims().status.phase == "Bound" and master.places()["n1"] == 1)
    name = claims().spec.volume_name

    await master.client.delete(PODS, "p", "default")
    await master.client.delete(PERSISTENT_VOLUME_CLAIMS, "c", "default")

    await eventually(lambda: volumes(name).metadata.finalizers == (storage.LOCAL_DATA,))
    assert volumes(name).metadata.deletion_timestamp is not None
    master.kubelets.alive.clear()
    await master.client.delete(NODES, "n1")
    await eventually(lambda: volumes(name) is None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"accessModes": ["ReadWriteMany"]}, "access mode ReadWriteMany is not supported: a directory is of one node"),
        ({"volumeMode": "Block"}, "volume mode Block is not supported"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "claim.Spec.Selector is not supported"),
    ],
)
async def test_what_a_directory_cannot_be_is_said(master, eventually, change, why):
    await join(master, "n1")
    await master.apply(claim(**change))
    await master.apply(using("p", "c"))

    said = await events(master, "ProvisioningFailed", "c")
    assert said == [f'failed to provision volume with StorageClass "standard": {why}']


async def test_a_volume_that_is_there_is_chosen_with_the_node(master, claims, volumes, eventually):
    for name in ("n1", "n2"):
        await join(master, name)
    await master.apply(
        storage_class("by-hand", "kubernetes.io/no-provisioner", volumeBindingMode="WaitForFirstConsumer")
    )
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}
    local = {"local": {"path": "/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}}}
    await master.apply(claim(storageClassName="by-hand"))
    await master.apply(using("p", "c"))
    said = await events(master, "FailedScheduling", "p")
    assert said[0].startswith("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. ")

    await master.apply(volume("disk", storageClassName="by-hand", **local))
    await eventually(lambda: volumes("disk") and volumes("disk").status.phase == "Available")
    master.clock.advance(2)

    await eventually(lambda: master.places()["n2"] == 1)
    assert claims().spec.volume_name == "disk"


@pytest.mark.parametrize(
    ("claimed", "why"),
    [("nosuch", 'persistentvolumeclaim "nosuch" not found'), ("c", "pod has unbound immediate PersistentVolumeClaims")],
)
async def test_a_pod_without_its_claim_stays_pending(master, eventually, claimed, why):
    await join(master, "n1")
    await master.apply(claim(storageClassName="nosuch"))
    await master.apply(using("p", claimed))

    said = await events(master, "FailedScheduling", "p")
    assert said == [f"0/1 nodes are available: {why}. not found"]


async def test_a_claim_for_one_pod_alone_keeps_a_second_pod_pending(master, eventually):
    await join(master, "n1")
    await master.apply(claim(accessModes=["ReadWriteOncePod"]))
    await master.apply(using("p", "c"))
    await eventually(lambda: master.places()["n1"] == 1)

    await master.apply(using("second", "c"))
    said = await events(master, "FailedScheduling", "second")
    assert "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode" in said[0]
