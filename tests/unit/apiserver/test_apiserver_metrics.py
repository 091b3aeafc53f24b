"""metrics.k8s.io over kubelets that are functions."""

from __future__ import annotations

from typing import Any

import pytest
from served_api import CORE, Api, pod

from minikube_raw.api import status
from minikube_raw.apiserver.server import APIServer

METRICS = "/apis/metrics.k8s.io/v1beta1"
AT = "2026-01-01T00:00:00Z"


def figures(cores: int, memory: int) -> dict[str, Any]:
    return {"cpu": {"time": AT, "usageNanoCores": cores}, "memory": {"time": AT, "workingSetBytes": memory}}


class Kubelets:
    """Two nodes: one tells what it was given, the other does not answer."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.asked: list[str] = []

    async def summary(self, node: str) -> dict[str, Any]:
        self.asked.append(node)
        if node != "n1":
            raise status.StatusError(503, "ServiceUnavailable", "dial tcp: connection refused")
        return {"node": {"nodeName": node, **figures(1_500_000_000, 3 << 30)}, "pods": self.pods}

    def runs(self, made: dict[str, Any], *names: str) -> None:
        containers = [{"name": name, **figures(2_000_000, 5 << 20)} for name in names]
        meta = made["metadata"]
        reference = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        self.pods.append({"podRef": reference, "containers": containers, **figures(2_000_000, 5 << 20)})


@pytest.fixture
def kubelets(server: APIServer) -> Kubelets:
    asked = Kubelets()
    assert server._dispatcher._metrics is not None
    server._dispatcher._metrics._summary = asked.summary
    return asked


async def make(api: Api, name: str, node: str, **labels: str) -> dict[str, Any]:
    wish = pod(name, nodeName=node)
    wish["metadata"]["labels"] = labels
    made: dict[str, Any] = await api.create(CORE + "pods", wish)
    return made


async def test_nodes_that_answer_are_listed_with_what_they_use(api: Api, kubelets: Kubelets) -> None:
    for name in ("n1", "n2"):
        await api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    listed = await api.get(f"{METRICS}/nodes")
    assert listed["kind"] == "NodeMetricsList"
    (node,) = listed["items"]
    assert (node["metadata"]["name"], node["timestamp"]) == ("n1", AT)
    assert node["usage"] == {"cpu": "1500000000n", "memory": "3145728Ki"}
    await api.get(f"{METRICS}/nodes/n1")
    assert "nodes.metrics.k8s.io" in (await api.get(f"{METRICS}/nodes/n2", 404))["message"]


async def test_a_pod_with_a_container_too_young_for_a_rate_is_left_out(api: Api, kubelets: Kubelets) -> None:
    kubelets.runs(await make(api, "young", "n1"), "old", "new")
    del kubelets.pods[0]["containers"][1]["cpu"]["usageNanoCores"]

    assert (await api.get(f"{METRICS}/pods"))["items"] == []


async def test_pods_are_selected_by_label_and_namespace_and_asked_only_of_their_nodes(
    api: Api, kubelets: Kubelets
) -> None:
    web, other = await make(api, "web", "n1", app="web"), await make(api, "other", "n1", app="db")
    kubelets.runs(web, "main", "side")
    kubelets.runs(other, "main")
    listed = await api.get(f"{METRICS}/namespaces/default/pods?labelSelector=app%3Dweb")
    (found,) = listed["items"]
    assert found["metadata"]["name"] == "web"
    assert found["metadata"]["labels"] == {"app": "web"}
    assert found["containers"] == [
        {"name": name, "usage": {"cpu": "2000000n", "memory": "5120Ki"}} for name in ("main", "side")
    ]
    assert kubelets.asked == ["n1"]
    one = await api.get(f"{METRICS}/namespaces/default/pods/other")
    assert (one["kind"], one["metadata"]["name"]) == ("PodMetrics", "other")


async def test_a_pod_of_which_nothing_runs_has_no_metrics(api: Api, kubelets: Kubelets) -> None:
    await make(api, "pending", "n1")
    assert (await api.get(f"{METRICS}/pods"))["items"] == []
    refused = await api.get(f"{METRICS}/namespaces/default/pods/pending", 404)
    assert refused["message"] == 'pods.metrics.k8s.io "default/pending" not found'


async def test_the_group_is_discovered_and_only_read(api: Api, kubelets: Kubelets) -> None:
    groups = [group["name"] for group in (await api.get("/apis"))["groups"]]
    assert "metrics.k8s.io" in groups
    resources = (await api.get(METRICS))["resources"]
    assert {(each["name"], each["kind"], tuple(each["verbs"])) for each in resources} == {
        ("nodes", "NodeMetrics", ("get", "list")),
        ("pods", "PodMetrics", ("get", "list")),
    }
    await api.delete(f"{METRICS}/nodes/n1", 405)
    await api.as_user("somebody")._expect(403, "GET", f"{METRICS}/nodes", None)
