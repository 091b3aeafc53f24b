"""Where the agent's own API is served: a socket for root on the node, and the port of the node for the API server."""

from __future__ import annotations

from aiohttp import web

from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.server import Server, tls_context
from minikube_raw.linux.socket_paths import short_name


class Listeners:
    """Started once the runtime is there; closed with the agent."""

    def __init__(self, options: KubeletOptions, server: Server) -> None:
        self._options, self._server = options, server
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen; the port only where the node has a serving certificate."""
        options = self._options
        local = await self._runner(check_client=False)
        options.socket.unlink(missing_ok=True)
        with short_name(str(options.socket)) as name:
            await web.UnixSite(local, name).start()
        options.socket.chmod(0o600)
        if options.serving_certificate:
            remote = await self._runner(check_client=True)
            tls = tls_context(options.ca, options.serving_certificate, options.serving_key)
            await web.TCPSite(remote, options.node_ip, options.port, ssl_context=tls).start()

    async def close(self) -> None:
        """End every connection."""
        for runner in self._runners:
            await runner.cleanup()

    async def _runner(self, *, check_client: bool) -> web.AppRunner:
        runner = web.AppRunner(self._server.application(check_client=check_client), access_log=None)
        await runner.setup()
        self._runners.append(runner)
        return runner
