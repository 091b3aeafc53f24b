"""Image volumes as Kubernetes' suite asks for them (sig-node: ImageVolume), and what holds the image meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clusters import Cluster

pytestmark = pytest.mark.root
SLEEP = ["sh", "-c", "exec sleep 3600"]


def pod(name: str, *, node: str = "", mounts: tuple[dict[str, str], ...] = (), **images: str) -> str:
    """A pod with an image volume for each keyword, mounted at /NAME unless `mounts` says where."""
    volumes = [{"name": volume, "image": {"reference": reference}} for volume, reference in images.items()]
    places = list(mounts) or [{"name": volume, "mountPath": f"/{volume}"} for volume in images]
    container = {"name": "c", "image": "busybox", "command": SLEEP, "volumeMounts": places}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    spec |= {"nodeName": node} if node else {}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_pods_of_a_node_see_the_same_image_and_hold_it(cluster: Cluster, namespace: str, apply: Any) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    part = {"name": "data", "mountPath": "/part", "subPath": "bin"}
    apply(pod("a", node=node, data="httpd"))
    apply(pod("b", node=node, data="httpd", mounts=(part,)))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=60s", "pod/a", "pod/b")

    def look(name: str, command: str) -> str:
        done = cluster.kubectl("-n", namespace, "exec", name, "--", "sh", "-c", command, check=False)
        return done.stdout + done.stderr

    assert look("a", "ls /data/bin") == look("b", "ls /part") != ""
    assert "Read-only file system" in look("a", "touch /data/x")
    assert "Permission denied" in look("a", "/data/bin/sh -c true")
    refused = cluster.cli("image", "rm", "httpd", check=False)
    assert refused.returncode != 0
    assert "in use" in refused.stderr


def test_an_image_that_is_missing_hinders_those_only_who_see_it(cluster: Cluster, namespace: str, apply: Any) -> None:
    own = {"name": "there", "mountPath": "/there"}
    apply(pod("p", there="busybox", missing="nosuch:8", mounts=(own,)))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=50s", "pod/p")
