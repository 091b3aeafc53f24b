"""Images that a node does not have yet: how long one took and how large it is."""

from __future__ import annotations

import errno
import re

from pod_builders import pod
from worked_node import Image, Images

from minikube_raw.api.core import Pod
from minikube_raw.kubelet.images import ImageManager


class Registry(Images):
    """Nothing is there, and everything can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.present = {}

    def obtain(self, name: str) -> Image | None:
        return Image(size=4096)


class FullDisk(Registry):
    def obtain(self, name: str) -> Image | None:
        raise OSError(errno.ENOSPC, "No space left on device", "/images/blobs/x")


async def test_an_image_for_which_the_disk_has_no_room_backs_off_and_says_so(node, eventually) -> None:
    node.images.__class__ = FullDisk
    node.images.present = {}

    node.workers.update(pod())
    await eventually(lambda: node.state == "ErrImagePull")

    assert "/images/blobs/x: No space left on device" in node.container["state"]["waiting"]["message"]
    node.clock.advance(1)
    await eventually(lambda: node.state == "ImagePullBackOff")


async def test_a_container_whose_files_cannot_be_written_says_which(node, eventually, tmp_path) -> None:
    wish = pod(containers=[{"name": "c", "image": "busybox", "terminationMessagePath": "/dev/termination-log"}])
    (tmp_path / "pods" / wish.metadata.uid).mkdir(parents=True)
    (tmp_path / "pods" / wish.metadata.uid / "containers").touch()  # as good as a full disk

    node.workers.update(wish)
    await eventually(lambda: node.state == "CreateContainerError")

    assert node.container["state"]["waiting"]["message"].endswith("/containers/c: Not a directory")
    assert any(each.startswith("Warning Failed Error: ") for each in node.events)


async def test_an_image_that_was_pulled_is_told_with_its_time_and_its_size() -> None:
    told: list[str] = []

    def record(pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        told.append(f"{kind} {reason} {message}")

    wish = pod()
    await ImageManager(Registry(), record).ensure(wish, wish.spec.containers[0], 0.0)

    pulling, pulled = told
    image = wish.spec.containers[0].image
    assert pulling == f'Normal Pulling Pulling image "{image}"'
    took = r"\d+m?s \(\d+m?s including waiting\)"
    assert re.fullmatch(
        rf'Normal Pulled Successfully pulled image "{image}" in {took}\. Image size: 4096 bytes\.', pulled
    )
