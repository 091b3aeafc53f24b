"""RuntimeClasses, and what they do to pods."""

from __future__ import annotations

from typing import Any

from served_api import CORE, Api, pod

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def runtime_class(name: str = "ovh", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": "runc",
        **more,
    }


async def test_a_pod_gets_the_overhead_and_the_place_of_its_class(api: Api) -> None:
    scheduling = {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}
    fixed = {"cpu": "0.05", "memory": "16Mi"}
    await api.create(CLASSES, runtime_class(overhead={"podFixed": fixed}, scheduling=scheduling))
    made = await api.create(CORE + "pods", pod("p", runtimeClassName="ovh", nodeSelector={"disk": "ssd"}))
    assert made["spec"]["overhead"] == {"cpu": "50m", "memory": "16Mi"}
    assert made["spec"]["nodeSelector"] == {"disk": "ssd", "vm": "yes"}
    assert {"key": "vm", "operator": "Exists"} in made["spec"]["tolerations"]


async def test_a_pod_of_a_class_that_is_not_there_or_was_deleted_is_refused(api: Api) -> None:
    refused = await api.create(CORE + "pods", pod("p", runtimeClassName="none"), 403)
    assert refused["message"] == 'pods "p" is forbidden: pod rejected: RuntimeClass "none" not found'
    await api.create(CLASSES, runtime_class("brief"))
    await api.delete(f"{CLASSES}/brief")
    await api.create(CORE + "pods", pod("q", runtimeClassName="brief"), 403)


async def test_an_overhead_must_be_that_of_the_class(api: Api) -> None:
    await api.create(CLASSES, runtime_class(overhead={"podFixed": {"cpu": "50m"}}))
    await api.create(CLASSES, runtime_class("plain"))
    same = await api.create(CORE + "pods", pod("same", runtimeClassName="ovh", overhead={"cpu": "0.05"}))
    assert same["spec"]["overhead"] == {"cpu": "50m"}
    cases = [
        (pod("p", overhead={"cpu": "50m"}), "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        (
            pod("p", overhead={"cpu": "50m"}, runtimeClassName="plain"),
            "Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            pod("p", overhead={"cpu": "60m"}, runtimeClassName="ovh"),
            "Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
    ]
    for wish, why in cases:
        refused = await api.create(CORE + "pods", wish, 403)
        assert refused["message"] == f'pods "p" is forbidden: pod rejected: {why}'


async def test_a_handler_is_a_label_and_stays(api: Api) -> None:
    refused = await api.create(CLASSES, runtime_class("bad", handler="No_Label"), 422)
    assert refused["details"]["causes"][0]["field"] == "handler"
    refused = await api.create(CLASSES, runtime_class("bad", overhead={"podFixed": {"cpu": "-1"}}), 422)
    assert refused["details"]["causes"][0]["field"] == "overhead.podFixed[cpu]"
    await api.create(CLASSES, runtime_class("fixed"))
    refused = await api.patch(f"{CLASSES}/fixed", {"handler": "other"}, 422)
    assert refused["details"]["causes"][0]["message"] == 'Invalid value: "other": field is immutable'


async def test_the_classes_have_all_verbs_and_columns_of_their_own(api: Api) -> None:
    await api.create(CLASSES, runtime_class("a"))
    listed = await api.get(CLASSES)
    assert [each["metadata"]["name"] for each in listed["items"]] == ["a"]
    table = await api.get(CLASSES, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Handler", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", "runc"]
    patched = await api.patch(f"{CLASSES}/a", {"metadata": {"labels": {"x": "y"}}})
    assert patched["metadata"]["labels"] == {"x": "y"}
    await api.delete(CLASSES)
    assert (await api.get(CLASSES))["items"] == []
