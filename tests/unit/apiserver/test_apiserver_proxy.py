"""nodes/proxy and pods/proxy: what is passed on, to whom, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from served_api import CORE, pod
from served_https import Served, kubelet_of

from minikube_raw.api.status import StatusError
from minikube_raw.apiserver import httpproxy


async def tell(request: web.Request) -> web.Response:
    if request.path == "/teapot":
        return web.Response(status=418, text="short and stout", headers={"X-Kind": "teapot", "Connection": "close"})
    told = {
        "method": request.method,
        "path": request.raw_path,
        "body": await request.text(),
        "headers": sorted(name.lower() for name in request.headers),
    }
    return web.json_response(told)


@pytest.fixture
async def served(served: Served) -> AsyncIterator[Served]:
    """With a node, whose kubelet tells what it was asked."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", tell)
    async with kubelet_of(served, app):
        yield served


async def test_a_request_to_a_node_reaches_its_kubelet_as_it_was_written(served: Served) -> None:
    headers = {"X-Mine": "1", "Authorization": "Bearer secret", "Impersonate-User": ""}

    _, told = await served.ask("/api/v1/nodes/n1/proxy/a%2Fb/c?d=e%20f&d=g", "POST", data="body", headers=headers)

    assert (told["method"], told["path"], told["body"]) == ("POST", "/a%2Fb/c?d=e%20f&d=g", "body")
    assert "x-mine" in told["headers"]
    assert not {"authorization", "impersonate-user"} & set(told["headers"])


async def test_the_answer_is_the_kubelets_own(served: Served) -> None:
    answer, text = await served.ask("/api/v1/nodes/n1/proxy/teapot")

    assert (answer.status, text, answer.headers["X-Kind"]) == (418, "short and stout", "teapot")


async def test_a_path_without_its_last_slash_is_sent_there(served: Served) -> None:
    answer, _ = await served.ask("/api/v1/nodes/n1/proxy")

    assert (answer.status, answer.headers["Location"]) == (301, "/api/v1/nodes/n1/proxy/")


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/api/v1/nodes/nope/proxy/", 404, 'nodes "nope" not found'),
        ("/api/v1/nodes/ftp:n1:80/proxy/", 400, 'invalid node request "ftp:n1:80"'),
        ("/api/v1/namespaces/default/pods/nope/proxy/", 404, 'pods "nope" not found'),
        ("/api/v1/namespaces/default/pods/p/proxy/", 400, "address not allowed"),
        (
            "/api/v1/namespaces/default/services/kubernetes/proxy/",
            404,
            "the server could not find the requested resource",
        ),
    ],
)
async def test_what_leads_nowhere_is_said_in_kubernetes_words(
    served: Served, path: str, code: int, message: str
) -> None:
    await served.api.create(CORE + "pods", pod("p"))

    answer, told = await served.ask(path)

    assert (answer.status, told["message"]) == (code, message)


async def test_a_node_that_does_not_answer_is_a_service_unavailable(served: Served) -> None:
    answer, told = await served.ask("/api/v1/nodes/n1:1/proxy/")

    assert answer.status == 503
    assert told["message"].startswith("error trying to reach service: ")


PORTS = [{"containerPort": 8080, "name": "web"}, {"containerPort": 9090}]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("p", "http://10.0.0.9:8080"),
        ("p:9090", "http://10.0.0.9:9090"),
        ("p:web", "http://10.0.0.9:8080"),
        ("https:p:443", "https://10.0.0.9:443"),
        ("https:p:", "https://10.0.0.9:8080"),
    ],
)
def test_a_pods_name_says_port_and_scheme(name: str, url: str) -> None:
    running = pod("p", containers=[{"name": "c", "ports": PORTS}]) | {"status": {"podIP": "10.0.0.9"}}

    assert httpproxy.pod_url(running, httpproxy.split_name(name, "pod")) == url


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "localhost", ""])
def test_a_pods_address_cannot_lead_to_the_server_itself(ip: str) -> None:
    with pytest.raises(StatusError, match="address not allowed"):
        httpproxy.pod_url(pod("p") | {"status": {"podIP": ip}}, httpproxy.split_name("p", "pod"))
