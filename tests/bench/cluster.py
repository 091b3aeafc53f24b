"""A cluster as its user feels it: up, pod to Ready, a Deployment of 30, memory and idle CPU."""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from minikube_raw.client.resources import PODS
from tests.bench import report
from tests.bench.labcluster import LabCluster, pod
from tests.bench.processes import cpu_seconds, pss
from tests.bench.watching import gone, ready

CREATES = 30
APPLIES = 10
IDLE_SECONDS = 20


def measure() -> list[report.Section]:
    """All of it; the first cluster has one node, the second three."""
    with LabCluster(nodes=1) as cluster:
        one = cluster.seconds
        cluster.sleeping_pod("warm", cluster.nodes[0])
        creates = asyncio.run(create_to_ready(cluster))
        applies = [apply_to_ready(cluster, n) for n in range(APPLIES)]
        deployment = asyncio.run(deployment_of(cluster, 30))
        time.sleep(2)
        idle = idle_figures(cluster)
    with LabCluster(nodes=3) as cluster:
        three = cluster.seconds
    times = [
        report.Figure("`up --nodes 1`, nothing → Ready", f"{one:.2f} s", "≤ 1.5 s", "Kubernetes' bare processes 2.8 s"),
        report.Figure("`up --nodes 3`, nothing → Ready", f"{three:.2f} s", "≤ 5 s"),
        report.Figure(
            "pod create → Ready, API level",
            report.milliseconds(creates),
            "≤ 50 ms",
            f"{CREATES} one at a time; Kubernetes 474 ms",
        ),
        report.Figure(
            "`kubectl apply` → Ready",
            report.milliseconds(applies),
            "≤ 350 ms",
            "two kubectl processes included; Kubernetes 0.9 s",
        ),
        report.Figure(
            "Deployment of 30 on one node, apply → all Ready", f"{deployment:.2f} s", "≤ 1.0 s", "Kubernetes 4.3 s"
        ),
    ]
    figures = "Kubernetes' figures are 1.36 with containerd on a machine of this size, medians, from an earlier run elsewhere."
    return [report.Section("A cluster", figures, times), idle]


async def create_to_ready(cluster: LabCluster) -> list[float]:
    """Seconds from POST to the Ready condition seen by a watch, one pod at a time."""
    client = cluster.client()
    took = []
    try:
        for n in range(CREATES):
            began = time.perf_counter()
            await client.create(PODS, pod(f"one-{n}"), "default")
            await ready(client, {f"one-{n}"})
            took.append(time.perf_counter() - began)
            await client.delete(PODS, f"one-{n}", "default", grace_period=0)
            await gone(client, f"one-{n}")
    finally:
        await client.close()
    return took


async def deployment_of(cluster: LabCluster, replicas: int) -> float:
    """Seconds from `kubectl apply` of a Deployment until that many pods are Ready."""
    template = {"metadata": {"labels": {"app": "many"}}, "spec": pod("x")["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": spec}
    client = cluster.client()
    try:
        began = time.perf_counter()
        await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", stdin=json.dumps(manifest))
        await ready(client, None, count=replicas, selector="app=many")
        took = time.perf_counter() - began
        await asyncio.to_thread(cluster.kubectl, "delete", "deploy/many", "--cascade=foreground", "--wait")
    finally:
        await client.close()
    return took


def apply_to_ready(cluster: LabCluster, n: int) -> float:
    """Seconds for `kubectl apply` and `kubectl wait`, as a user types them."""
    manifest = json.dumps(pod(f"apply-{n}"))
    began = time.perf_counter()
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    cluster.kubectl("wait", f"pod/apply-{n}", "--for=condition=Ready", "--timeout=30s")
    took = time.perf_counter() - began
    cluster.kubectl("delete", f"pod/apply-{n}", "--now")
    return took


def idle_figures(cluster: LabCluster) -> report.Section:
    """Memory and CPU of every process while nothing happens."""
    found = cluster.processes()
    before = {p["pid"]: cpu_seconds(p["pid"]) for p in found}
    time.sleep(IDLE_SECONDS)
    budgets = {"master": "≤ 120 MB", "keeper": "≤ 1.5 MB PSS"}
    rows, total = [], 0.0
    for role in ("master", "kubelet", "launcher", "machine", "keeper"):
        members = [p for p in found if p["role"] == role]
        if not members:
            continue
        cpu = sum(cpu_seconds(p["pid"]) - before[p["pid"]] for p in members) / IDLE_SECONDS * 100
        total += cpu
        rss = statistics.mean(p["rss_bytes"] for p in members) / 1e6
        shared = statistics.mean(pss(p["pid"]) for p in members) / 1e6
        value = f"RSS {rss:.1f} MB, PSS {shared:.1f} MB, CPU {cpu:.2f} %"
        rows.append(report.Figure(f"{role} ({len(members)})", value, budgets.get(role, "")))
    rows.append(report.Figure("CPU of all together", f"{total:.2f} % of a core", "≤ 1 %", "Kubernetes 3.7 %"))
    return report.Section(
        "Idle", f"One node, two pods, nothing happening for {IDLE_SECONDS} s. Kubernetes: 839 MB.", rows
    )
