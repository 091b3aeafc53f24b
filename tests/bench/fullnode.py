"""A node as full as it gets: 100 pods at once, exec through the API meanwhile and on a calm node, 110 pods that do nothing.

An exec is what kubectl does: TLS, a WebSocket upgrade with v5.channel.k8s.io, the command, its status; each by a connection of
its own, from this process, on the cores that the cluster runs on.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

import aiohttp

from minikube_raw.client.resources import PODS
from minikube_raw.client.rest import Client
from tests.bench import report
from tests.bench.labcluster import LabCluster, pod
from tests.bench.processes import cpu_seconds
from tests.bench.watching import PATIENCE, gone, ready

BURSTS = 3
AT_ONCE = 100
FULL = 110
EXECS = 60
KUBECTL_EXECS = 10
PAUSE = 0.02  # between execs while pods start
IDLE_SECONDS = 30
WARM = "warm"
_STATUS = 3  # the channel that ends an exec


def measure() -> list[report.Section]:
    """One cluster of one node."""
    with LabCluster(nodes=1) as cluster:
        cluster.sleeping_pod(WARM, cluster.nodes[0])
        calm = asyncio.run(execs(cluster, EXECS))
        by_kubectl = [kubectl_exec(cluster) for _ in range(KUBECTL_EXECS)]
        rates, busy = asyncio.run(bursts(cluster))
        asyncio.run(fill(cluster, FULL - AT_ONCE - 1))
        time.sleep(5)
        idle, processes = idle_share(cluster)
    each = ", ".join(f"{rate:.0f}" for rate in rates)
    figures = [
        report.Figure(
            f"{AT_ONCE} pods asked for at once → all Running and Ready",
            f"{statistics.median(rates):.0f} pods/s",
            "≥ 40 pods/s",
            f"median of {each}; with service-account tokens, and with the execs of the next line",
        ),
        report.Figure(
            "exec through the API meanwhile", report.milliseconds(busy), "p95 ≤ 100 ms", f"{len(busy)} execs"
        ),
        report.Figure("exec through the API, calm", report.milliseconds(calm), "≤ 15 ms", f"{EXECS} execs"),
        report.Figure("`kubectl exec`, its process included", report.milliseconds(by_kubectl)),
        report.Figure(
            f"CPU of {FULL} idle pods' node and master",
            f"{100 * idle:.2f} % of a core",
            "≤ 2 %",
            f"{processes} processes of ours over {IDLE_SECONDS} s",
        ),
    ]
    return [report.Section("A full node", f"One node; load average {report.load()} at the end.", figures)]


async def bursts(cluster: LabCluster) -> tuple[list[float], list[float]]:
    """Pods per second of each burst, and seconds of the execs that went on meanwhile. The last burst's pods stay."""
    client, rates, busy = cluster.client(), [], []
    before = len(cluster.processes())
    try:
        for number in range(BURSTS):
            names = {f"burst-{number}-{n}" for n in range(AT_ONCE)}
            began = time.perf_counter()
            execing = asyncio.create_task(execs(cluster, 0, pause=PAUSE, into=busy))
            await asyncio.gather(*[client.create(PODS, pod(name), "default") for name in names])
            await ready(client, names)
            rates.append(AT_ONCE / (time.perf_counter() - began))
            execing.cancel()
            await asyncio.gather(execing, return_exceptions=True)
            if number < BURSTS - 1:
                await remove(client, names)
                await asyncio.to_thread(settled, cluster, before)
    finally:
        await client.close()
    return rates, busy


async def remove(client: Client, names: set[str]) -> None:
    """Delete pods without grace; returns when their objects are gone."""
    await asyncio.gather(*[client.delete(PODS, name, "default", grace_period=0) for name in names])
    await gone(client, *names)


def settled(cluster: LabCluster, processes: int) -> None:
    """Wait until no more processes of ours are left than that; TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while len(cluster.processes()) > processes + 1:  # a keeper that is made ahead of time may have been missed
        if time.monotonic() > deadline:
            raise TimeoutError("the keepers of deleted pods do not end")
        time.sleep(0.5)
    time.sleep(1)


async def fill(cluster: LabCluster, count: int) -> None:
    """Add pods until the node is full."""
    client = cluster.client()
    try:
        names = {f"more-{n}" for n in range(count)}
        await asyncio.gather(*[client.create(PODS, pod(name), "default") for name in names])
        await ready(client, names)
    finally:
        await client.close()


async def execs(
    cluster: LabCluster, count: int, *, pause: float = 0.0, into: list[float] | None = None
) -> Sequence[float]:
    """Seconds of each of `count` execs of `true` in the warm pod, one after the other; without a count until cancelled."""
    times = into if into is not None else []
    path = f"{cluster.url}/api/v1/namespaces/default/pods/{WARM}/exec?command=true&stdout=1&stderr=1"
    left = count or -1
    while left:
        began = time.perf_counter()
        connector = aiohttp.TCPConnector(ssl=cluster.tls(), force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(path, protocols=("v5.channel.k8s.io",)) as channels,
        ):
            async for message in channels:
                if message.data[:1] == bytes([_STATUS]):
                    refuse_failure(json.loads(message.data[1:]))
                    times.append(time.perf_counter() - began)
                    break
        left -= 1
        await asyncio.sleep(pause)
    return times


def refuse_failure(status: dict[str, object]) -> None:
    """RuntimeError when a command was not run."""
    if status.get("status") != "Success":
        raise RuntimeError(f"exec failed: {status}")


def kubectl_exec(cluster: LabCluster) -> float:
    """Seconds of the whole of `kubectl exec`."""
    began = time.perf_counter()
    cluster.kubectl("exec", WARM, "--", "true")
    return time.perf_counter() - began


def idle_share(cluster: LabCluster) -> tuple[float, int]:
    """The part of one core that all processes of ours use while nothing happens, and how many they are."""
    pids = [process["pid"] for process in cluster.processes()]
    before = sum(map(cpu_seconds, pids))
    began = time.monotonic()
    time.sleep(IDLE_SECONDS)
    spent, seconds = sum(map(cpu_seconds, pids)) - before, time.monotonic() - began
    return spent / seconds, len(pids)
