"""Volumes that outlive a look: claims, tokens, what is missing and comes, what cannot be."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.clusters import Cluster

from .waiting import until

pytestmark = pytest.mark.root
Apply = Callable[..., str]
READY = ("--for=condition=Ready", "--timeout=50s")


def pod(name: str, volumes: list[dict[str, Any]], *mounts: dict[str, Any], command: str = "exec sleep 3600") -> str:
    """A pod of one container as JSON, which is YAML."""
    places = list(mounts) or [{"name": each["name"], "mountPath": f"/v/{each['name']}"} for each in volumes]
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", command], "volumeMounts": places}
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def events(cluster: Cluster, namespace: str, name: str) -> list[tuple[str, str]]:
    """(reason, message) of a pod's warnings."""
    selector = f"involvedObject.name={name},type=Warning"
    found = cluster.get("-n", namespace, "events", "--field-selector", selector)["items"]
    return [(each["reason"], each["message"]) for each in found]


def states(cluster: Cluster, namespace: str, name: str) -> list[Any]:
    """The state of each container of a pod."""
    status = cluster.get("-n", namespace, "pod", name)["status"]
    return [each["state"] for each in status.get("containerStatuses", ())]


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


def test_a_claims_data_outlives_the_pod_and_an_ephemeral_volumes_goes_with_it(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    claimed = {"name": "kept", "persistentVolumeClaim": {"claimName": "data"}}
    scratch = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM["spec"]}}}
    apply(json.dumps(CLAIM))
    apply(pod("first", [claimed, scratch], command="echo hello > /v/kept/file; touch /v/scratch/x; exec sleep 3600"))
    cluster.kubectl("-n", namespace, "wait", "pod/first", *READY)
    cluster.kubectl("-n", namespace, "delete", "pod", "first")

    apply(pod("second", [claimed]))
    cluster.kubectl("-n", namespace, "wait", "pod/second", *READY)

    assert cluster.kubectl("-n", namespace, "exec", "second", "--", "cat", "/v/kept/file").stdout == "hello\n"
    left = until(
        lambda: [each["metadata"]["name"] for each in cluster.get("-n", namespace, "pvc")["items"]],
        lambda names: names == ["data"],
        seconds=60,
    )
    assert left == ["data"]


def test_a_token_is_the_pods_and_for_its_audience(cluster: Cluster, namespace: str, apply: Apply) -> None:
    source = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}
    apply(pod("p", [{"name": "t", "projected": {"sources": [source]}}]))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)

    token = cluster.kubectl("-n", namespace, "exec", "p", "--", "cat", "/v/t/token").stdout

    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == ["vault"]
    assert claims["kubernetes.io"]["pod"]["name"] == "p"
    assert claims["exp"] - claims["iat"] == 600


def test_what_is_missing_is_told_and_starts_the_pod_when_it_comes(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(pod("waits", [{"name": "v", "secret": {"secretName": "later"}}]))
    message = 'MountVolume.SetUp failed for volume "v" : secret "later" not found'
    until(lambda: events(cluster, namespace, "waits"), lambda found: ("FailedMount", message) in found, seconds=60)
    creating = [{"waiting": {"reason": "ContainerCreating"}}]
    until(lambda: states(cluster, namespace, "waits"), lambda found: found == creating, seconds=60)

    cluster.kubectl("-n", namespace, "create", "secret", "generic", "later", "--from-literal=a=1")

    cluster.kubectl("-n", namespace, "wait", "pod/waits", *READY)


def test_objects_are_followed_again_by_a_kubelet_that_starts_again(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    cluster.kubectl("-n", namespace, "create", "configmap", "cm", "--from-literal=key=old")
    apply(pod("p", [{"name": "v", "configMap": {"name": "cm"}}]))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)
    node = cluster.get("-n", namespace, "pod", "p")["spec"]["nodeName"]

    os.kill(cluster.pid("kubelet", node), signal.SIGKILL)
    cluster.kubectl("-n", namespace, "patch", "configmap", "cm", "-p", json.dumps({"data": {"key": "new"}}))

    read = ("-n", namespace, "exec", "p", "--", "cat", "/v/v/key")
    until(lambda: cluster.kubectl(*read, check=False).stdout, lambda text: text == "new", seconds=60)


CANNOT_BE = {
    "file": ({"hostPath": {"path": "/etc", "type": "File"}}, "hostPath type check failed: /etc is not a file"),
    "socket": (
        {"hostPath": {"path": "/nosuch", "type": "Socket"}},
        "hostPath type check failed: /nosuch is not a socket file",
    ),
    "nfs": ({"nfs": {"server": "s", "path": "/p"}}, "this kind of volume is not supported on this node"),
    "key": (
        {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "k", "path": "p"}]}}]}},
        "configmap references non-existent config key: k",
    ),
    "huge": (
        {"emptyDir": {"medium": "HugePages"}},
        "medium HugePages: hugePages storage requested, but there is no resource request for huge pages",
    ),
}


def test_volumes_that_cannot_be_say_why(cluster: Cluster, namespace: str, apply: Apply) -> None:
    for name, (volume, _) in CANNOT_BE.items():
        apply(pod(name, [{"name": "v", **volume}]))
    for name, (_, why) in CANNOT_BE.items():
        wanted = ("FailedMount", f'MountVolume.SetUp failed for volume "v" : {why}')
        until(lambda name=name: events(cluster, namespace, name), lambda found, w=wanted: w in found, seconds=60)


def test_read_only_with_all_below_it_is_shown_in_the_status(cluster: Cluster, namespace: str, apply: Apply) -> None:
    mounts = [
        {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "v", "mountPath": "/w", "readOnly": True},
    ]
    apply(pod("p", [{"name": "v", "emptyDir": {}}], *mounts, command="touch /v/x || touch /w/x || exec sleep 3600"))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)

    (status,) = cluster.get("-n", namespace, "pod", "p")["status"]["containerStatuses"]
    assert [each for each in status["volumeMounts"] if each["name"] == "v"] == [
        {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "v", "mountPath": "/w", "readOnly": True, "recursiveReadOnly": "Disabled"},
    ]
