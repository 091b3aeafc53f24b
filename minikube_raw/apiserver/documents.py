"""Paths that are not resources: health, version, discovery, OpenAPI, the issuer of tokens, and the index of paths."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

from minikube_raw.api import status
from minikube_raw.apiserver import answers, negotiation
from minikube_raw.apiserver.answers import Answer, PlainNotFound
from minikube_raw.apiserver.discovery import AGGREGATED, Discovery, wants_aggregated
from minikube_raw.apiserver.openapi import OpenAPI
from minikube_raw.apiserver.routes import RequestInfo
from minikube_raw.client.transport import Request

# What a client compares itself with: the Kubernetes whose API this is. The build says that it is not that Kubernetes.
MAJOR, MINOR = "1", "36"
GIT_VERSION = "v1.36.2+minikube-raw"
HealthCheck = Callable[[], str]


class Documents:
    """Answers what is not a resource.

    `checks` say what is wrong with a part of the server, empty for nothing; `published` are answers that never change, by path.
    """

    def __init__(
        self,
        discovery: Discovery,
        openapi: OpenAPI,
        checks: Mapping[str, HealthCheck],
        published: Mapping[str, Answer] = {},
    ) -> None:
        self._discovery = discovery
        self._openapi = openapi
        self._checks = checks
        self._published = published
        self.groups = frozenset(discovery.groups)

    def answer(self, request: Request, info: RequestInfo) -> Answer:
        """Answer a GET. Raises 405, 406, PlainNotFound."""
        path = info.path
        handler = self._handler(path)
        if handler is None:
            raise PlainNotFound
        if info.verb != "get":
            raise status.method_not_allowed()
        return handler(request)

    def _handler(self, path: str) -> Callable[[Request], Answer] | None:
        first = path.strip("/").split("/")[0]
        if first in ("healthz", "livez", "readyz"):
            return self._health
        if first == "api" or (first == "apis" and self._knows(path)):
            return self._discover
        if path.startswith(("/openapi/v2", "/openapi/v3")) and self._openapi.serves(path):
            return self._openapi.answer
        if path in self._published:
            return lambda request: self._published[path]
        return {"/": self._index, "/version": self._version, "/version/": self._version}.get(path)

    def _knows(self, path: str) -> bool:
        parts = path.strip("/").split("/")
        return len(parts) == 1 or parts[1] in self.groups

    def _discover(self, request: Request) -> Answer:
        path = request.path.rstrip("/")
        if path in ("/api", "/apis") and wants_aggregated(request.accept):
            body, etag = self._discovery.aggregated(path)
            headers = {"Cache-Control": "public", "ETag": etag, "Vary": "Accept"}
            if request.if_none_match == etag:
                return Answer(304, b"", AGGREGATED, headers)
            return Answer(200, body, AGGREGATED, headers)
        wanted = negotiation.negotiate(request.accept)
        document = self._discovery.plain(request.path)
        if document is None:
            raise status.no_such_resource()
        if wanted.shape:
            message = f"only the following media types are accepted: {', '.join((negotiation.JSON, negotiation.YAML))}"
            raise status.StatusError(406, "NotAcceptable", message, status.Details())
        return answers.document(document, wanted)

    def _health(self, request: Request) -> Answer:
        parts = request.path.strip("/").split("/")
        checks = {name: check() for name, check in self._checks.items()}
        if len(parts) > 1:
            if parts[1] not in checks:
                raise PlainNotFound
            checks = {parts[1]: checks[parts[1]]}
        failed = any(checks.values())
        if not failed and "verbose" not in request.query:
            return answers.text("ok")
        lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in checks.items()]
        verdict = f"{parts[0]} check {'failed' if failed else 'passed'}"
        return answers.text("\n".join([*lines, verdict]) + "\n", 500 if failed else 200)

    def _version(self, request: Request) -> Answer:
        system, machine = platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
        document = {
            "major": MAJOR,
            "minor": MINOR,
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation().lower(),
            "platform": f"{system}/{machine or platform.machine()}",
        }
        return answers.document(document)

    def _index(self, request: Request) -> Answer:
        groups = self._discovery.groups
        paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        for group in groups:
            paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in self._discovery.versions(group))]
        paths += [path for path in self._published if not path.endswith("/")]
        return answers.document({"paths": sorted(paths)})
