"""Claims of a host without a master: which directory a pod gets, and what keeps it from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.kubelet.givenclaims import GivenClaims
from minikube_raw.kubelet.givenvolumes import given
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.persistent import path_of

ROOT, PODS = Path("/state/volumes"), Path("/state/pods")


def claim(size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "ns"}, "spec": asked}


def volume(name: str, size: str, *, node: str = "", **spec: Any) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]
    there = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}} if node else {}
    source = {} if "local" in spec else {"hostPath": {"path": f"/srv/{name}"}}
    body = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, **source, **there, **spec}
    return {"kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


async def path(*objects: dict[str, Any], **spec: Any) -> str:
    """The directory that a pod which claims `data` gets."""
    source = spec or {"persistentVolumeClaim": {"claimName": "data"}}
    wish = pod(volumes=[{"name": "v", **source}])
    claims = GivenClaims(ROOT, PODS, "here")
    claims.give("u1", given(objects))
    (found,) = (await claims.of(wish)).values()
    return path_of(found)


@pytest.mark.parametrize("named", [{}, {"storageClassName": "standard"}])
async def test_a_claim_gets_a_directory_that_is_named_for_it(named: dict[str, str]) -> None:
    assert await path(claim(**named)) == "/state/volumes/ns_data"


async def test_a_claim_that_says_no_class_does_not_get_a_volume_without_one() -> None:
    assert await path(claim(), volume("other", "2Gi")) == "/state/volumes/ns_data"


async def test_no_two_claims_share_a_volume() -> None:
    other = claim(storageClassName="")
    other["metadata"] = {"name": "other", "namespace": "ns"}
    names = {"v": "data", "w": "other", "x": "data"}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": of}} for name, of in names.items()]
    claims = GivenClaims(ROOT, PODS, "here")
    claims.give("u1", given([claim(storageClassName=""), other, volume("a", "1Gi"), volume("b", "2Gi")]))
    found = await claims.of(pod(volumes=volumes))
    assert {name: path_of(each) for name, each in found.items()} == {"v": "/srv/a", "w": "/srv/b", "x": "/srv/a"}


async def test_of_volumes_that_stand_beside_the_smallest_that_suits_is_taken() -> None:
    given_beside = [volume("large", "9Gi"), volume("right", "2Gi"), volume("small", "1Mi")]
    assert await path(claim(storageClassName=""), *given_beside) == "/srv/right"
    assert await path(claim(storageClassName="", volumeName="large"), *given_beside) == "/srv/large"
    local = volume("disk", "1Gi", node="here", local={"path": "/mnt/disk"})
    assert await path(claim(storageClassName=""), local) == "/mnt/disk"


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([], 'persistentvolumeclaim "data" does not stand beside the pod'),
        ([claim(storageClassName="fast")], 'storageclass.storage.k8s.io "fast" not found'),
        ([claim(storageClassName="")], "no persistent volumes available for this claim and no storage class is set"),
        ([claim(storageClassName="", volumeName="gone")], 'persistentvolume "gone" does not stand beside the pod'),
        (
            [claim("2Gi", storageClassName="", volumeName="a"), volume("a", "1Gi")],
            'Cannot bind to requested volume "a": requested PV is too small',
        ),
        ([claim(storageClassName=""), volume("a", "1Gi", node="elsewhere")], "no matching NodeSelectorTerms"),
    ],
)
async def test_what_keeps_a_pod_from_its_volume_is_told(objects: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(MountError, match=f"error processing PVC ns/data: {message}"):
        await path(*objects)


def from_template(**spec: Any) -> dict[str, Any]:
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim(**spec)["spec"]}}}


async def test_a_claim_from_a_template_lies_among_its_pods_volumes_and_goes_with_them() -> None:
    assert await path(**from_template()) == "/state/pods/u1/volumes/kubernetes.io~local-volume/v"


async def test_a_claim_from_a_template_may_get_a_volume_that_stands_beside() -> None:
    assert await path(volume("right", "2Gi"), **from_template(storageClassName="")) == "/srv/right"


async def test_a_claim_of_the_name_of_a_templates_is_not_taken_for_it() -> None:
    other = claim()
    other["metadata"]["name"] = "p-v"
    text = r"PVC ns/p-v was not created for pod ns/p \(pod is not owner\)"
    with pytest.raises(MountError, match=f"error processing PVC ns/p-v: {text}"):
        await path(other, **from_template())
