"""Patches give what a real kube-apiserver made of them, and are refused in its words."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.api import patch_json, patch_merge, patch_strategic, scheme
from minikube_raw.api.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Patch
from minikube_raw.api.schema import struct
from minikube_raw.api.status import StatusError

_RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/api/patches.json").read_text())


def without_defaults(made, expected):
    """Leave out of `made` what the recorded answer does not have, item by item."""
    if isinstance(made, dict) and isinstance(expected, dict):
        return {key: without_defaults(made[key], expected[key]) for key in made if key in expected}
    if isinstance(made, list) and isinstance(expected, list) and len(made) == len(expected):
        return [without_defaults(*pair) for pair in zip(made, expected, strict=True)]
    return made


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in _RECORDED["patches"]])
def test_a_patch_gives_what_kube_apiserver_made_of_it(case):
    current = copy.deepcopy(case["current"])
    patch = Patch(case["media"], json.dumps(case["patch"]).encode(), scheme.by_api_version(*case["kind"]).definition)
    first = patch.apply(current).obj
    assert first == case["patched"]
    assert current == case["current"], "what is current belongs to others"
    assert patch.apply(current).obj == first, "after a lost race it is applied again"


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in _RECORDED["refused"]])
def test_a_patch_that_cannot_be_applied_is_refused_in_kubernetes_words(case):
    current = _RECORDED["config map" if case["kind"][1] == "ConfigMap" else "deployment"]
    with pytest.raises(StatusError) as refused:
        Patch(case["media"], case["body"].encode(), scheme.by_api_version(*case["kind"]).definition).apply(current)
    assert (refused.value.code, refused.value.message) == (case["code"], case["message"])


@pytest.mark.parametrize(
    ("media", "body", "objection"),
    [
        (MERGE_PATCH, '{"foo":1}', 'unknown field "foo"'),
        (STRATEGIC_MERGE_PATCH, '{"foo":1}', 'unknown field "foo"'),
        (JSON_PATCH, '[{"op":"add","path":"/foo","value":1}]', 'unknown field "foo"'),
        (MERGE_PATCH, '{"data":{"b":"1","b":"2"}}', 'duplicate field "data.b"'),
        (JSON_PATCH, '[{"op":"add","op":"add","path":"/data/c","value":"1"}]', 'json patch duplicate field "[0].op"'),
        (JSON_PATCH, '[{"op":"add","path":"/data/c","value":"1","foo":1}]', 'json patch unknown field "[0].foo"'),
    ],
)
def test_strict_decoding_looks_at_patches_too(media, body, objection):
    current, definition = _RECORDED["config map"], scheme.CONFIG_MAP.definition
    assert Patch(media, body.encode(), definition).apply(current).strict == (objection,)
    with pytest.raises(StatusError) as refused:
        Patch(media, body.encode(), definition, strict=True).apply(current)
    assert refused.value.code == 422
    assert refused.value.message.startswith(' "" is invalid: patch: Invalid value: "')
    assert refused.value.message.endswith(f": strict decoding error: {objection}")


def test_a_result_of_a_wrong_type_shows_the_patched_object():
    with pytest.raises(StatusError) as refused:
        Patch(MERGE_PATCH, b'{"data": []}', scheme.CONFIG_MAP.definition).apply(_RECORDED["config map"])
    assert '"{\\"apiVersion\\":\\"v1\\",\\"data\\":[],' in refused.value.message
    assert refused.value.message.endswith(
        "cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string"
    )


_LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2)
_TREES = st.recursive(
    _LEAVES, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=3)
)
_MAPS = st.dictionaries(st.sampled_from("abc"), _TREES, max_size=3)


def without_nulls(value):
    return (
        {key: without_nulls(item) for key, item in value.items() if item is not None}
        if isinstance(value, dict)
        else value
    )


@given(_MAPS, _MAPS)
def test_merging_a_whole_object_into_nothing_or_twice_changes_nothing_more(target, patch):
    once = patch_merge.apply(target, patch)
    assert patch_merge.apply(once, patch) == once
    assert patch_merge.apply({}, patch) == without_nulls(patch)


def _merge_patch_between(old, new):
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            patch[key] = _merge_patch_between(old[key], value)
        elif old.get(key, ...) != value or type(old.get(key)) is not type(value):
            patch[key] = value
    return patch


@given(_MAPS.map(without_nulls), _MAPS.map(without_nulls))
def test_the_merge_patch_between_two_objects_leads_from_one_to_the_other(old, new):
    assert patch_merge.apply(old, _merge_patch_between(old, new)) == new


_PATHS = st.sampled_from(["", "/a", "/b", "/a/b", "/a/0", "/a/-", "/a/1", "/b/a~1", "x/a", "/a/-1", "/c/c"])
_OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "frob"])},
    optional={"path": _PATHS, "from": _PATHS, "value": _TREES},
)


@given(_MAPS, st.lists(_OPERATIONS, max_size=4))
def test_any_json_patch_is_applied_or_refused_and_leaves_the_original_alone(document, operations):
    before = copy.deepcopy(document)
    try:
        patch_json.apply(document, operations)
    except StatusError as refused:
        code = refused.code
    else:
        code = 422
    assert (code, document) == (422, before)


_CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcd")},
        optional={"image": st.sampled_from("ij"), "args": st.lists(st.sampled_from("xy"), max_size=2)},
    ),
    max_size=4,
    unique_by=lambda container: container["name"],
)


@given(_CONTAINERS, _CONTAINERS)
def test_a_strategic_merge_keeps_every_container_once_and_each_patch_as_said(live, patch):
    shape = struct(scheme.POD.definition)
    merged = patch_strategic.apply({"spec": {"containers": live}}, {"spec": {"containers": patch}}, shape)["spec"][
        "containers"
    ]
    by_name = {container["name"]: container for container in merged}
    assert len(by_name) == len(merged)
    assert set(by_name) == {container["name"] for container in (*live, *patch)}
    for container in patch:
        assert container.items() <= by_name[container["name"]].items()
    assert [c["name"] for c in merged if c in patch or c["name"] in {p["name"] for p in patch}] == [
        p["name"] for p in patch
    ]


@given(_CONTAINERS, st.permutations("abcd"))
def test_set_element_order_orders_what_it_names(live, order):
    directive = {"spec": {"$setElementOrder/containers": [{"name": name} for name in order]}}
    merged = patch_strategic.apply({"spec": {"containers": live}}, directive, struct(scheme.POD.definition))
    assert [c["name"] for c in merged["spec"]["containers"]] == [
        name for name in order if name in {c["name"] for c in live}
    ]
