"""Volumes that are images: had before the container's own image, and a container waits for them as for that."""

from __future__ import annotations

from typing import Any

from pod_builders import pod
from worked_node import Image

from minikube_raw.runtime import cri


def wish(reference: str, policy: str = "IfNotPresent") -> Any:
    mounts = [{"name": "v", "mountPath": "/v", "subPath": "etc"}]
    volume = {"name": "v", "image": {"reference": reference, "pullPolicy": policy}}
    return pod(containers=[{"name": "c", "image": "busybox", "volumeMounts": mounts}], volumes=[volume])


async def test_the_runtime_is_asked_for_the_image_at_its_place(node, eventually) -> None:
    node.images.present["docker.io/library/data:1"] = Image(id="sha256:data")
    node.workers.update(wish("data:1"))

    await eventually(lambda: node.state == "running")

    (config,) = node.runtime.configs.values()
    assert cri.Mount(container_path="/v", image="sha256:data", sub_path="etc", readonly=True) in config.mounts
    assert node.container["volumeMounts"] == [{"name": "v", "mountPath": "/v"}]
    assert node.events.count("Pulled") == 2


async def test_a_container_waits_for_an_image_that_it_sees(node, eventually) -> None:
    node.workers.update(wish("data:1"))

    await eventually(lambda: node.state == "ErrImagePull")
    assert "data:1" in node.container["state"]["waiting"]["message"]
    assert any(event.startswith('Warning Failed Failed to pull image "data:1"') for event in node.events)
    node.clock.advance(1)
    await eventually(lambda: node.state == "ImagePullBackOff")
    assert node.runtime.configs == {}

    node.images.present["docker.io/library/data:1"] = Image(id="sha256:data")
    node.clock.advance(10)
    await eventually(lambda: node.state == "running")


async def test_an_image_that_must_not_be_pulled_is_told_as_such(node, eventually) -> None:
    node.workers.update(wish("data:1", "Never"))

    await eventually(lambda: node.state == "ErrImageNeverPull")
    assert node.phase() == "Pending"
