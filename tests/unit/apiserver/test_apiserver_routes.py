"""Paths and methods as kube-apiserver reads them."""

from __future__ import annotations

import pytest

from minikube_raw.apiserver.routes import parse

CASES = [
    ("GET", "/api/v1/pods", "", ("list", "", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=true", ("watch", "", "", "pods", "", "")),
    ("GET", "/api/v1/pods", "watch=false", ("list", "", "", "pods", "", "")),
    ("GET", "/api/v1/namespaces", "", ("list", "", "", "namespaces", "", "")),
    ("GET", "/api/v1/namespaces/n", "", ("get", "", "n", "namespaces", "n", "")),
    ("GET", "/api/v1/namespaces/n/", "", ("get", "", "n", "namespaces", "n", "")),
    ("PUT", "/api/v1/namespaces/n/finalize", "", ("update", "", "n", "namespaces", "n", "finalize")),
    ("PATCH", "/api/v1/namespaces/n/status", "", ("patch", "", "n", "namespaces", "n", "status")),
    ("GET", "/api/v1/namespaces/n/pods", "", ("list", "", "n", "pods", "", "")),
    ("POST", "/api/v1/namespaces/n/pods", "", ("create", "", "n", "pods", "", "")),
    ("DELETE", "/api/v1/namespaces/n/pods", "", ("deletecollection", "", "n", "pods", "", "")),
    ("DELETE", "/api/v1/namespaces/n/pods/p", "", ("delete", "", "n", "pods", "p", "")),
    ("GET", "/api/v1/namespaces/n/pods/p/log", "follow=true", ("get", "", "n", "pods", "p", "log")),
    ("POST", "/api/v1/namespaces/n/pods/p/exec", "", ("create", "", "n", "pods", "p", "exec")),
    ("GET", "/apis/apps/v1/namespaces/n/deployments/d/scale", "", ("get", "apps", "n", "deployments", "d", "scale")),
    ("GET", "/api/v1/watch/namespaces/n/pods/p", "", ("watch", "", "n", "pods", "p", "")),
]


@pytest.mark.parametrize(("method", "path", "query", "wanted"), CASES, ids=[f"{c[0]} {c[1]}?{c[2]}" for c in CASES])
def test_a_path_names_a_resource(method: str, path: str, query: str, wanted: tuple[str, ...]) -> None:
    parameters = {name: (value,) for name, _, value in (query.partition("="),) if name}

    info = parse(method, path, parameters)

    assert info.is_resource
    assert (info.verb, info.group, info.namespace, info.resource, info.name, info.subresource) == wanted


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v2"]
)
def test_other_paths_name_none(path: str) -> None:
    assert not parse("GET", path, {}).is_resource
