"""The API server: store, registry and admission put together, served over TLS and in process.

`handle` and `local_transport` pass the same bytes and the same refusals as HTTP does, through authorization and
admission as the given user, so components may run in this process or beside it.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from minikube_raw.api import status
from minikube_raw.apiserver import answers, bootstrap, tls
from minikube_raw.apiserver.admission import Admission
from minikube_raw.apiserver.answers import PlainNotFound
from minikube_raw.apiserver.auth import AUTHENTICATED, TwoIdentities, User
from minikube_raw.apiserver.discovery import Discovery, served
from minikube_raw.apiserver.dispatch import Dispatcher
from minikube_raw.apiserver.documents import Documents
from minikube_raw.apiserver.http import Front, protocol_log
from minikube_raw.apiserver.issuer import Issuer
from minikube_raw.apiserver.kubelets import Kubelets
from minikube_raw.apiserver.metrics import Metrics
from minikube_raw.apiserver.nodes import NodeAuthorizer
from minikube_raw.apiserver.openapi import OpenAPI
from minikube_raw.apiserver.references import References
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources import STRATEGIES
from minikube_raw.apiserver.streams import Proxy
from minikube_raw.client.transport import Request, Response, Transport
from minikube_raw.store.kv import Store

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 2.0
# Selectors of some clients are long; aiohttp's own limit is 8 KB for a request line.
MAX_LINE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to serve. Without certificates only in-process clients are served, without a token key no service accounts.

    `addresses` are (host, port) pairs to listen on; port 0 takes a free one, see `APIServer.ports`. `listeners` are sockets that
    somebody has bound already. `clock` gives the wall time.
    """

    addresses: Sequence[tuple[str, int]] = ()
    listeners: Sequence[socket.socket] = ()
    server_certificate: tuple[Path, Path] | None = None
    client_ca: Path | None = None
    kubelet_client: tuple[Path, Path] | None = None
    # A private key in PEM, and the public keys as a JSON Web Key Set.
    token_keys: tuple[Path, Path] | None = None
    service_cidr: str = "10.96.0.0/12"
    advertise: str = "127.0.0.1:6443"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class APIServer:
    """One API server over an opened store."""

    def __init__(self, store: Store, options: Options = Options()) -> None:
        self._options = options
        self.registry = Registry(store, STRATEGIES)
        references = References(self.registry)
        authorize = TwoIdentities(NodeAuthorizer(references.related))
        kinds = [served(strategy.kind) for strategy in STRATEGIES]
        self._ready = False
        checks = {"ping": lambda: "", "watch-cache": lambda: "" if self._ready else "not loaded yet"}
        self.issuer = Issuer(self.registry, *options.token_keys, options.clock) if options.token_keys else None
        published = self.issuer.documents(options.advertise) if self.issuer else {}
        documents = Documents(Discovery(kinds, options.advertise), OpenAPI(kinds), checks, published)
        admission = Admission(self.registry, options.service_cidr, tokens=self.issuer is not None)
        self._kubelets = Kubelets(self.registry, self._kubelet_tls())
        metrics = Metrics(self.registry, self._kubelets.summary, options.clock)
        self._dispatcher = Dispatcher(
            self.registry, admission, authorize, documents, options.clock, self.issuer, metrics
        )
        self._proxy = Proxy(self._kubelets)
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Load the cache, make what every cluster has, and listen."""
        await self.registry.watch_cache.start()
        port = int(self._options.advertise.rpartition(":")[2])
        await bootstrap.ensure(self, self._options.service_cidr, port)
        self._ready = True
        if self._options.addresses or self._options.listeners:
            await self._listen()

    async def stop(self) -> None:
        """End watches, close connections, stop listening. The store stays open."""
        self._ready = False
        await self.registry.watch_cache.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._proxy.close()
        await self._kubelets.close()

    @property
    def ports(self) -> list[int]:
        """The ports listened on, in the order of `addresses`."""
        return [address[1] for address in self._runner.addresses] if self._runner is not None else []

    async def handle(self, request: Request, user: User) -> Response:
        """Answer one request as `user`; a refusal is a response with a Status."""
        try:
            info = self._dispatcher.authorized(request, user)
            answer = await self._dispatcher.answer(request, user, info)
        except status.StatusError as error:
            answer = answers.failure(error, request.accept)
        except PlainNotFound:
            answer = answers.text("404 page not found\n", 404)
        except Exception as error:
            # As over HTTP: what we did not foresee is a 500 to one caller, not the end of a controller.
            log.exception("%s %s", request.method, request.path)
            answer = answers.failure(status.internal_error(repr(error)), request.accept)
        return answer.response()

    async def watch(self, request: Request, user: User) -> AsyncIterator[bytes]:
        """Yield the lines of a watch as `user`. Raises StatusError when it is refused."""
        info = self._dispatcher.authorized(request, user)
        watch = await self._dispatcher.watch(request, user, info)
        async for batch in watch.batches:
            for line in batch:
                yield line

    def local_transport(self, user: str | User) -> Transport:
        """Return a transport for a client in this process. A name alone means an authenticated user in no other group."""
        return LocalTransport(self, User(user, (AUTHENTICATED,)) if isinstance(user, str) else user)

    def _kubelet_tls(self) -> ssl.SSLContext | None:
        options = self._options
        if options.client_ca is None or options.kubelet_client is None:
            return None
        return tls.client_context(options.client_ca, *options.kubelet_client)

    async def _listen(self) -> None:
        options = self._options
        if options.server_certificate is None or options.client_ca is None:
            raise ValueError("to listen, the server needs its certificate and the CA of its clients")
        context = tls.server_context(*options.server_certificate, options.client_ca)
        bearer = self.issuer.bearer if self.issuer is not None else lambda token: None
        front = Front(self._dispatcher, self._proxy, bearer)
        server = web.Server(
            front.handle,
            access_log=None,
            logger=protocol_log,
            handler_cancellation=True,
            auto_decompress=False,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        for host, port in options.addresses:
            await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        for listener in options.listeners:
            await web.SockSite(self._runner, listener, ssl_context=context).start()


class LocalTransport:
    """client.transport.Transport without a wire."""

    def __init__(self, server: APIServer, user: User) -> None:
        self._server = server
        self._user = user

    async def request(self, request: Request) -> Response:
        """Answer the request."""
        return await self._server.handle(request, self._user)

    def watch(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the watch's lines."""
        return self._server.watch(request, self._user)

    async def close(self) -> None:
        """Nothing to let go of."""
