"""Protobuf: recorded bodies of kube-apiserver v1.36 both ways, every kind of the table there and back, and hostile bytes."""

import base64
import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minikube_raw.api import protobuf, protobuf_fields, protobuf_wire, schema, scheme
from minikube_raw.api.protobuf_messages import UnknownKind

FIXTURE = Path(__file__).parents[2] / "fixtures" / "api" / "protobuf.jsonl"
RECORDED = {row["name"]: row for row in map(json.loads, FIXTURE.read_text().splitlines())}
OBJECTS = {name: row for name, row in RECORDED.items() if name != "watch frame"}
DEPLOYMENT = base64.b64decode(RECORDED["/apis/apps/v1/namespaces/default/deployments/d1"]["protobuf"])

# What Go's JSON has and its protobuf does not carry: type names inside objects, nil instead of no items, spaces in raw JSON.
NOT_IN_PROTOBUF = {
    "/apis/apps/v1/namespaces/default/statefulsets/ss1": lambda obj: [
        [claim.pop("kind"), claim.pop("apiVersion")] for claim in obj["spec"]["volumeClaimTemplates"]
    ],
    "empty PodList": lambda obj: obj.update(items=None),
}
OTHER_BYTES = {"/apis/apps/v1/namespaces/default/controllerrevisions/m"}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_recorded_body_reads_as_its_json(name):
    expected = json.loads(json.dumps(OBJECTS[name]["json"]))
    NOT_IN_PROTOBUF.get(name, lambda obj: None)(expected)
    assert protobuf.decode(base64.b64decode(OBJECTS[name]["protobuf"])) == expected


@pytest.mark.parametrize("name", sorted(OBJECTS.keys() - OTHER_BYTES))
def test_an_object_is_written_byte_for_byte_as_recorded(name):
    assert protobuf.encode(OBJECTS[name]["json"]) == base64.b64decode(OBJECTS[name]["protobuf"])


def test_a_watch_frame_is_as_recorded():
    event, recorded = RECORDED["watch frame"]["json"], base64.b64decode(RECORDED["watch frame"]["protobuf"])
    assert protobuf.frame(event["type"], protobuf.encode(event["object"])) == recorded
    assert protobuf.unframe(recorded + recorded[:9]) == ([event], recorded[:9])


def test_a_list_is_its_items_messages():
    pod = RECORDED["/api/v1/namespaces/default/pods/r4"]["json"]
    metadata = {"resourceVersion": "7", "remainingItemCount": 3}
    written = protobuf.encode_list("v1", "PodList", metadata, [protobuf.message(pod, "v1", "Pod")] * 2)
    items = [{name: value for name, value in pod.items() if name not in ("kind", "apiVersion")}] * 2
    assert protobuf.decode(written) == {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}


@pytest.mark.parametrize("kind", scheme.KINDS, ids=lambda kind: f"{kind.api_version} {kind.kind}")
def test_every_served_kind_its_list_and_what_travels_in_its_subresources_are_known(kind):
    assert protobuf.supports(kind.api_version, kind.kind)
    assert protobuf.supports(kind.api_version, kind.kind + "List")
    for subresource in kind.subresources:
        version = f"{subresource.group}/{subresource.version}" if subresource.group else kind.api_version
        assert protobuf.supports(version, subresource.kind)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("v1", "Status"), ("v1", "DeleteOptions"), ("apps/v1", "DeleteOptions"), ("meta.k8s.io/v1", "PartialObjectMetadata"),
     ("authorization.k8s.io/v1", "SelfSubjectRulesReview"), ("authentication.k8s.io/v1", "SelfSubjectReview")],
)  # fmt: skip
def test_kinds_without_storage_are_known(api_version, kind):
    assert protobuf.supports(api_version, kind)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("v1", "Table"), ("meta.k8s.io/v1", "Table"), ("apps.example.com/v1", "Deployment"), ("apps/v2", "Deployment"),
     ("apps/v1", "Status"), ("v1", "PodSpec"), ("", "")],
)  # fmt: skip
def test_other_kinds_are_not_known(api_version, kind):
    assert not protobuf.supports(api_version, kind)
    with pytest.raises(UnknownKind):
        protobuf.encode({"apiVersion": api_version, "kind": kind})


def test_the_kind_of_a_body_that_names_none_is_the_expected_one():
    body = protobuf.envelope("", "", protobuf.message({"metadata": {"name": "a"}}, "v1", "Namespace"))
    assert protobuf.decode(body, "v1", "Namespace")["metadata"] == {"name": "a"}


def test_zeros_are_kept_where_go_has_pointers_and_dropped_where_json_omits_them():
    spec = {"replicas": 0, "paused": False, "minReadySeconds": 0, "selector": None, "template": {}}
    written = protobuf.encode({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec})
    assert protobuf.decode(written)["spec"] == {
        "replicas": 0,
        "selector": None,
        "template": {"metadata": {}, "spec": {"containers": None}},
        "strategy": {},
    }


@pytest.mark.parametrize(
    ("field", "sent", "shown"),
    [
        ("creationTimestamp", "2026-01-31T10:30:00.5+01:00", "2026-01-31T09:30:00Z"),
        ("deletionTimestamp", "0001-01-01T00:00:00Z", None),
        ("deletionTimestamp", "0987-06-05T04:03:02Z", "0987-06-05T04:03:02Z"),
        ("deletionTimestamp", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        ("generation", -(2**63), -(2**63)),
        ("labels", {"ü": "\x7f", "": ""}, {"ü": "\x7f", "": ""}),
        ("managedFields", [{"fieldsV1": {"f:a": {".": {}}}}], [{"fieldsV1": {"f:a": {".": {}}}}]),
    ],
)
def test_a_value_survives(field, sent, shown):
    written = protobuf.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": {field: sent}})
    assert protobuf.decode(written)["metadata"] == {field: shown}


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": "three"},
        {"replicas": True},
        {"template": []},
        {"paused": "yes", "selector": 3},
        {"minReadySeconds": 1.5},
    ],
    ids=str,
)
def test_a_value_of_another_type_cannot_be_written(spec):
    with pytest.raises(ValueError):
        protobuf.encode({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec})


def test_an_object_within_a_raw_field_may_be_an_envelope_or_json():
    inner = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {}, "status": {}}
    data = protobuf.encode(inner)
    revision = {"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {}, "data": inner, "revision": 3}
    assert protobuf.decode(protobuf.encode(revision)) == revision
    assert protobuf.decode(protobuf.encode(revision | {"data": data})) == revision


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (b"k8s\0", "empty body"),
        (b"k8s\0\n\x10abc", "unexpected EOF"),
        (b"k8s\0\n" + b"\xff" * 11, "proto: integer overflow"),
        (b"k8s\0\x0b", "proto: illegal wireType 3"),
        (b"k8s\0\x00\x00", "proto: illegal tag 0 (wire type 0)"),
        (protobuf.envelope("v1", "Pod", b"\x08\x01"), "proto: wrong wireType = 0 for field metadata"),
        (protobuf.envelope("v1", "Pod", b"\x0a\x05\x42\x03\x08\x80\x80"), "unexpected EOF"),
        (protobuf.envelope("v1", "Pod", b"\x0a\x0d\x42\x0b\x08" + b"\xff" * 8 + b"\x7f\x10"), "unexpected EOF"),
        (protobuf.envelope("v1", "PodList", b"\x12\x00" * 100_001), "too many messages"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_malformed_body_is_refused_in_gos_words(body, message):
    with pytest.raises(ValueError) as refused:
        protobuf.decode(body)
    assert str(refused.value) == message


def test_envelopes_within_envelopes_end_somewhere():
    body = protobuf.envelope("v1", "Namespace", b"")
    for _ in range(100):
        body = protobuf.envelope(
            "apps/v1", "ControllerRevision", b"\x12" + protobuf_wire.delimited(b"\x0a" + protobuf_wire.delimited(body))
        )
    with pytest.raises(ValueError, match="exceeded max depth"):
        protobuf.decode(body)


@given(st.binary(max_size=64), st.integers(0, len(DEPLOYMENT)), st.integers(0, 64))
@settings(deadline=None, max_examples=500)
def test_hostile_bytes_are_refused_or_read_but_never_crash(noise, at, cut):
    for body in (
        DEPLOYMENT[:at] + noise + DEPLOYMENT[at + cut :],
        protobuf.envelope("v1", "Pod", noise),
        b"k8s\0" + noise,
    ):
        try:
            protobuf.decode(body)
        except (ValueError, UnknownKind):
            continue


# --- every kind of the table, with objects made from the table ---

_MOMENTS = st.datetimes(min_value=datetime(1, 1, 2))
_VALUES = {
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5).map(lambda raw: base64.b64encode(raw).decode()),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "Quantity": st.sampled_from(["0", "1", "100m", "1536Mi", "2Gi", "1k"]),
    "IntOrString": st.one_of(st.integers(0, 70_000), st.text(min_size=1, max_size=5)),
    "Time": _MOMENTS.map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "MicroTime": _MOMENTS.map(lambda moment: moment.isoformat(timespec="microseconds") + "Z"),
    "FieldsV1": st.dictionaries(st.sampled_from(["f:a", ".", "k:{}"]), st.just({}), min_size=1, max_size=2),
    "RawExtension": st.one_of(
        st.dictionaries(st.text(max_size=3), st.integers(0, 9), min_size=1, max_size=2), st.just([1.5])
    ),
}


def _value(draw, type_, depth):
    if type_ in _VALUES:
        return draw(_VALUES[type_])
    message = protobuf_fields.message(type_)
    return (
        _object(draw, message, depth - 1) if message.role != "list" else draw(st.lists(_VALUES["string"], max_size=2))
    )


def _object(draw, message, depth):
    """Draw an object as Go's JSON would show it: what is always shown is there, what is omitted when empty is not empty."""
    obj = {}
    for field in message.fields:
        inner = field.type.removeprefix("*").removeprefix("[]").removeprefix("map[string]")
        nullable = field.type.startswith(("*", "[]", "map")) or inner == "bytes" or _is_named_list(inner)
        is_struct = inner not in ("string", "bytes", "int32", "int64", "bool") and not nullable
        if field.name == "-":
            obj |= _object(draw, protobuf_fields.message(inner), depth)
            continue
        if nullable and (depth <= 0 or draw(st.integers(0, 3)) != 0):
            if not field.omitted:
                obj[field.name] = None
            continue
        value = _filled(draw, field.type, inner, depth)
        if field.omitted and not value and not (is_struct and field.omitted == "?") and not field.type.startswith("*"):
            continue
        obj[field.name] = value
    return obj


def _is_named_list(inner):
    return inner not in _VALUES and protobuf_fields.message(inner).role == "list"


def _filled(draw, type_, inner, depth):
    if type_.startswith("[]"):
        return [_value(draw, inner, depth) for _ in range(draw(st.integers(1, 2)))]
    if type_.startswith("map"):
        return {key: _value(draw, inner, depth) for key in draw(st.sets(_VALUES["string"], min_size=1, max_size=2))}
    return _value(draw, inner, depth)


def _api_version(name):
    package, _, version = name.partition(".")[0].partition("/")
    groups = {package: group for group, package in protobuf_fields._PACKAGES.items()}
    group = "" if package in ("core", "meta") else groups[package]
    return f"{group}/{version}" if group else version


@pytest.mark.parametrize("name", sorted(set(protobuf_fields.kinds()) - {"meta/v1.List", "meta/v1.WatchEvent"}))
@given(data=st.data())
@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
def test_json_to_protobuf_and_back_is_the_same(name, data):
    obj = _object(data.draw, protobuf_fields.message(name), 4)
    obj |= {"apiVersion": _api_version(name), "kind": name.partition(".")[2]}
    written = protobuf.encode(obj)
    assert protobuf.decode(written) == obj
    assert protobuf.encode(protobuf.decode(written)) == written


# Fields that v1.34 to v1.36 added and whose numbers the table does not have: they do not travel in protobuf.
WITHOUT_NUMBER = {
    "core/v1.NodeStatus": {"declaredFeatures"},
    "core/v1.PodSpec": {"schedulingGroup"},
    "core/v1.PodStatus": {
        "allocatedResources",
        "extendedResourceClaimStatus",
        "nodeAllocatableResourceClaimStatuses",
        "resources",
    },
    "core/v1.ResourceHealth": {"message"},
    "core/v1.VolumeMountStatus": {"volumeStatus"},
    "meta/v1.ListMeta": {"shardInfo"},
    "storage/v1.CSIDriverSpec": {"preventPodSchedulingIfMissing", "serviceAccountTokenInSecrets"},
}


def _shown(name):
    for field in protobuf_fields.message(name).fields:
        yield from _shown(field.type) if field.name == "-" else [field.name]


def test_the_table_has_the_fields_of_the_published_schemas():
    missing = {}
    for definition, body in schema.definitions().items():
        *_, package, version, kind = definition.split(".")
        name = f"{package}/{version}.{kind}"
        if package == "resource" or name not in protobuf_fields._paragraphs():
            continue
        shown = set(_shown(name)) | {"apiVersion", "kind"}
        if unknown := set(body.get("properties", {})) - shown:
            missing[name] = unknown
    assert missing == WITHOUT_NUMBER
