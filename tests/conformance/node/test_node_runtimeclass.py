"""[sig-node] RuntimeClass, as the conformance suite asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.cluster.manifests import pod
from tests.cluster.waiting import until
from tests.clusters import Cluster

Apply = Callable[..., str]


def make(cluster: Cluster, name: str, handler: str = "runc", **more: Any) -> None:
    manifest = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({**manifest, **more}))


def create(cluster: Cluster, namespace: str, manifest: str) -> str:
    """Why a pod was refused, "" if it was not."""
    return cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=manifest, check=False).stderr


def test_should_reject_a_pod_requesting_a_non_existent_or_deleted_runtimeclass(
    cluster: Cluster, namespace: str
) -> None:
    make(cluster, "brief")
    cluster.kubectl("delete", "runtimeclass", "brief")
    for name in ("none", "brief"):
        refused = create(cluster, namespace, pod("p", spec=f"runtimeClassName: {name}"))
        assert f'pods "p" is forbidden: pod rejected: RuntimeClass "{name}" not found' in refused


def test_should_schedule_a_pod_requesting_a_runtimeclass_and_initialize_its_overhead(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    make(cluster, "heavy", overhead={"podFixed": {"cpu": "10m", "memory": "1Mi"}})
    make(cluster, "light")
    apply(pod("heavy", spec="runtimeClassName: heavy") + "---\n" + pod("light", spec="runtimeClassName: light"))
    cluster.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=50s")
    assert cluster.get("-n", namespace, "pod", "heavy")["spec"]["overhead"] == {"cpu": "10m", "memory": "1Mi"}
    assert "overhead" not in cluster.get("-n", namespace, "pod", "light")["spec"]


def test_a_pod_of_a_handler_that_the_node_has_not_waits_and_an_event_says_so(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    make(cluster, "foreign", handler="nosuch")
    apply(pod("p", spec="runtimeClassName: foreign"))
    event = until(
        lambda: cluster.get("-n", namespace, "events")["items"],
        lambda items: any(each["reason"] == "FailedCreatePodSandBox" for each in items),
        seconds=60,
    )
    (message,) = {each["message"] for each in event if each["reason"] == "FailedCreatePodSandBox"}
    expected = 'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "nosuch" is configured'
    assert message == f"Failed to create pod sandbox: {expected}"


def test_should_support_runtimeclasses_api_operations(cluster: Cluster) -> None:
    make(cluster, "op", handler="runc")
    cluster.kubectl("label", "runtimeclass", "op", "test=patched")
    listed = cluster.get("runtimeclasses", "-l", "test=patched")["items"]
    assert [each["metadata"]["name"] for each in listed] == ["op"]
    assert cluster.kubectl("get", "runtimeclass", "op").stdout.split()[:3] == ["NAME", "HANDLER", "AGE"]
    cluster.kubectl("delete", "runtimeclasses", "-l", "test=patched")
    assert cluster.get("runtimeclasses", "-l", "test=patched")["items"] == []
