"""What client-go sends and reads by default: built-in kinds as application/vnd.kubernetes.protobuf, JSON where there is no other."""

from __future__ import annotations

from typing import Any

import pytest
from served_api import ADMIN, CORE, Api, config_map, workload

from minikube_raw.api import protobuf
from minikube_raw.client.transport import Request, Response

ACCEPT = "application/vnd.kubernetes.protobuf,application/json"


async def send(api: Api, method: str, path: str, body: bytes = b"", accept: str = ACCEPT) -> Response:
    return await api.server.handle(Request(method, path, {}, body, protobuf.MEDIA_TYPE, accept), api.user)


async def read(api: Api, method: str, path: str, code: int, obj: Any = None) -> Any:
    """Send an object in protobuf and read the answer, which must be protobuf, too."""
    response = await send(api, method, path, protobuf.encode(obj) if obj else b"")
    assert (response.code, response.content_type) == (code, protobuf.MEDIA_TYPE)
    return protobuf.decode(response.body)


async def test_an_object_is_created_updated_and_deleted_in_protobuf(api: Api) -> None:
    made = await read(api, "POST", CORE + "configmaps", 201, config_map("a", {"k": "1"}))
    updated = await read(api, "PUT", CORE + "configmaps/a", 200, {**made, "data": {"k": "2"}})
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}}
    refused = await read(api, "DELETE", CORE + "configmaps/a", 409, options)
    options["preconditions"]["uid"] = made["metadata"]["uid"]
    deleted = await read(api, "DELETE", CORE + "configmaps/a", 200, options)

    assert updated["data"] == {"k": "2"}
    assert (refused["kind"], refused["reason"]) == ("Status", "Conflict")
    assert deleted["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}


async def test_options_may_say_the_group_they_are_for(api: Api) -> None:
    await api.create("/apis/apps/v1/namespaces/default/deployments", workload("Deployment", "d"))
    options = {"apiVersion": "apps/v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}

    await read(api, "DELETE", "/apis/apps/v1/namespaces/default/deployments/d", 200, options)

    held = await api.get("/apis/apps/v1/namespaces/default/deployments/d")
    assert held["metadata"]["finalizers"] == ["orphan"]


async def test_a_review_is_asked_and_answered_in_protobuf(api: Api) -> None:
    spec = {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    answer = await read(api, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, review)
    assert answer["status"]["allowed"] is True


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"k8s\0", "the object provided is unrecognized (must be of type ConfigMap): empty body (6b387300)"),
        (
            b"k8s\0\n\x10abc",
            "the object provided is unrecognized (must be of type ConfigMap): unexpected EOF (6b3873000a10616263)",
        ),
        (
            protobuf.encode({"apiVersion": "v1", "kind": "Pod"}),
            'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion',
        ),
    ],
    ids=["empty", "truncated", "another kind"],
)
async def test_a_bad_body_is_refused_in_recorded_words(api: Api, body: bytes, message: str) -> None:
    response = await send(api, "POST", CORE + "configmaps", body)
    refusal = protobuf.decode(response.body)
    assert (response.code, refusal["reason"], refusal["message"]) == (400, "BadRequest", message)


@pytest.mark.parametrize("path", ["configmaps/nope", "nope"])
async def test_a_refusal_is_a_status_in_protobuf(api: Api, path: str) -> None:
    assert (await read(api, "GET", CORE + path, 404))["reason"] == "NotFound"


async def test_a_list_of_many_pieces_holds_all_in_order(api: Api) -> None:
    names = [f"c{number:03}" for number in range(120)]
    for name in names:
        await api.create(CORE + "configmaps", config_map(name))
    listed = await read(api, "GET", CORE + "configmaps", 200)
    assert [item["metadata"]["name"] for item in listed["items"]] == names


async def test_tables_are_asked_for_in_json_only(api: Api) -> None:
    table = ";as=Table;v=v1;g=meta.k8s.io"
    accept = f"{protobuf.MEDIA_TYPE}{table},application/json{table}"
    assert (await send(api, "GET", CORE + "configmaps", accept=accept)).content_type == "application/json"
    assert (await send(api, "GET", CORE + "configmaps", accept=protobuf.MEDIA_TYPE + table)).code == 406


async def test_watch_events_are_frames_and_the_same_for_all_watchers(api: Api) -> None:
    request = Request("GET", CORE + "configmaps", {"watch": ("1",)}, b"", "", ACCEPT)
    info = api.server._dispatcher.authorized(request, ADMIN)
    watches = [await api.server._dispatcher.watch(request, ADMIN, info) for _ in range(2)]
    made = await api.create(CORE + "configmaps", config_map("a"))

    batches = [await anext(aiter(watch.batches)) for watch in watches]

    assert {watch.content_type for watch in watches} == {f"{protobuf.MEDIA_TYPE};stream=watch"}
    assert protobuf.unframe(b"".join(batches[0])) == ([{"type": "ADDED", "object": made}], b"")
    assert batches[0][0] is batches[1][0]
    for watch in watches:
        await watch.batches.aclose()
