"""metrics.k8s.io/v1beta1: what nodes and pods use now, asked of the kubelets when somebody asks us; `kubectl top` reads it.

Nothing is stored and nothing is polled. A kubelet that does not answer in time leaves its node out, and what is too young to have
a rate is left out, as metrics-server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from minikube_raw.api import status, times
from minikube_raw.apiserver import answers
from minikube_raw.apiserver.answers import Answer
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.options import list_options
from minikube_raw.apiserver.registry import Now, Registry
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.client.transport import Request

GROUP = "metrics.k8s.io"
API_VERSION = f"{GROUP}/v1beta1"
# A rate is the average since the reading before; readings that are less than two seconds apart share one.
WINDOW = "2s"
KUBELET_SECONDS = 5.0
# From a node's name to its /stats/summary. Raises StatusError or OSError when it cannot be had.
Summary = Callable[[str], Awaitable[Object]]


class Metrics:
    """Answers requests of the group."""

    def __init__(self, registry: Registry, summary: Summary, now: Now) -> None:
        self._registry = registry
        self._summary = summary
        self._now = now

    async def answer(self, request: Request, info: RequestInfo) -> Answer:
        """Answer a get or list of nodes or pods; always JSON, which every client of the group reads. Raises 404, 405."""
        if info.version != "v1beta1" or info.resource not in ("nodes", "pods") or info.subresource:
            raise status.no_such_resource()
        if info.verb not in ("get", "list"):
            raise status.method_not_allowed()
        if info.resource == "nodes":
            found = await self._nodes(request, info)
        else:
            found = await self._pods(request, info)
        if info.verb == "list":
            kind = "NodeMetricsList" if info.resource == "nodes" else "PodMetricsList"
            return answers.document({"kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": found})
        if not found:
            where = f"{info.namespace}/{info.name}" if info.namespace else info.name
            raise status.not_found(GROUP, info.resource, where)
        kind = "NodeMetrics" if info.resource == "nodes" else "PodMetrics"
        return answers.document({"kind": kind, "apiVersion": API_VERSION, **found[0]})

    async def _objects(self, request: Request, info: RequestInfo) -> list[Object]:
        """The nodes or pods that are meant, as the API has them."""
        resource = self._registry.core(info.resource)
        if info.verb == "get":
            return [decode(await resource.get(info.namespace, info.name))]
        page = await resource.page(info.namespace, list_options(request.query, watch=False))
        return [resource.read(entry) for entry in page.entries]

    async def _nodes(self, request: Request, info: RequestInfo) -> list[Object]:
        nodes = {node["metadata"]["name"]: node for node in await self._objects(request, info)}
        summaries = await self._summaries(list(nodes))
        return [
            {**_head(nodes[name], self._now(), found["node"]["cpu"]["time"]), "usage": _usage(found["node"])}
            for name, found in summaries.items()
            if _rated(found["node"])
        ]

    async def _pods(self, request: Request, info: RequestInfo) -> list[Object]:
        pods = [pod for pod in await self._objects(request, info) if pod["spec"].get("nodeName")]
        summaries = await self._summaries(list(dict.fromkeys(pod["spec"]["nodeName"] for pod in pods)))
        used = {told["podRef"]["uid"]: told for found in summaries.values() for told in found["pods"]}
        return [
            self._pod(pod, used[pod["metadata"]["uid"]])
            for pod in pods
            if (containers := used.get(pod["metadata"]["uid"], {}).get("containers")) and all(map(_rated, containers))
        ]

    def _pod(self, pod: Object, told: Object) -> Object:
        containers = [{"name": each["name"], "usage": _usage(each)} for each in told["containers"]]
        return {**_head(pod, self._now(), told["cpu"]["time"]), "containers": containers}

    async def _summaries(self, nodes: list[str]) -> dict[str, Object]:
        """What each kubelet tells, asked at once; those that do not answer are left out."""

        async def ask(name: str) -> Object | None:
            try:
                async with asyncio.timeout(KUBELET_SECONDS):
                    return await self._summary(name)
            except (status.StatusError, OSError):  # TimeoutError too
                return None

        told = await asyncio.gather(*(ask(name) for name in nodes))
        return {name: found for name, found in zip(nodes, told, strict=True) if found is not None}


def _head(obj: Object, now: datetime, at: str) -> Object:
    held: dict[str, Any] = obj["metadata"]
    metadata = {name: held[name] for name in ("name", "namespace", "labels") if name in held}
    return {"metadata": {**metadata, "creationTimestamp": times.time(now)}, "timestamp": at, "window": WINDOW}


def _rated(told: Object) -> bool:
    return "usageNanoCores" in told["cpu"]


def _usage(told: Object) -> Object:
    cores, memory = told["cpu"]["usageNanoCores"], told["memory"]["workingSetBytes"]
    return {"cpu": f"{cores}n", "memory": f"{memory // 1024}Ki"}
