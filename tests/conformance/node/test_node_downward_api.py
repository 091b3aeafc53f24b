"""[sig-node] Downward API and the amounts of [sig-storage] Downward API volume, Projected downwardAPI, as the suite asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from minikube_raw.api import quantity
from tests.clusters import Cluster

RESOURCES = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
SIDES = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "POD_IP": "status.podIP",
    "HOST_IP": "status.hostIP",
}


def name_of(resource: str) -> str:
    return resource.upper().replace(".", "_")


def pod(name: str, resources: dict[str, Any]) -> dict[str, Any]:
    """A pod that prints its environment, then the files that tell it the same: of a plain and of a projected volume."""
    amounts = [{"path": name_of(each), "resourceFieldRef": {"containerName": "c", "resource": each}} for each in SIDES]
    plain = {"name": "plain", "downwardAPI": {"items": amounts}}
    projected = {"name": "projected", "projected": {"sources": [{"downwardAPI": {"items": amounts}}]}}
    env = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in FIELDS.items()]
    env += [{"name": name_of(each), "valueFrom": {"resourceFieldRef": {"resource": each}}} for each in SIDES]
    show = 'env; for v in plain projected; do for f in /$v/*; do echo "$v/${f##*/}=$(cat $f)"; done; done'
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", show],
        "env": env,
        "resources": resources,
        "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in ("plain", "projected")],
    }
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [plain, projected]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Told:
    """What a pod was told, with its object."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        cluster.kubectl(
            "-n", namespace, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s"
        )
        lines = cluster.kubectl("-n", namespace, "logs", name).stdout.splitlines()
        self.values = dict(line.split("=", 1) for line in lines if "=" in line)
        self.pod = cluster.get("-n", namespace, "pod", name)
        self.node = cluster.get("node", self.pod["spec"]["nodeName"])


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> Iterator[dict[str, Told]]:
    """Two pods: one with requests and limits, one that leaves them open."""
    namespace = "downward-api"
    cluster.kubectl("create", "namespace", namespace)
    pods = {"asking": RESOURCES, "open": {}}
    items = [pod(name, resources) for name, resources in pods.items()]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(listed))
    yield {name: Told(cluster, namespace, name) for name in pods}
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_should_provide_pod_name_namespace_and_ip_address_as_env_vars(told: dict[str, Told]) -> None:
    values, seen = told["asking"].values, told["asking"].pod
    assert (values["POD_NAME"], values["POD_NAMESPACE"]) == ("asking", "downward-api")
    assert values["POD_IP"] == seen["status"]["podIP"]


def test_should_provide_host_ip_as_an_env_var(told: dict[str, Told]) -> None:
    addresses = {each["type"]: each["address"] for each in told["asking"].node["status"]["addresses"]}
    assert told["asking"].values["HOST_IP"] == told["asking"].pod["status"]["hostIP"] == addresses["InternalIP"]


def test_should_provide_pod_uid_as_env_vars(told: dict[str, Told]) -> None:
    assert told["asking"].values["POD_UID"] == told["asking"].pod["metadata"]["uid"]


AMOUNTS = {"LIMITS_CPU": "2", "LIMITS_MEMORY": "67108864", "REQUESTS_CPU": "1", "REQUESTS_MEMORY": "33554432"}


def test_should_provide_containers_limits_and_requests_as_env_vars(told: dict[str, Told]) -> None:
    assert {name: told["asking"].values[name] for name in AMOUNTS} == AMOUNTS  # whole CPUs, rounded up


@pytest.mark.parametrize("volume", ["plain", "projected"])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_should_provide_containers_amounts_in_a_volume(told: dict[str, Told], volume: str, amount: str) -> None:
    assert told["asking"].values[f"{volume}/{amount}"] == AMOUNTS[amount]


def test_should_provide_default_limits_from_node_allocatable(told: dict[str, Told]) -> None:
    values, allocatable = told["open"].values, told["open"].node["status"]["allocatable"]
    assert values["LIMITS_CPU"] == str(quantity.parse(allocatable["cpu"]).value())
    assert values["LIMITS_MEMORY"] == str(quantity.parse(allocatable["memory"]).value())


@pytest.mark.parametrize("volume", ["plain", "projected"])
def test_should_provide_node_allocatable_as_default_limits_in_a_volume(told: dict[str, Told], volume: str) -> None:
    values = told["open"].values
    for amount in ("LIMITS_CPU", "LIMITS_MEMORY"):
        assert values[f"{volume}/{amount}"] == values[amount]
