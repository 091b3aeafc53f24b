"""Service-account tokens: who gets which, whom they let in, and when they stop to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from served_api import CORE, Api, pod

from minikube_raw.apiserver import issuer, jwt
from minikube_raw.apiserver.issuer import Issuer
from minikube_raw.apiserver.resources import volumevalidation
from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore

TOKEN = CORE + "serviceaccounts/robot/token"
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
BEGIN = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


class Clock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.time = BEGIN

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **delta: float) -> None:
        self.time += timedelta(**delta)


class Served(NamedTuple):
    """A server that issues tokens, its clock, and an administrator's client."""

    server: APIServer
    api: Api
    clock: Clock

    @property
    def issuer(self) -> Issuer:
        found = self.server.issuer
        assert found is not None
        return found

    def user(self, token: str) -> str:
        user = self.issuer.bearer(token)
        return user.name if user is not None else ""

    async def token(self, code: int = 201, **spec: Any) -> Any:
        answer = await self.api.create(TOKEN, {"spec": spec}, code)
        return answer["status"]["token"] if code == 201 else answer["message"]

    async def review(self, token: str, **spec: Any) -> Any:
        return (await self.api.create(REVIEW, {"spec": {"token": token, **spec}}))["status"]


@pytest.fixture
async def served(store: SQLiteStore, keys: tuple[Path, Path]) -> AsyncIterator[Served]:
    clock = Clock()
    server = APIServer(store, Options(token_keys=keys, clock=clock, advertise="10.0.0.1:6443"))
    await server.start()
    api = Api(server)
    await api.create(CORE + "serviceaccounts", {"metadata": {"name": "robot"}})
    yield Served(server, api, clock)
    await server.stop()


async def run_pod(served: Served, name: str = "p", node: str = "n1", **spec: Any) -> dict[str, Any]:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    made: dict[str, Any] = await served.api.create(
        CORE + "pods", pod(name, nodeName=node, serviceAccountName="robot", volumes=[volume], **spec)
    )
    return made


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"path": "t", "expirationSeconds": 599}, "may not specify a duration less than 10 minutes"),
        ({"path": "t", "expirationSeconds": (1 << 32) + 1}, "may not specify a duration larger than 2^32 seconds"),
        ({"path": "../t"}, "must not contain '..'"),
        ({"path": "/t"}, "must be a relative path"),
        ({"path": "..data"}, "must not start with '..'"),
        ({"path": "t", "expirationSeconds": 1 << 32}, None),
    ],
)
def test_a_projected_token_lives_within_bounds_and_lies_within_its_volume(
    token: dict[str, Any], message: str | None
) -> None:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": token}]}}
    causes = list(volumevalidation.volumes([volume], "spec.volumes", {}))
    assert [each.message.rpartition(": ")[2] for each in causes] == ([message] if message else [])


def bound_to(obj: dict[str, Any], **change: str) -> dict[str, str]:
    kind = {"kind": obj.get("kind", ""), "apiVersion": "v1"}
    return kind | {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]} | change


async def test_a_token_request_is_answered_as_kubernetes_does(served: Served) -> None:
    answer = await served.api.create(TOKEN, {"spec": {"audiences": ["x"], "expirationSeconds": 1200}})

    assert answer["spec"] == {"audiences": ["x"], "expirationSeconds": 1200, "boundObjectRef": None}
    assert answer["status"]["expirationTimestamp"] == "2026-01-31T09:50:00Z"
    metadata = answer["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("robot", "default")
    assert metadata["managedFields"][0]["fieldsV1"] == {"f:spec": {"f:audiences": {}, "f:expirationSeconds": {}}}
    assert metadata["managedFields"][0]["subresource"] == "token"


async def test_the_claims_name_account_pod_and_node(served: Served) -> None:
    account = await served.api.get(CORE + "serviceaccounts/robot")
    node = await served.api.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
    made = await run_pod(served)

    claims = jwt.peek(await served.token(boundObjectRef=bound_to(made)))

    begin = int(BEGIN.timestamp())
    assert len(claims.pop("jti")) == 36
    assert claims == {
        "aud": [issuer.URL],
        "exp": begin + 3600,
        "iat": begin,
        "iss": issuer.URL,
        "kubernetes.io": {
            "namespace": "default",
            "node": {"name": "n1", "uid": node["metadata"]["uid"]},
            "pod": {"name": "p", "uid": made["metadata"]["uid"]},
            "serviceaccount": {"name": "robot", "uid": account["metadata"]["uid"]},
        },
        "nbf": begin,
        "sub": "system:serviceaccount:default:robot",
    }


async def test_a_kubelets_default_token_warns_after_an_hour_and_lasts_a_year(served: Served) -> None:
    made = await run_pod(served)

    answer = await served.api.create(TOKEN, {"spec": {"expirationSeconds": 3607, "boundObjectRef": bound_to(made)}})
    claims = jwt.peek(answer["status"]["token"])

    assert answer["status"]["expirationTimestamp"] == "2026-01-31T10:30:07Z"
    assert claims["kubernetes.io"]["warnafter"] == int(BEGIN.timestamp()) + 3607
    assert claims["exp"] == int(BEGIN.timestamp()) + 365 * 24 * 3600


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"expirationSeconds": 10}, 422, ('TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: '
            "Invalid value: 10: may not specify a duration less than 10 minutes")),
        ({"expirationSeconds": 1 << 33}, 422, ('TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: '
            "Invalid value: 8589934592: may not specify a duration larger than 2^32 seconds")),
        ({"boundObjectRef": {"kind": "X", "apiVersion": "v1", "name": "y"}}, 400,
            "cannot bind token to object of type /v1, Kind=X"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "y"}}, 404, 'pods "y" not found'),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other"}}, 400,
            'cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.'),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "old"}}, 409,
            ('Operation cannot be fulfilled on Pod "p": the UID in the bound object reference (old) does not match the UID in '
            "record. The object might have been deleted and then recreated")),
    ],
)  # fmt: skip
async def test_a_bad_token_request_is_refused_in_kubernetes_words(
    served: Served, spec: dict[str, Any], code: int, message: str
) -> None:
    await run_pod(served)
    await served.api.create(CORE + "pods", pod("other"))

    assert await served.token(code, **spec) == message


async def test_a_token_for_an_account_that_is_not_there_is_not_found(served: Served) -> None:
    missing = await served.api.create(CORE + "serviceaccounts/nope/token", {"spec": {}}, 404)

    assert missing["message"] == 'serviceaccounts "nope" not found'


async def test_a_token_lets_in_as_its_service_account(served: Served) -> None:
    made = await run_pod(served)
    token = await served.token(boundObjectRef=bound_to(made))

    user = served.issuer.bearer(token)
    assert user is not None
    who = (await Api(served.server, user).create(WHO, {}))["status"]["userInfo"]

    assert (who["username"], who["uid"]) == ("system:serviceaccount:default:robot", user.uid)
    assert who["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    assert who["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert who["extra"]["authentication.kubernetes.io/node-name"] == ["n1"]
    assert who["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


async def test_a_token_ends_with_its_time_its_pod_or_its_account(served: Served) -> None:
    bound = bound_to(await run_pod(served))
    of_pod, of_account = await served.token(boundObjectRef=bound, expirationSeconds=7200), await served.token()
    assert served.user(of_pod) == served.user(of_account) == "system:serviceaccount:default:robot"

    await served.api.delete(CORE + "pods/p", options={"gracePeriodSeconds": 0})
    assert (await served.review(of_pod))[
        "error"
    ] == "[invalid bearer token, service account token has been invalidated]"
    served.clock.forward(hours=1, minutes=2)
    assert (await served.review(of_account))["error"] == "[invalid bearer token, service account token has expired]"

    later = await served.token()
    await served.api.delete(CORE + "serviceaccounts/robot")
    assert served.user(later) == ""
    await served.api.create(CORE + "serviceaccounts", {"metadata": {"name": "robot"}})
    assert "service account UID" in (await served.review(later))["error"]


async def test_a_token_is_good_for_its_audiences_only(served: Served) -> None:
    token = await served.token(audiences=["vault", "db"])

    assert served.user(token) == ""
    assert (await served.review(token, audiences=["db", "else"]))["audiences"] == ["db"]
    refused = await served.review(token)
    assert refused == {
        "user": {},
        "error": '[invalid bearer token, token audiences ["vault" "db"] is invalid for the target audiences '
        f'["{issuer.URL}"]]',
    }


@pytest.mark.parametrize("spoil", ["payload", "signature", "algorithm", "nonsense"])
async def test_a_token_that_nobody_here_has_signed_lets_nobody_in(served: Served, spoil: str) -> None:
    head, payload, signature = (await served.token()).split(".")
    none = jwt.encode(b'{"alg":"none"}')
    other = jwt.encode(b'{"iss":"%b","sub":"system:serviceaccount:kube-system:root"}' % issuer.URL.encode())
    forged = {
        "payload": f"{head}.{other}.{signature}",
        "signature": f"{head}.{payload}.{jwt.encode(b'x' * 256)}",
        "algorithm": f"{none}.{payload}.",
        "nonsense": "a.b.c.d\udcff",
    }[spoil]

    assert served.user(forged) == ""
    assert served.issuer.bearer(f"{head}.{payload}.{signature}") is not None


async def test_a_node_gets_tokens_for_its_own_pods_only(served: Served) -> None:
    node = served.api.as_user("system:node:n1", "system:nodes")
    mine, other = await run_pod(served, "mine"), await run_pod(served, "other", "n2")

    async def refusal(**spec: Any) -> str:
        answer = await node.create(TOKEN, {"spec": spec}, 403)
        return str(answer["message"]).removeprefix('serviceaccounts "robot" is forbidden: ')

    made = await node.create(TOKEN, {"spec": {"boundObjectRef": bound_to(mine)}})
    assert served.user(made["status"]["token"]) == "system:serviceaccount:default:robot"
    assert await refusal() == "node requested token not bound to a pod"
    assert (
        await refusal(boundObjectRef=bound_to(mine, uid="")) == "node requested token with a pod binding without a uid"
    )
    different = "node requested token bound to a pod scheduled on a different node"
    assert await refusal(boundObjectRef=bound_to(other)) == different
    unknown = 'audience "vault" not found in pod spec volume'
    assert await refusal(boundObjectRef=bound_to(mine), audiences=["vault"]) == unknown
    default = await node.create(CORE + "serviceaccounts/default/token", {"spec": {}}, 403)
    assert default["message"].endswith("no relationship found between node 'n1' and this object")


async def test_others_can_judge_tokens_by_the_published_keys(served: Served) -> None:
    token = await served.token()
    robot = served.issuer.bearer(token)
    assert robot is not None
    reader = Api(served.server, robot)

    about = await reader.get("/.well-known/openid-configuration")
    response, _ = await reader.send("GET", "/openid/v1/jwks")

    assert about == {
        "issuer": issuer.URL,
        "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    assert response.content_type == "application/jwk-set+json"
    assert jwt.verify(token, jwt.read_keys(response.body))["sub"] == "system:serviceaccount:default:robot"
    await reader.get(CORE + "pods", code=403)
