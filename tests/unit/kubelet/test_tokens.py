"""Tokens are asked for once, renewed after 80 % of their life or a day, and kept when a renewal fails."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pod_builders import pod

from minikube_raw.api import status
from minikube_raw.client.clock import ManualClock, timestamp
from minikube_raw.client.transport import Response
from minikube_raw.kubelet.tokens import TokenError, Tokens, renewal


class Server:
    """Issues numbered tokens, or refuses."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    async def request(self, method: str, path: str, *, body: bytes) -> Response:
        asked = msgspec.json.decode(body)
        self.asked.append((f"{method} {path}", asked))
        if self.refuses:
            raise status.forbidden("", "serviceaccounts", "sa", "no")
        ends = timestamp(self.clock.now() + asked["spec"]["expirationSeconds"])
        answer = {"status": {"token": f"token-{len(self.asked)}", "expirationTimestamp": ends}}
        return Response(201, msgspec.json.encode(answer))


def wish(**token: Any) -> Any:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000, **token}}
    return pod(serviceAccountName="sa", volumes=[{"name": "t", "projected": {"sources": [source]}}])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Server:
    return Server(clock)


async def only(tokens: Tokens, of: Any) -> str:
    (token,) = (await tokens.of(of)).values()
    return token


async def test_a_token_is_asked_for_the_pod_its_audience_and_its_life(server, clock) -> None:
    await Tokens(server, clock, lambda uid: None).of(wish(audience="vault"))  # type: ignore[arg-type]

    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"}
    spec = {"expirationSeconds": 1000, "boundObjectRef": bound, "audiences": ["vault"]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    assert server.asked == [("POST /api/v1/namespaces/ns/serviceaccounts/sa/token", request)]


async def test_a_token_is_kept_until_80_percent_of_its_life_and_then_its_pod_is_woken(server, clock) -> None:
    woken: list[str] = []
    tokens = Tokens(server, clock, woken.append, lambda: 0.0)
    assert await only(tokens, wish()) == "token-1"

    clock.advance(799)
    assert (await only(tokens, wish()), woken) == ("token-1", [])
    clock.advance(1)

    assert woken == ["u1"]
    assert await only(tokens, wish()) == "token-2"


async def test_a_renewal_that_fails_keeps_the_old_token_and_is_tried_again_in_a_minute(server, clock) -> None:
    woken: list[str] = []
    tokens = Tokens(server, clock, woken.append, lambda: 0.0)
    await tokens.of(wish())
    clock.advance(800)
    server.refuses = True

    assert await only(tokens, wish()) == "token-1"
    clock.advance(60)
    server.refuses = False

    assert woken == ["u1", "u1"]
    assert await only(tokens, wish()) == "token-3"


async def test_a_token_that_has_ended_is_not_used(server, clock) -> None:
    tokens = Tokens(server, clock, lambda uid: None)
    await tokens.of(wish())
    server.refuses = True
    clock.advance(1001)

    with pytest.raises(TokenError, match="token sa expired and refresh failed"):
        await tokens.of(wish())


async def test_a_first_token_that_is_refused_says_why(server, clock) -> None:
    server.refuses = True
    with pytest.raises(TokenError, match=r"failed to fetch token: .*forbidden"):
        await Tokens(server, clock, lambda uid: None).of(wish())


async def test_a_pod_that_is_gone_is_not_woken(server, clock) -> None:
    woken: list[str] = []
    tokens = Tokens(server, clock, woken.append)
    await tokens.of(wish())
    tokens.release("u1")

    clock.advance(10_000)

    assert woken == []


def test_a_token_of_a_year_is_renewed_every_day() -> None:
    year = 365 * 86400.0
    assert renewal(ends_at=year, life=year) == 86400
