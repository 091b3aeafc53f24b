"""The figures' part of the kubelet's API: /stats/summary, /metrics, /metrics/resource, /metrics/cadvisor and /metrics/probes."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from minikube_raw.kubelet import exposition
from minikube_raw.kubelet.stats import StatsProvider


def add_routes(app: web.Application, stats: StatsProvider) -> None:
    """Serve a node's figures."""

    async def summary(request: web.Request) -> web.Response:
        brief = request.query.get("only_cpu_and_memory") in ("true", "1")
        body: dict[str, Any] = await stats.summary(only_cpu_and_memory=brief)
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def resource(request: web.Request) -> web.Response:
        return _page(exposition.resource(await stats.usage(pressures=False)))

    async def cadvisor(request: web.Request) -> web.Response:
        return _page(await stats.cadvisor())

    async def metrics(request: web.Request) -> web.Response:
        return _page(await stats.metrics())

    async def probes(request: web.Request) -> web.Response:
        return _page(stats.probes())

    for path, handler in (
        ("/stats/summary", summary),
        ("/metrics/resource", resource),
        ("/metrics/cadvisor", cadvisor),
        ("/metrics/probes", probes),
        ("/metrics", metrics),
    ):
        app.router.add_get(path, handler)


def _page(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})
