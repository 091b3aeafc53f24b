"""Static pods from a directory, and the mirrors that show them on the API server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from worked_node import Node as WorkedNode

from minikube_raw.api import scheme
from minikube_raw.api.core import Node, ObjectMeta
from minikube_raw.client.clock import SystemClock
from minikube_raw.client.informer import Informer
from minikube_raw.client.resources import PODS
from minikube_raw.kubelet.mirrors import Mirrors
from minikube_raw.kubelet.staticpods import StaticPods, static_pod
from minikube_raw.kubelet.statusmanager import StatusManager

POD = "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: busybox, command: [%s]}]}\n"
KEY = "default/web-n1"


class Directory:
    """A directory of manifests and what was said of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.static = StaticPods(path, "n1", SystemClock(), lambda kind, reason, message: self.told.append(message))

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        self.static.read()


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    (tmp_path / "manifests").mkdir()
    return Directory(tmp_path / "manifests")


def test_a_file_is_a_pod_named_for_the_node_and_known_by_what_it_says() -> None:
    one, same, other = (static_pod((POD % word).encode(), "N1") for word in ("a", "a", "b"))

    assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("web-n1", "default")
    assert one["metadata"]["uid"] == same["metadata"]["uid"] != other["metadata"]["uid"]
    assert one["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    assert one["spec"]["nodeName"] == "N1"
    assert {"operator": "Exists", "effect": "NoExecute"} in one["spec"]["tolerations"]


@pytest.mark.parametrize("name", ["../up", "..", "a/b", "line\nbreak", "nul\0", "Upper", "x" * 300])
@pytest.mark.parametrize("what", ["name", "namespace", "container", "init container", "volume"])
def test_a_name_that_would_be_a_path_is_refused(directory: Directory, what: str, name: str) -> None:
    """No API server has looked at these."""
    meta, container, volume = {"name": "web"}, {"name": "c", "image": "busybox"}, {"name": "v", "emptyDir": {}}
    init = {"name": "i", "image": "busybox"}
    changed = {"name": meta, "namespace": meta, "container": container, "init container": init, "volume": volume}[what]
    changed["namespace" if what == "namespace" else "name"] = name
    spec = {"containers": [container], "initContainers": [init], "volumes": [volume]}

    directory.write("web.json", json.dumps({"kind": "Pod", "metadata": meta, "spec": spec}))

    assert directory.static.objects == {}
    assert "Invalid value: " in directory.told[0]


def test_a_broken_file_is_told_of_once_and_the_others_go_on(directory: Directory) -> None:
    directory.write("web.yaml", POD % "a")
    directory.write("broken.yaml", "kind: Pod\n  x: [")
    directory.write("service.yaml", "kind: Service")

    directory.static.read()

    assert list(directory.static.objects) == [KEY]
    assert [text.split(" ", 1)[0] for text in directory.told] == ["broken.yaml", "service.yaml"]


async def test_a_changed_file_is_another_pod_that_waits_for_the_old_one_to_go(
    directory: Directory, node: WorkedNode, eventually: Any
) -> None:
    directory.write("web.yaml", POD % "a")
    directory.static.feed(node.workers, networked=True)
    await eventually(lambda: node.state == "running")
    (old,) = (each.uid for each in node.workers.all())

    directory.write("web.yaml", POD % "b")
    directory.static.feed(node.workers, networked=True)
    assert [each.uid for each in node.workers.all()] == [old]
    await eventually(lambda: not node.workers.all())
    directory.static.feed(node.workers, networked=True)

    assert [each.uid for each in node.workers.all()] != [old]


def test_before_there_is_a_network_only_pods_of_the_nodes_own_run(directory: Directory, node: WorkedNode) -> None:
    directory.write("web.yaml", POD % "a")
    directory.write("host.yaml", (POD % "a").replace("web", "host").replace("spec: {", "spec: {hostNetwork: true, "))

    directory.static.feed(node.workers, networked=False)

    assert [each.pod.metadata.name for each in node.workers.all() if each.pod] == ["host-n1"]


class Shown:
    """Mirrors over an API in memory."""

    def __init__(self, directory: Directory, client: Any, background: Any) -> None:
        owner = Node(metadata=ObjectMeta(name="n1", uid="node-uid"))
        self.statuses = StatusManager(client)
        self.mirrors = Mirrors(client, self.statuses, lambda: directory.static.objects, lambda: owner, SystemClock())
        informer = Informer(client, PODS)
        informer.add_handler(self.mirrors.seen)
        background(informer.run())
        background(self.mirrors.run())
        self.mirrors.look_again()


async def test_a_mirror_is_made_owned_by_the_node_and_made_again_when_deleted(
    directory: Directory, client: Any, api: Any, background: Any, eventually: Any
) -> None:
    directory.write("web.yaml", POD % "a")
    shown = Shown(directory, client, background)
    await eventually(lambda: api.all(scheme.POD))
    (mirror,) = api.all(scheme.POD)
    notes = mirror["metadata"]["annotations"]
    assert notes["kubernetes.io/config.mirror"] == notes["kubernetes.io/config.hash"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid", "controller": True}
    assert mirror["metadata"]["ownerReferences"] == [owner]

    await eventually(lambda: shown.mirrors._mirrors)
    api.remove(scheme.POD, "web-n1", "default")

    await eventually(lambda: [each["metadata"]["uid"] for each in api.all(scheme.POD)] != [mirror["metadata"]["uid"]])
    await shown.statuses.close()


async def test_a_mirror_follows_its_file(
    directory: Directory, client: Any, api: Any, background: Any, eventually: Any
) -> None:
    directory.write("web.yaml", POD % "a")
    shown = Shown(directory, client, background)
    await eventually(lambda: shown.mirrors._mirrors)

    directory.write("web.yaml", POD % "b")
    shown.mirrors.look_again()
    await eventually(lambda: "b" in str([each["spec"]["containers"] for each in api.all(scheme.POD)]))
    (directory.path / "web.yaml").unlink()
    directory.static.read()
    shown.mirrors.look_again()

    await eventually(lambda: not api.all(scheme.POD))
    await shown.statuses.close()


async def test_a_static_pods_status_goes_to_its_mirror_whichever_comes_first(
    directory: Directory, client: Any, api: Any, background: Any, eventually: Any
) -> None:
    directory.write("web.yaml", POD % "a")
    shown = Shown(directory, client, background)
    (pod,) = directory.static._pods.values()

    shown.mirrors.set(pod, {"phase": "Running"}, {})

    await eventually(lambda: [each.get("status") for each in api.all(scheme.POD)] == [{"phase": "Running"}])
    await asyncio.sleep(0)
    await shown.statuses.close()


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("serviceAccountName: default", "serviceaccounts"),
        ("imagePullSecrets: [{name: s}]", "secrets"),
        ("volumes: [{name: v, configMap: {name: c}}]", "configmaps"),
        ("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]", "serviceaccounts"),
        ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
        ("resourceClaims: [{name: r, resourceClaimName: r}]", "resourceclaims"),
    ],
)
def test_a_pod_that_needs_objects_of_the_api_is_refused(directory: Directory, spec: str, kind: str) -> None:
    directory.write("web.yaml", (POD % "a").replace("spec: {", f"spec: {{{spec}, "))

    assert directory.told == [f"web.yaml is not run: static pods may not reference {kind}"]
    assert directory.static.objects == {}
