"""Creates and reads per second of the API over TLS, each create fsynced before its answer, from one client and from 16."""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from minikube_raw.client.rest import Client
from tests.bench import report
from tests.bench.labcluster import LabCluster, pod

SECONDS = 4.0
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "v" * 100}}


def measure() -> list[report.Section]:
    """A cluster without pods of its own; created pods name a scheduler that does not exist, so that they stay objects."""
    with LabCluster(nodes=1) as cluster:
        rates = asyncio.run(all_rates(cluster))
    figures = [
        report.Figure(
            "ConfigMap creates, 16 clients", f"{rates['configmaps', 16]:.0f}/s", "≥ 3,500/s", "Kubernetes 1,874/s"
        ),
        report.Figure(
            "ConfigMap creates, 1 client", f"{rates['configmaps', 1]:.0f}/s", "≥ 1,000/s", "Kubernetes 599/s"
        ),
        report.Figure("pod creates, 16 clients", f"{rates['pods', 16]:.0f}/s", "≥ 2,500/s", "Kubernetes 904/s"),
        report.Figure("pod creates, 1 client", f"{rates['pods', 1]:.0f}/s", "", "Kubernetes 486/s"),
        report.Figure("gets, 16 clients", f"{rates['get', 16]:.0f}/s", "≥ 8,000/s", "Kubernetes 3,906/s"),
    ]
    intro = f"TLS with client certificates, the client on the same cores, {SECONDS:.0f} s each; no quota, no RBAC objects yet."
    return [report.Section("The API", intro, figures)]


async def all_rates(cluster: LabCluster) -> dict[tuple[str, int], float]:
    """Requests per second by (what, number of clients)."""
    return {
        (what, clients): await rate(cluster, what, clients)
        for what, clients in (("configmaps", 1), ("configmaps", 16), ("pods", 1), ("pods", 16), ("get", 16))
    }


async def rate(cluster: LabCluster, what: str, clients: int) -> float:
    """Requests per second of `clients` connections for SECONDS."""
    connections = [cluster.client() for _ in range(clients)]
    counts = [0] * clients
    end = time.perf_counter() + SECONDS

    async def work(n: int, client: Client) -> None:
        while time.perf_counter() < end:
            await one(client, what, f"{what}-{clients}-{n}-{counts[n]}")
            counts[n] += 1

    began = time.perf_counter()
    try:
        await asyncio.gather(*[work(n, client) for n, client in enumerate(connections)])
    finally:
        for client in connections:
            await client.close()
    return statistics.fsum(counts) / (time.perf_counter() - began)


async def one(client: Client, what: str, name: str) -> None:
    """One request."""
    if what == "get":
        await client.request("GET", "/api/v1/namespaces/default")
        return
    if what == "configmaps":
        body = CONFIG | {"metadata": {"name": name}}
    else:
        body = pod(name)
        body["spec"]["schedulerName"] = "nobody"
    await client.request("POST", f"/api/v1/namespaces/default/{what}", body=json.dumps(body).encode())
