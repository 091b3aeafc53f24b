"""Watches: order, selectors, bookmarks, where they begin and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from served_api import CORE, Api, binding, config_map, pod

from minikube_raw.api import protobuf
from minikube_raw.apiserver import cache
from minikube_raw.apiserver.server import APIServer

MAPS = CORE + "configmaps"


async def take(lines: AsyncIterator[bytes], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        return [json.loads(await anext(lines)) for _ in range(count)]


async def rest(lines: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        return [json.loads(line) async for line in lines]


def seen(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def revision(api: Api) -> str:
    version: str = (await api.get(MAPS))["metadata"]["resourceVersion"]
    return version


async def test_events_come_in_order_and_a_deletion_carries_its_own_revision(api: Api) -> None:
    lines = api.watch(f"{MAPS}?watch=true&resourceVersion={await revision(api)}")
    first = asyncio.ensure_future(take(lines, 3))
    made = await api.create(MAPS, config_map("a"))
    await api.patch(f"{MAPS}/a", {"data": {"k": "v"}})
    await api.patch(f"{MAPS}/a", {"data": {"k": "v"}})  # changes nothing: no event
    await api.delete(f"{MAPS}/a")

    events = await first

    assert seen(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    start = int(made["metadata"]["resourceVersion"])
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == [start, start + 1, start + 2]
    assert events[2]["object"]["data"] == {"k": "v"}


async def test_an_object_that_leaves_a_selector_is_deleted_with_its_previous_state(api: Api) -> None:
    lines = api.watch(f"{MAPS}?watch=true&resourceVersion={await revision(api)}&labelSelector=a%3Db")
    first = asyncio.ensure_future(take(lines, 4))
    await api.create(MAPS, config_map("l", labels={"a": "b"}))
    await api.patch(f"{MAPS}/l", {"metadata": {"labels": {"a": "z"}}})
    await api.patch(f"{MAPS}/l", {"data": {"unseen": "x"}})
    await api.patch(f"{MAPS}/l", {"metadata": {"labels": {"a": "b"}}})
    await api.delete(f"{MAPS}/l")

    events = await first

    assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED", "DELETED"]
    assert [event["object"]["metadata"]["labels"]["a"] for event in events] == ["b", "b", "b", "b"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert [version - versions[0] for version in versions] == [0, 1, 3, 4]


async def test_a_node_sees_its_pods_from_binding_on(api: Api) -> None:
    version = await revision(api)
    lines = api.watch(f"/api/v1/pods?watch=true&resourceVersion={version}&fieldSelector=spec.nodeName%3Dn1")
    first = asyncio.ensure_future(take(lines, 2))
    await api.create(CORE + "pods", pod("p"))
    await api.create(CORE + "pods/p/binding", binding("p", "n1"))
    await api.patch(CORE + "pods/p/status", {"status": {"phase": "Running"}})

    assert seen(await first) == [("ADDED", "p"), ("MODIFIED", "p")]


async def test_without_a_revision_the_state_comes_first(api: Api) -> None:
    await api.create(MAPS, config_map("a"))
    await api.create(MAPS, config_map("b"))

    for query in ("watch=true", "watch=true&resourceVersion=0"):
        events = await rest(api.watch(f"{MAPS}?{query}&timeoutSeconds=1"))
        assert seen(events) == [("ADDED", "a"), ("ADDED", "b")]


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    made = await api.create(MAPS, config_map("a"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

    added, bookmark = await take(api.watch(f"{MAPS}?{query}"), 2)

    assert added["type"] == "ADDED"
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "ConfigMap"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_watch_from_the_past_replays_what_happened_since(api: Api) -> None:
    version = await revision(api)
    await api.create(MAPS, config_map("a"))
    await api.delete(f"{MAPS}/a")
    await api.create(CORE + "pods", pod("other-kind"))

    events = await take(api.watch(f"{MAPS}?watch=true&resourceVersion={version}"), 2)

    assert seen(events) == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_watch_from_forgotten_history_is_told_to_list_again(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache, "HISTORY_EVENTS", 2)
    version = await revision(api)
    for name in "abc":
        await api.create(MAPS, config_map(name))

    (event,) = await rest(api.watch(f"{MAPS}?watch=true&resourceVersion={version}"))

    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410
    assert event["object"]["message"].startswith(f"too old resource version: {version} (")


async def test_a_stopping_server_ends_its_watches(api: Api, server: APIServer) -> None:
    lines = api.watch(f"{MAPS}?watch=true&resourceVersion={await revision(api)}")
    ending = asyncio.ensure_future(rest(lines))
    await asyncio.sleep(0)

    await server.stop()

    assert await ending == []


async def test_replayed_events_equal_the_list(api: Api) -> None:
    version = await revision(api)
    for number in range(30):
        name = f"c{number % 7}"
        response, _ = await api.send("POST", MAPS, config_map(name, {"n": str(number)}))
        if response.code == 409:
            await api.delete(f"{MAPS}/{name}")

    state: dict[str, Any] = {}
    for event in await rest(api.watch(f"{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1")):
        name = event["object"]["metadata"]["name"]
        if event["type"] == "DELETED":
            del state[name]
        else:
            state[name] = event["object"]

    listed = (await api.get(MAPS))["items"]
    assert [{"kind": "ConfigMap", "apiVersion": "v1", **item} for item in listed] == [
        state[name] for name in sorted(state)
    ]


async def test_tables_are_watched_row_by_row(api: Api) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    await api.create(MAPS, config_map("a", {"x": "y"}))
    request = api.request("GET", f"{MAPS}?watch=true&timeoutSeconds=1", None, {"Accept": accept})

    (event,) = await rest(api.server.watch(request, api.user))

    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][:2] == ["a", 1]


async def test_frames_may_be_protobuf(api: Api) -> None:
    await api.create(MAPS, config_map("a", {"x": "y"}))
    accept = {"Accept": "application/vnd.kubernetes.protobuf"}
    query = (
        "watch=true&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )
    request = api.request("GET", f"{MAPS}?{query}", None, accept)

    events, rest_ = protobuf.unframe(b"".join([frame async for frame in api.server.watch(request, api.user)]))

    assert [event["type"] for event in events][:2] == ["ADDED", "BOOKMARK"]
    assert events[0]["object"]["data"] == {"x": "y"}
    assert rest_ == b""
