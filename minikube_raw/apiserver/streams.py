"""interim"""

from __future__ import annotations

from aiohttp import web

from minikube_raw.api import status


class Proxy:
    def __init__(self, registry, kubelet_tls): ...
    async def serve(self, http: web.BaseRequest, call) -> web.StreamResponse:
        raise status.method_not_allowed()

    async def close(self): ...
