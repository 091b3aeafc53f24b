"""From a claim to a directory, and what keeps a pod from it."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api.core import ObjectReference
from minikube_raw.api.meta import ObjectMeta, OwnerReference
from minikube_raw.api.storage import (
    LocalVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus,
    PersistentVolumeSpec,
    VolumeNodeAffinity,
)
from minikube_raw.api.volumes import HostPathVolumeSource
from minikube_raw.kubelet import downward, env, persistent, projection
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.volumes import VolumeManager

BOUND = PersistentVolumeClaimStatus(phase="Bound")


def claim(*, volume: str = "pv", status: Any = BOUND, **metadata: Any) -> PersistentVolumeClaim:
    meta = ObjectMeta(name="c", namespace="ns", uid="claim-uid", **metadata)
    return PersistentVolumeClaim(metadata=meta, spec=PersistentVolumeClaimSpec(volume_name=volume), status=status)


def volume(path: str = "/data", **spec: Any) -> PersistentVolume:
    spec.setdefault("claim_ref", ObjectReference(uid="claim-uid"))
    spec.setdefault("local", LocalVolumeSource(path=path))
    return PersistentVolume(metadata=ObjectMeta(name="pv", uid="pv-uid"), spec=PersistentVolumeSpec(**spec))


def wish(**metadata: Any) -> Any:
    mount = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    claims = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    return pod(containers=[mount], volumes=claims, metadata=metadata)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (claim(status=PersistentVolumeClaimStatus()), "PVC is not bound"),
        (claim(volume=""), "PVC is not bound"),
        (claim(deletion_timestamp="2026-01-01T00:00:00Z"), "can't start pod because PVC is being deleted"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_used_yet_says_why(found, why) -> None:
    of = wish()
    with pytest.raises(persistent.ClaimError, match="error processing PVC ns/c: ") as caught:
        persistent.volume_name(of, of.spec.volumes[0], found)
    assert why in str(caught.value)


def test_an_ephemeral_volume_takes_no_claim_that_is_not_its_pods() -> None:
    of = pod(volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])
    owner = OwnerReference(kind="Pod", name="p", uid="u1", controller=True)

    assert persistent.volume_name(of, of.spec.volumes[0], claim(owner_references=(owner,))) == "pv"
    with pytest.raises(persistent.ClaimError, match=r"PVC ns/p-v was not created for pod ns/p \(pod is not owner\)"):
        persistent.volume_name(of, of.spec.volumes[0], claim())


HERE = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "h", "operator": "In", "values": ["here"]}]}]}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"claim_ref": None}, "ClaimRef"),
        ({"claim_ref": ObjectReference(uid="another")}, "ClaimRef"),
        (
            {"volume_mode": "Block", "local": None, "host_path": HostPathVolumeSource(path="/dev/x")},
            "volumeMode Block, which only local volumes have on this node",
        ),
        ({"local": None}, "of a kind that is not supported"),
        ({"node_affinity": VolumeNodeAffinity(required=HERE)}, "no matching NodeSelectorTerms"),
    ],
)
def test_a_volume_that_this_node_cannot_mount_says_why(spec, why) -> None:
    with pytest.raises(persistent.ClaimError, match=why):
        persistent.check(volume(**spec), claim(), "n1", {"h": "there"})


def test_a_volume_of_this_node_passes() -> None:
    persistent.check(volume(node_affinity=VolumeNodeAffinity(required=HERE)), claim(), "n1", {"h": "here"})


def test_a_local_volume_is_mounted_where_it_lies_and_survives_its_pods(tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    manager, of = VolumeManager(tmp_path / "pods"), wish()
    manager.set_up(of, _sources(volume(str(data))))

    (mount,) = manager.mounts(of, of.spec.containers[0], {})
    manager.tear_down("u1")

    assert mount.host_path == str(data)
    assert data.is_dir()


def test_a_missing_local_path_is_told_with_the_volumes_own_name(tmp_path) -> None:
    with pytest.raises(MountError, match='volume "pv" : path "/no/such" does not exist'):
        VolumeManager(tmp_path).set_up(wish(), _sources(volume("/no/such")))


def test_a_device_is_passed_on_and_not_mounted_nor_the_other_way_round(tmp_path) -> None:
    device = {"name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}
    claims = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    passed_on = pod(containers=[device], volumes=claims)
    block = _sources(volume(str(tmp_path), volume_mode="Block"))
    with pytest.raises(MountError, match="volume v has volumeMode Block, but is specified in volumeMounts"):
        VolumeManager(tmp_path).set_up(wish(), block)
    with pytest.raises(MountError, match="volume v has volumeMode Filesystem, but is specified in volumeDevices"):
        VolumeManager(tmp_path).set_up(passed_on, _sources(volume(str(tmp_path))))
    with pytest.raises(MountError, match=f'volume "pv" : path "{tmp_path}" is not a block device'):
        VolumeManager(tmp_path).set_up(passed_on, block)


def test_a_volume_for_one_pod_is_refused_to_a_second(tmp_path) -> None:
    manager, one = VolumeManager(tmp_path / "pods"), volume(str(tmp_path), access_modes=("ReadWriteOncePod",))
    manager.set_up(wish(), _sources(one))
    manager.set_up(wish(), _sources(one))

    with pytest.raises(MountError, match="ReadWriteOncePod access mode and is already in use by another pod"):
        manager.set_up(wish(uid="u2"), _sources(one))
    manager.tear_down("u1")
    manager.set_up(wish(uid="u2"), _sources(one))


def _sources(of: PersistentVolume) -> projection.Sources:
    return projection.Sources(env.Referred(), downward.Addresses("h"), persistent={"v": of})
