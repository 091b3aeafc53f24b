"""Create, update, patch, delete: what is kept, what is refused, what counts as a change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from served_api import APPS, CORE, STRATEGIC, Api, binding, config_map, pod, workload

from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore

MAPS = CORE + "configmaps"
APPLY = "application/apply-patch+yaml"


def version(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def test_a_write_that_changes_nothing_is_not_written(api: Api) -> None:
    made = await api.create(MAPS, config_map("a", {"x": "1", "y": "2"}))

    again = await api.update(f"{MAPS}/a", config_map("a", {"y": "2", "x": "1"}))
    patched = await api.patch(f"{MAPS}/a", {"data": {"x": "1"}}, media=STRATEGIC)

    assert version(again) == version(patched) == version(made)
    assert patched["metadata"]["managedFields"] == made["metadata"]["managedFields"]


async def test_only_one_of_two_updates_of_the_same_state_wins(api: Api) -> None:
    made = await api.create(MAPS, config_map("a"))
    first, second = ({**made, "data": {"who": name}} for name in ("first", "second"))

    codes = [
        answer[0].code
        for answer in await asyncio.gather(*(api.send("PUT", f"{MAPS}/a", obj) for obj in (first, second)))
    ]

    assert sorted(codes) == [200, 409]


async def test_concurrent_patches_all_arrive(api: Api) -> None:
    await api.create(MAPS, config_map("a"))

    await asyncio.gather(*(api.patch(f"{MAPS}/a", {"data": {f"k{n}": "v"}}) for n in range(15)))

    assert len((await api.get(f"{MAPS}/a"))["data"]) == 15


async def test_a_generated_name_is_unlike_any_other(api: Api) -> None:
    wish = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}

    names = {(await api.create(MAPS, wish))["metadata"]["name"] for _ in range(20)}

    assert len(names) == 20
    assert all(name.startswith("gen-") and len(name) == 9 for name in names)


async def test_a_dry_run_leaves_nothing_behind(api: Api) -> None:
    answer = await api.create(f"{MAPS}?dryRun=All", config_map("a"))
    service = {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}}

    assert "resourceVersion" not in answer["metadata"]
    await api.get(f"{MAPS}/a", code=404)
    await api.create(CORE + "services?dryRun=All", service)
    await api.create(CORE + "services", service)  # the address is still free


async def test_identity_survives_updates(api: Api) -> None:
    made = await api.create(MAPS, config_map("a"))
    wish = config_map("a", {"k": "v"}, creationTimestamp="2001-01-01T00:00:00Z", generation=7, selfLink="/x")

    changed = await api.update(f"{MAPS}/a", wish)

    for name in ("uid", "creationTimestamp"):
        assert changed["metadata"][name] == made["metadata"][name]
    assert "generation" not in changed["metadata"]


async def test_generation_counts_wishes_not_reports(api: Api) -> None:
    made = await api.create(APPS + "deployments", workload("Deployment", "d"))
    reported = await api.patch(APPS + "deployments/d/status", {"status": {"replicas": 1, "observedGeneration": 1}})
    labelled = await api.patch(APPS + "deployments/d", {"metadata": {"labels": {"a": "b"}}})
    scaled = await api.patch(APPS + "deployments/d", {"spec": {"replicas": 3}})

    assert [obj["metadata"]["generation"] for obj in (made, reported, labelled, scaled)] == [1, 1, 1, 2]
    assert scaled["status"] == {"replicas": 1, "observedGeneration": 1}


async def test_spec_and_status_are_written_apart(api: Api) -> None:
    await api.create(CORE + "pods", pod("p", nodeName="n1"))

    await api.patch(CORE + "pods/p", {"status": {"phase": "Failed"}})
    answer = await api.patch(CORE + "pods/p/status", {"spec": {"nodeName": "other"}, "status": {"phase": "Running"}})

    assert (answer["spec"]["nodeName"], answer["status"]["phase"]) == ("n1", "Running")
    assert answer["status"]["qosClass"] == "BestEffort"


@pytest.mark.parametrize("plural", ["deployments", "replicasets"])
async def test_a_workload_is_scaled_through_its_subresource(api: Api, plural: str) -> None:
    kind = {"deployments": "Deployment", "replicasets": "ReplicaSet"}[plural]
    await api.create(APPS + plural, workload(kind, "w"))
    path = f"{APPS}{plural}/w/scale"
    scale = await api.get(path)

    scale["spec"]["replicas"] = 5
    await api.update(path, scale)
    patched = await api.patch(path, {"spec": {"replicas": 0}})

    assert scale["status"]["selector"] == "app=w"
    assert patched["spec"] == {}
    assert (await api.get(f"{APPS}{plural}/w"))["spec"]["replicas"] == 0
    assert (await api.update(path, scale, code=409))["reason"] == "Conflict"


async def test_a_pod_is_bound_once(api: Api) -> None:
    await api.create(CORE + "pods", pod("p"))

    answer = await api.create(CORE + "pods/p/binding", binding("p", "n1"))
    again = await api.create(CORE + "pods/p/binding", binding("p", "n1"), code=409)
    bound = await api.get(CORE + "pods/p")

    assert answer["status"] == "Success"
    assert again["message"].endswith('pod p is already assigned to node "n1"')
    assert bound["spec"]["nodeName"] == "n1"
    assert [c["status"] for c in bound["status"]["conditions"] if c["type"] == "PodScheduled"] == ["True"]


# --- deletion ---


async def test_a_pod_on_a_node_is_left_to_its_kubelet(api: Api) -> None:
    await api.create(CORE + "pods", pod("p", nodeName="n1"))

    marked = await api.delete(CORE + "pods/p")
    again = await api.delete(CORE + "pods/p")
    shortened = await api.delete(CORE + "pods/p", options={"gracePeriodSeconds": 5})
    longer = await api.delete(CORE + "pods/p", options={"gracePeriodSeconds": 500})
    await api.delete(CORE + "pods/p", options={"gracePeriodSeconds": 0})

    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["generation"] == 2
    assert version(again) == version(marked)
    assert shortened["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shortened["metadata"]["deletionTimestamp"] <= marked["metadata"]["deletionTimestamp"]
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await api.get(CORE + "pods/p", code=404)


@pytest.mark.parametrize("phase", ["", "Succeeded", "Failed"])
async def test_a_pod_no_kubelet_has_goes_at_once(api: Api, phase: str) -> None:
    await api.create(CORE + "pods", pod("p", **({"nodeName": "n1"} if phase else {})))
    if phase:
        await api.patch(CORE + "pods/p/status", {"status": {"phase": phase}})

    answer = await api.delete(CORE + "pods/p")

    assert answer["kind"] == "Pod"
    await api.get(CORE + "pods/p", code=404)


async def test_finalizers_hold_an_object_until_the_last_one_is_gone(api: Api) -> None:
    await api.create(MAPS, config_map("f", finalizers=["example.com/a", "example.com/b"]))

    marked = await api.delete(f"{MAPS}/f")
    refused = await api.patch(f"{MAPS}/f", {"metadata": {"finalizers": ["example.com/c"]}}, code=422)
    taken = await api.create(MAPS, config_map("f"), code=409)
    await api.patch(f"{MAPS}/f", {"metadata": {"finalizers": ["example.com/b"]}})
    await api.patch(f"{MAPS}/f", {"metadata": {"finalizers": None}})

    assert marked["metadata"]["deletionTimestamp"]
    assert "no new finalizers can be added" in refused["message"]
    assert taken["message"] == 'object is being deleted: configmaps "f" already exists'
    await api.get(f"{MAPS}/f", code=404)


@pytest.mark.parametrize(("policy", "finalizers"), [("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"])])
async def test_a_propagation_policy_is_left_to_the_garbage_collector(
    api: Api, policy: str, finalizers: list[str]
) -> None:
    await api.create(MAPS, config_map("o"))

    marked = await api.delete(f"{MAPS}/o", options={"propagationPolicy": policy})

    assert marked["metadata"]["finalizers"] == finalizers


async def test_preconditions_protect_the_object_that_was_not_meant(api: Api) -> None:
    made = await api.create(MAPS, config_map("a"))

    for preconditions in ({"uid": "another"}, {"resourceVersion": "1"}):
        await api.delete(f"{MAPS}/a", code=409, options={"preconditions": preconditions})
    answer = await api.delete(f"{MAPS}/a", options={"preconditions": {"uid": made["metadata"]["uid"]}})

    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}


async def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.create(MAPS, config_map(name, labels={"l": label}))

    gone = await api.delete(f"{MAPS}?labelSelector=l%3Dx")

    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in (await api.get(MAPS))["items"]] == ["c"]


# --- namespaces ---


async def test_a_namespace_takes_nothing_while_it_goes_and_goes_when_finalized(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "n"}})
    await api.create("/api/v1/namespaces/n/configmaps", config_map("a"))

    going = await api.delete("/api/v1/namespaces/n")
    refused = await api.create("/api/v1/namespaces/n/configmaps", config_map("b"), code=403)
    await api.delete("/api/v1/namespaces/n/configmaps/a")
    await api.update("/api/v1/namespaces/n/finalize", {**going, "spec": {"finalizers": []}})

    assert going["status"]["phase"] == "Terminating"
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await api.get("/api/v1/namespaces/n", code=404)


async def test_every_cluster_begins_with_its_namespaces_and_itself_as_a_service(api: Api) -> None:
    namespaces = (await api.get("/api/v1/namespaces"))["items"]
    service = await api.get(CORE + "services/kubernetes")

    assert [n["metadata"]["name"] for n in namespaces] == ["default", "kube-node-lease", "kube-public", "kube-system"]
    assert service["spec"]["clusterIP"] == "10.96.0.1"


# --- services ---


async def test_addresses_and_node_ports_are_given_once(api: Api) -> None:
    def service(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}], **spec}}

    made = [await api.create(CORE + "services", service(f"s{n}")) for n in range(30)]
    ips = {obj["spec"]["clusterIP"] for obj in made}
    ports = {obj["spec"]["ports"][0]["nodePort"] for obj in made}
    held = made[0]["spec"]

    assert len(ips) == len(ports) == 30
    refused = await api.create(CORE + "services", service("t", clusterIP=held["clusterIP"]), code=422)
    assert "provided IP is already allocated" in refused["message"]
    await api.delete(CORE + "services/s0")
    again = service("t", clusterIP=held["clusterIP"], ports=[{"port": 80, "nodePort": held["ports"][0]["nodePort"]}])
    await api.create(CORE + "services", again)


async def test_an_update_keeps_the_address_it_does_not_mention(api: Api) -> None:
    wish = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    made = await api.create(CORE + "services", wish)

    updated = await api.update(CORE + "services/s", {**wish, "spec": {**wish["spec"], "selector": {"a": "b"}}})

    assert updated["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert updated["spec"]["ports"] == made["spec"]["ports"]
    await api.patch(CORE + "services/s", {"spec": {"clusterIP": "10.96.0.99"}}, code=422)


# --- server-side apply ---


async def test_appliers_own_what_they_say_and_ask_before_taking(api: Api) -> None:
    path = f"{MAPS}/ssa"

    created = await api.patch(f"{path}?fieldManager=one", config_map("ssa", {"a": "1"}), code=201, media=APPLY)
    refused = await api.patch(f"{path}?fieldManager=two", config_map("ssa", {"a": "2"}), code=409, media=APPLY)
    shared = await api.patch(f"{path}?fieldManager=two", config_map("ssa", {"b": "2"}), media=APPLY)
    forced = await api.patch(f"{path}?fieldManager=two&force=true", config_map("ssa", {"a": "2"}), media=APPLY)
    unchanged = await api.patch(f"{path}?fieldManager=two", config_map("ssa", {"a": "2"}), media=APPLY)

    assert created["metadata"]["managedFields"][0]["operation"] == "Apply"
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert shared["data"] == {"a": "1", "b": "2"}
    assert forced["data"] == {"a": "2"}  # two no longer mentions b, and nobody else owns it
    assert version(unchanged) == version(forced)


async def test_an_apply_that_fails_validation_creates_nothing(api: Api) -> None:
    wrong = config_map("bad", {"not a key": "x"})

    await api.patch(f"{MAPS}/bad?fieldManager=m", wrong, code=422, media=APPLY)

    await api.get(f"{MAPS}/bad", code=404)


# --- durability ---


async def test_a_new_server_on_the_same_store_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    for round_ in range(2):
        store = SQLiteStore(tmp_path / "again.sqlite")
        await store.open()
        server = APIServer(store, Options())
        await server.start()
        api = Api(server)
        if round_ == 0:
            made = await api.create(CORE + "services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
        else:
            assert await api.get(CORE + "services/s") == made
            taken = {
                "metadata": {"name": "t"},
                "spec": {"ports": [{"port": 80}], "clusterIP": made["spec"]["clusterIP"]},
            }
            await api.create(CORE + "services", taken, code=422)
        await server.stop()
        await store.close()
