"""GET nodes/NAME/proxy/PATH: a page of a node's kubelet (/stats/summary, /metrics, /pods), passed on as it comes."""

from __future__ import annotations

from aiohttp import web

from minikube_raw.api import status
from minikube_raw.apiserver.kubelets import Kubelets, Refused
from minikube_raw.apiserver.options import Query


async def serve(kubelets: Kubelets, http: web.BaseRequest, node: str, path: str, query: Query) -> web.Response:
    """Answer with what the kubelet says, also where it refuses. Raises 405, 503."""
    if http.method not in ("GET", "HEAD"):
        raise status.method_not_allowed()
    parameters = [(name, value) for name, values in query.items() for value in values]
    try:
        async with await kubelets.page(node, path, parameters) as source:
            kind = source.headers.get("Content-Type", "text/plain")
            return web.Response(body=await source.read(), headers={"Content-Type": kind})
    except Refused as refused:
        return web.Response(status=refused.code, text=refused.text)
