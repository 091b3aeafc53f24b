"""A node makes directories for the volumes that are to be on it, and removes the data of those that go."""

from __future__ import annotations

import pytest

from minikube_raw.api import scheme, storage
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.events import EventRecorder
from minikube_raw.kubelet.localvolumes import LocalVolumes, put_aside
from minikube_raw.linux import removal


class Node:
    """A node's volumes over the API in memory; `dir` is one volume's directory."""

    def __init__(self, api, client, root, background) -> None:
        self.api, self.root, self.clock = api, root, ManualClock()
        self.recorder = EventRecorder(client, "kubelet", clock=self.clock)
        background(self.recorder.run())
        background(LocalVolumes(client, "n1", root, self.recorder, self.clock).run())

    def put(self, name: str = "pvc-1", *, policy: str = "Delete", deleted: bool = False, **metadata) -> None:
        held = {"finalizers": [storage.LOCAL_DATA], "labels": {storage.LOCAL_NODE: "n1"}, **metadata}
        gone = {"deletionTimestamp": "2026-01-31T09:30:00Z"} if deleted else {}
        spec = {"persistentVolumeReclaimPolicy": policy}
        self.api.put(scheme.PERSISTENT_VOLUME, {"metadata": {"name": name, **held, **gone}, "spec": spec})

    def let_go(self, name: str = "pvc-1") -> bool:
        return not self.api.get(scheme.PERSISTENT_VOLUME, name)["metadata"]["finalizers"]


@pytest.fixture
async def node(api, client, tmp_path, background) -> Node:
    return Node(api, client, tmp_path / "volumes", background)


async def test_a_new_volume_gets_a_directory_everybody_may_write_to(node, eventually) -> None:
    node.put()

    await eventually((node.root / "pvc-1").is_dir)
    await eventually(lambda: (node.root / "pvc-1").stat().st_mode & 0o7777 == 0o777)


async def test_data_that_is_there_is_left_alone(node, eventually) -> None:
    (node.root / "pvc-1").mkdir(parents=True)
    (node.root / "pvc-1" / "data").write_text("x")

    node.put()
    node.put("pvc-2")

    await eventually((node.root / "pvc-2").is_dir)
    assert (node.root / "pvc-1" / "data").read_text() == "x"


async def test_a_deleted_volumes_data_goes_before_its_finalizer(node, eventually) -> None:
    (node.root / "pvc-1" / "deep" / "er").mkdir(parents=True)

    node.put(deleted=True)

    await eventually(node.let_go)
    assert not (node.root / "pvc-1").exists()


async def test_a_volume_that_is_retained_or_still_in_use_keeps_its_data(node, eventually) -> None:
    for name in ("retained", "used"):
        (node.root / name).mkdir(parents=True)

    node.put("used", deleted=True, finalizers=[storage.LOCAL_DATA, storage.PV_PROTECTION])
    node.put("retained", policy="Retain", deleted=True)

    await eventually(lambda: node.let_go("retained"))
    assert not node.let_go("used")
    assert all((node.root / name).is_dir() for name in ("retained", "used"))


async def test_data_that_cannot_be_removed_is_told_and_tried_again(node, eventually) -> None:
    node.root.mkdir()
    (node.root / "pvc-1").write_text("no directory")

    node.put(deleted=True)

    def told() -> list[str]:
        return [event["reason"] for event in node.api.all(scheme.EVENT)]

    await eventually(lambda: told() == ["VolumeFailedDelete"])
    (node.root / "pvc-1").unlink()
    node.clock.advance(60)
    await eventually(node.let_go)


def test_a_link_in_the_place_of_a_volume_is_not_followed(tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data").write_text("x")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(outside)
    (tmp_path / "pvc-1").symlink_to(outside)

    put_aside(tmp_path, "inside")
    assert removal.empty_trash(str(tmp_path / ".removed"))
    with pytest.raises(NotADirectoryError, match="pvc-1"):
        put_aside(tmp_path, "pvc-1")

    assert not (tmp_path / "inside").exists()

    assert (outside / "data").read_text() == "x"
