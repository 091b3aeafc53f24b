"""Lists: snapshots, pages, selectors, resourceVersion semantics."""

from __future__ import annotations

import pytest
from served_api import CORE, Api, config_map, pod

from minikube_raw.store.sqlite import SQLiteStore

MAPS = CORE + "configmaps"


async def make(api: Api, count: int) -> None:
    for number in range(count):
        await api.create(MAPS, config_map(f"c{number}", {"k": "v"}, labels={"odd": str(number % 2)}))


def names(page: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    return [item["metadata"]["name"] for item in page["items"]]


async def test_pages_are_one_snapshot_whatever_happens_in_between(api: Api) -> None:
    await make(api, 5)
    first = await api.get(f"{MAPS}?limit=2")
    await api.delete(f"{MAPS}/c3")
    await api.create(MAPS, config_map("c9"))

    second = await api.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")
    third = await api.get(f"{MAPS}?limit=2&continue={second['metadata']['continue']}")

    assert [names(first), names(second), names(third)] == [["c0", "c1"], ["c2", "c3"], ["c4"]]
    assert first["metadata"]["remainingItemCount"] == 3
    assert {page["metadata"]["resourceVersion"] for page in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }
    assert "continue" not in third["metadata"]


async def test_pages_with_a_selector_count_only_what_it_selects(api: Api) -> None:
    await make(api, 7)

    first = await api.get(f"{MAPS}?limit=2&labelSelector=odd%3D1")
    second = await api.get(f"{MAPS}?limit=2&labelSelector=odd%3D1&continue={first['metadata']['continue']}")

    assert names(first) + names(second) == ["c1", "c3", "c5"]
    assert "remainingItemCount" not in first["metadata"]


async def test_a_page_whose_history_is_gone_says_how_to_go_on(api: Api, store: SQLiteStore) -> None:
    await make(api, 4)
    first = await api.get(f"{MAPS}?limit=2")
    await api.create(MAPS, config_map("zz"))
    await store.compact(store.revision)

    gone = await api.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}", code=410)
    rest = await api.get(f"{MAPS}?limit=9&continue={gone['metadata']['continue']}")

    assert gone["reason"] == "Expired"
    assert names(rest) == ["c2", "c3", "zz"]


async def test_an_exact_revision_shows_the_past_and_a_compacted_one_is_refused(api: Api, store: SQLiteStore) -> None:
    await make(api, 2)
    before = (await api.get(MAPS))["metadata"]["resourceVersion"]
    await api.delete(f"{MAPS}/c0")
    exact = f"{MAPS}?resourceVersion={before}&resourceVersionMatch=Exact"

    assert names(await api.get(exact)) == ["c0", "c1"]
    assert names(await api.get(f"{MAPS}?resourceVersion={before}&resourceVersionMatch=NotOlderThan")) == ["c1"]
    await store.compact(store.revision)
    assert (await api.get(exact, code=410))["reason"] == "Expired"


@pytest.mark.parametrize(
    "query", ["resourceVersion=99999999", "resourceVersion=99999999&resourceVersionMatch=NotOlderThan"]
)
async def test_a_revision_that_does_not_come_is_a_timeout(api: Api, query: str) -> None:
    answer = await api.get(f"{MAPS}?{query}", code=504)

    assert answer["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert answer["details"]["retryAfterSeconds"] == 1


async def test_items_leave_out_what_the_list_says_for_all(api: Api) -> None:
    await make(api, 1)

    page = await api.get(MAPS)

    assert (page["kind"], page["apiVersion"]) == ("ConfigMapList", "v1")
    assert list(page["items"][0]) == ["metadata", "data"]


async def test_pods_are_selected_by_their_fields(api: Api) -> None:
    await api.create(CORE + "pods", pod("here", nodeName="n1"))
    await api.create(CORE + "pods", pod("nowhere"))

    assert names(await api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")) == ["here"]
    assert names(await api.get("/api/v1/pods?fieldSelector=spec.nodeName%3D,status.phase%3DPending")) == ["nowhere"]
    assert names(await api.get(f"{CORE}pods?fieldSelector=metadata.name%3Dhere")) == ["here"]
    assert names(await api.get(f"{CORE}pods?fieldSelector=metadata.name!%3Dhere")) == ["nowhere"]


async def test_a_namespace_prefix_is_no_prefix_of_another_namespace(api: Api) -> None:
    for namespace in ("a", "a-b", "a0"):
        await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        await api.create(f"/api/v1/namespaces/{namespace}/configmaps", config_map("x"))

    page = await api.get("/api/v1/namespaces/a/configmaps")

    assert [item["metadata"]["namespace"] for item in page["items"]] == ["a"]


async def test_a_read_sees_every_write_acknowledged_before_it(api: Api) -> None:
    for number in range(50):
        made = await api.create(MAPS, config_map(f"n{number}"))
        assert (await api.get(f"{MAPS}/n{number}"))["metadata"]["resourceVersion"] == made["metadata"][
            "resourceVersion"
        ]
    assert len((await api.get(MAPS))["items"]) == 50
