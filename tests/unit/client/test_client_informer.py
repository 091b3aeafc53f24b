"""An informer's cache follows the server whatever happens on the way."""

from __future__ import annotations

import pytest
from memory_api import MemoryAPI

from minikube_raw.api import scheme, status
from minikube_raw.api.meta import PartialObject
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.informer import Informer, Informers
from minikube_raw.client.resources import NODES, PODS
from minikube_raw.client.rest import Client, Resource


def pod(name: str, **spec: object) -> dict:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


@pytest.fixture
async def informer(api, client, background):
    informer = Informer(client, PODS)
    background(informer.run())
    await informer.wait_synced()
    return informer


async def test_what_was_there_before_is_listed_and_what_comes_later_is_watched(api, client, background, eventually):
    api.put(scheme.POD, pod("a"))
    informer = Informer(client, PODS)
    background(informer.run())
    await informer.wait_synced()
    assert set(informer.cache) == {"default/a"}
    api.put(scheme.POD, pod("b"))
    await eventually(lambda: set(informer.cache) == {"default/a", "default/b"})
    api.remove(scheme.POD, "a", "default")
    await eventually(lambda: set(informer.cache) == {"default/b"})


async def test_handlers_hear_old_and_new_and_late_handlers_hear_what_is_there(api, informer, eventually):
    heard = []
    informer.add_handler(lambda old, new: heard.append((old and old.spec.node_name, new and new.spec.node_name)))
    api.put(scheme.POD, pod("a"))
    api.put(scheme.POD, pod("a", nodeName="n1"))
    api.remove(scheme.POD, "a", "default")
    await eventually(lambda: len(heard) == 3)
    assert heard == [(None, ""), ("", "n1"), ("n1", None)]
    api.put(scheme.POD, pod("c"))
    await eventually(lambda: "default/c" in informer.cache)
    late = []
    informer.add_handler(lambda old, new: late.append((old, new.metadata.name)))
    assert late == [(None, "c")]


async def test_a_broken_watch_goes_on_from_where_it_was(api, informer, eventually):
    api.put(scheme.POD, pod("a"))
    await eventually(lambda: "default/a" in informer.cache)
    api.disconnect()
    api.put(scheme.POD, pod("b"))
    await eventually(lambda: "default/b" in informer.cache)
    assert [entry for entry in api.log if entry[0] == "GET"] == [("GET", "/api/v1/pods")], "listed once"


async def test_an_expired_watch_lists_again_and_tells_what_was_missed(api, informer, eventually):
    api.put(scheme.POD, pod("stays"))
    api.put(scheme.POD, pod("goes"))
    await eventually(lambda: len(informer.cache) == 2)
    heard = []
    informer.add_handler(lambda old, new: heard.append((old and old.metadata.name, new and new.metadata.name)))
    heard.clear()
    api.disconnect()
    api.remove(scheme.POD, "goes", "default")
    api.put(scheme.POD, pod("comes"))
    api.compact()
    await eventually(lambda: set(informer.cache) == {"default/stays", "default/comes"})
    assert sorted(heard, key=str) == [("goes", None), (None, "comes")]


async def test_a_server_that_is_away_is_asked_later_and_later(api: MemoryAPI, client, background, eventually):
    clock = ManualClock()

    def away(request: object) -> None:
        raise ConnectionRefusedError("away")

    api.fail = away
    informer = Informer(client, PODS, clock=clock)
    background(informer.run())
    await eventually(lambda: len(api.log) == 1)
    for tries, seconds in ((2, 0.3), (3, 0.6), (4, 1.2)):
        clock.advance(seconds)
        await eventually(lambda tries=tries: len(api.log) == tries)
    api.fail = lambda request: None
    clock.advance(60)
    await informer.wait_synced()


async def test_a_refusal_is_retried_too(api, client, background, eventually):
    clock = ManualClock()
    answers = [status.unauthorized()]

    def refuse_once(request: object) -> None:
        if answers:
            raise answers.pop()

    api.fail = refuse_once
    informer = Informer(client, PODS, clock=clock)
    background(informer.run())
    await eventually(lambda: not answers)
    await eventually(lambda: clock.advance(1) or informer.synced)


async def test_indexes_follow_changes(api, informer, eventually):
    informer.add_index("node", lambda view: [view.spec.node_name] if view.spec.node_name else [])
    api.put(scheme.POD, pod("a"))
    api.put(scheme.POD, pod("b", nodeName="n1"))
    await eventually(lambda: len(informer.cache) == 2)
    assert [view.metadata.name for view in informer.by_index("node", "n1")] == ["b"]
    api.put(scheme.POD, pod("a", nodeName="n1"))
    api.put(scheme.POD, pod("b", nodeName="n2"))
    await eventually(lambda: [view.metadata.name for view in informer.by_index("node", "n2")] == ["b"])
    assert [view.metadata.name for view in informer.by_index("node", "n1")] == ["a"]
    api.remove(scheme.POD, "a", "default")
    await eventually(lambda: not informer.by_index("node", "n1"))


async def test_a_process_holds_one_copy_per_kind(client: Client, background):
    informers = Informers(client)
    assert informers.of(PODS) is informers.of(PODS)
    background(informers.run())
    late = informers.of(NODES)
    await late.wait_synced()
    with pytest.raises(ValueError, match="held as Pod"):
        informers.of(Resource(scheme.POD, PartialObject))
