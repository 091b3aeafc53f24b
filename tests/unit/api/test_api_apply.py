"""Server-side apply and managedFields: the owners, conflicts and objects a real kube-apiserver answered with."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.api import apply, fieldset, managed_fields, scheme, structured, typed
from minikube_raw.api.managed_fields import APPLY, UPDATE, Manager
from minikube_raw.api.schema import struct
from minikube_raw.api.status import StatusError

_RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/api/managed_fields.json").read_text())
_TIME = "2020-01-01T00:00:00Z"


def is_part_of(made, recorded):
    """Whether the recorded object is `made` with defaults added."""
    if isinstance(made, dict) and isinstance(recorded, dict):
        return all(is_part_of(value, recorded.get(key)) for key, value in made.items())
    if isinstance(made, list) and isinstance(recorded, list):
        return len(made) == len(recorded) and all(map(is_part_of, made, recorded))
    return made in (recorded, "eA==") or made == {}


def write(kind, live, step):
    """Make one recorded write; return the object it leaves and who owns what."""
    shape, reset = struct(kind.definition), step.get("reset")
    operation = APPLY if "apply" in step else UPDATE
    manager = Manager(step["manager"], operation, kind.api_version, step.get("subresource", ""))
    if operation == UPDATE:
        return step["update"], managed_fields.update(shape, live, step["update"], manager, _TIME, reset)
    config, _ = apply.parse(json.dumps(step["apply"]).encode(), kind)
    obj = apply.apply(shape, live, config, manager, _TIME, force=step.get("force", False), reset=reset).obj
    owners = obj["metadata"].pop("managedFields", [])
    obj.pop("stringData", None)
    assert is_part_of(obj, step["result"])
    return step["result"], owners


@pytest.mark.parametrize(
    "scenario", [pytest.param(scenario, id=scenario["name"]) for scenario in _RECORDED["scenarios"]]
)
def test_writes_by_several_managers_leave_the_recorded_owners(scenario):
    kind, live = scheme.by_api_version(*scenario["kind"]), None
    for step in scenario["steps"]:
        if "refused" in step:
            with pytest.raises(StatusError) as refused:
                write(kind, live, step)
            assert [refused.value.code, refused.value.message] == step["refused"]
            continue
        obj, owners = write(kind, live, step)
        assert json.dumps(owners) == json.dumps(step["owners"]), "also in the recorded order"
        live = {**obj, "metadata": {**obj["metadata"], "managedFields": owners}}


def config_map(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


def test_kubectl_may_take_over_what_it_applied_without_the_servers_help():
    shape, kubectl = struct(scheme.CONFIG_MAP.definition), Manager("kubectl", APPLY, "v1")
    before = config_map(a="1")
    before["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps(config_map(a="1"))
    }
    by_client = Manager("kubectl-client-side-apply", UPDATE, "v1")
    before["metadata"]["managedFields"] = managed_fields.update(shape, None, before, by_client, _TIME)

    with pytest.raises(StatusError, match="conflict with"):
        apply.apply(shape, before, config_map(a="2"), Manager("other", APPLY, "v1"), _TIME)
    applied = apply.apply(shape, before, config_map(a="2"), kubectl, _TIME).obj
    assert applied["data"] == {"a": "2"}
    annotation = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(annotation) == config_map(a="2")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"foo": 1}, ".spec.foo: field not declared in schema"),
        ({"containers": {}}, ".spec.containers: expected list, got &{map[]}"),
        ({"containers": [None]}, ".spec.containers: element 0: associative list with keys may not have a null element"),
        ({"containers": [{"name": "c"}, {"name": "c"}]}, '.spec.containers: duplicate entries for key [name="c"]'),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}]},
            '.spec.containers[name="c"].ports: duplicate entries for key [containerPort=1,protocol="TCP"]',
        ),
        ({"hostNetwork": "x"}, '.spec.hostNetwork: expected boolean, got &value.valueUnstructured{Value:"x"}'),
    ],
)
def test_a_configuration_that_does_not_fit_the_type_is_refused_with_the_path(spec, text):
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    with pytest.raises(StatusError) as refused:
        apply.apply(struct(scheme.POD.definition), None, config, Manager("m", APPLY, "v1"), _TIME)
    assert (refused.value.code, refused.value.message) == (
        500,
        f"failed to create typed patch object (/p; /v1, Kind=Pod): {text}",
    )


# The algebra of sets, against sets of paths as Python has them.
_NAMES = st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}'])
_PATHSETS = st.frozensets(st.lists(_NAMES, min_size=1, max_size=3).map(tuple), max_size=6)


def as_fields(paths):
    fields = {}
    for path in paths:
        made = {path[-1]: {}}
        for name in reversed(path[:-1]):
            made = {name: made}
        fields = fieldset.union(fields, made)
    return fields


def as_paths(fields, prefix=()):
    for name, below in fields.items():
        if name != ".":
            if fieldset.is_member(below):
                yield (*prefix, name)
            yield from as_paths(below, (*prefix, name))


@given(_PATHSETS, _PATHSETS)
def test_field_sets_are_sets(left, right):
    mine, other = as_fields(left), as_fields(right)
    assert set(as_paths(mine)) == left
    assert set(as_paths(fieldset.union(mine, other))) == left | right
    assert set(as_paths(fieldset.difference(mine, other))) == left - right
    assert set(as_paths(fieldset.intersection(mine, other))) == left & right
    below = {path for path in left if not any(path[: len(gone)] == gone for gone in right)}
    assert set(as_paths(fieldset.without(mine, other))) == below
    assert fieldset.ordered(mine) == mine


_CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc"), "image": st.sampled_from("ij")}, optional={"tty": st.just(True)}
    ),
    min_size=1,  # structured-merge-diff lets nobody own an empty list
    max_size=3,
    unique_by=lambda container: container["name"],
)
_PODS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("v1"),
        "kind": st.just("Pod"),
        "metadata": st.fixed_dictionaries(
            {"name": st.just("p")},
            optional={"labels": st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), min_size=1)},
        ),
        "spec": st.fixed_dictionaries({}, optional={"containers": _CONTAINERS, "hostname": st.sampled_from("mn")}),
    }
)


@given(_PODS, _PODS)
def test_applying_twice_is_applying_once_and_one_manager_owns_exactly_what_it_applied(first, second):
    shape, manager = struct(scheme.POD.definition), Manager("m", APPLY, "v1")
    live = apply.apply(shape, None, first, manager, _TIME).obj
    once = apply.apply(shape, live, second, manager, _TIME).obj
    again = apply.apply(shape, once, second, manager, "2030-01-01T00:00:00Z")
    assert (again.obj, again.changed) == (once, False)
    once["metadata"].pop("managedFields", None)
    assert once == typed.read(shape, second), "what it no longer mentions is gone"


@given(_PODS, _PODS)
def test_what_two_managers_apply_by_force_holds_both_the_second_winning(first, second):
    shape = struct(scheme.POD.definition)
    live = apply.apply(shape, None, first, Manager("one", APPLY, "v1"), _TIME).obj
    both = apply.apply(shape, live, second, Manager("two", APPLY, "v1"), _TIME, force=True).obj
    both["metadata"].pop("managedFields", None)
    assert both == typed.read(shape, structured.merge(shape, typed.read(shape, first), second))


@given(_PODS, _PODS)
def test_an_update_owns_exactly_what_it_changed(first, second):
    shape = struct(scheme.POD.definition)
    old, new = typed.read(shape, first), typed.read(shape, second)
    old["metadata"]["managedFields"] = managed_fields.update(shape, None, old, Manager("one", UPDATE, "v1"), _TIME)
    owners = managed_fields.decode(managed_fields.update(shape, old, new, Manager("two", UPDATE, "v1"), _TIME))
    owned = {manager.name: entry.fields for manager, entry in owners.items()}
    if old["metadata"].pop("managedFields"):
        difference = structured.compare(shape, old, new)
        assert owned.get("two", {}) == managed_fields.stripped(difference.changed)
        assert not fieldset.intersection(owned.get("one", {}), difference.changed)
        assert not fieldset.intersection(owned.get("one", {}), difference.removed)
