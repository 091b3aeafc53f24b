"""Bodies decoded as a real kube-apiserver decoded them: what is refused with which words, what is warned about, what is kept."""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.api import decode, json_text, scheme, status, typed, yaml_text
from minikube_raw.api.schema import struct
from minikube_raw.api.status import JSON, YAML, StatusError

_RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/api/decode.json").read_text())


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in _RECORDED["cases"]])
def test_a_body_is_taken_or_refused_as_kube_apiserver_did(case):
    kind = scheme.by_api_version(*case["kind"])
    body = base64.b64decode(case["base64"]) if "base64" in case else case["body"].encode()
    message, warnings, code = None, [], 400
    try:
        decoded = decode.decode(body, case["media"], kind)
        if case.get("strict") and decoded.strict:
            raise decode.strict_error(decoded, kind)
        warnings = list(decoded.strict)
    except StatusError as refused:
        message, code = refused.message, refused.code
    assert (message, warnings, code) == (case.get("message"), case.get("warnings", []), 400)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"kind":"Pod","x":' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_deep_nesting_is_refused_and_not_survived_by_luck(body):
    with pytest.raises(StatusError, match="exceeded max depth"):
        decode.decode(body, JSON, scheme.POD)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", json_text.END),
        ('{"a"', json_text.END),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('["\t"]', r"invalid character '\t' in string literal"),
        (r'["\x"]', "invalid character 'x' in string escape code"),
        (r'["\u12g4"]', r"invalid character 'g' in \u hexadecimal character escape"),
        ("[tru]", "invalid character ']' in literal true (expecting 'e')"),
        ("[1.]", "invalid character ']' after decimal point in numeric literal"),
        ("[1e]", "invalid character ']' in exponent of numeric literal"),
        ("[-]", "invalid character ']' in numeric literal"),
        ("[01]", "invalid character '1' after array element"),
        ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
    ],
)
def test_malformed_json_is_named_as_go_names_it(text, error):
    with pytest.raises(json_text.JSONError) as refused:
        json_text.decode(text.encode())
    assert str(refused.value) == error


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES, st.booleans())
def test_keys_are_never_called_repeated_when_they_are_not(value, ascii_only):
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    decoded = json_text.decode(body)
    if json_text.may_repeat_keys(body, decoded):
        assert "duplicate" not in str(decode.objections(struct(scheme.POD.definition), body))


@given(st.text(alphabet='{}[]",:0129.eE+-tfnulrasy\\ \n', max_size=20))
def test_any_text_is_decoded_or_refused_as_the_standard_library_does(text):
    try:
        expected = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    except ValueError:
        with pytest.raises(json_text.JSONError):
            json_text.decode(text.encode())
    else:
        assert json_text.decode(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "\ufffd"), (r'"\udc00x\ud83d"', "\ufffdx\ufffd"), (r'"\ud83d\ude00"', "\U0001f600"), (r'"\\ud800"', r"\ud800"),
        ("9" * 30, int("9" * 30)), ("9" * 5000, float("inf")), ("-" + "9" * 5000, float("-inf")),
    ],
)  # fmt: skip
def test_what_only_go_reads_is_read_as_go_does(text, value):
    assert json_text.decode(text.encode()) == value
    assert json_text.with_pairs(text.encode()) == value


def test_half_a_surrogate_pair_is_stored_as_the_replacement_character():
    body = rb'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"\ud800"}}'
    decoded = decode.decode(body, JSON, scheme.by_api_version("v1", "ConfigMap"))
    assert (decoded.obj["data"], decoded.strict) == ({"a": "\ufffd"}, ())


def test_a_number_of_thousands_of_digits_is_refused_in_gos_words():
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","generation":%b}}' % (b"9" * 5000)
    with pytest.raises(StatusError, match=r"^ConfigMap in version .* cannot unmarshal number 9{5000} into .* int64$"):
        decode.decode(body, JSON, scheme.by_api_version("v1", "ConfigMap"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True), ("No", False), ("on", True), ("yes", True), ("1e3", 1000.0), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"),
        ("010", 8), ("0x1f", 31), ("1_000", 1000), ("~", None), ("", None), ("1.", 1.0), ("'1'", "1"), ("08", 8.0),
    ],
)  # fmt: skip
def test_yaml_scalars_are_what_go_yaml_takes_them_for(text, value):
    decoded, _ = yaml_text.decode(f"a: {text}\n".encode())
    assert decoded == {"a": value}


def test_yaml_keys_become_strings_and_repeated_ones_are_reported():
    assert yaml_text.decode(b"1: a\ntrue: b\n1.5: c") == ({"1": "a", "true": "b", "1.5": "c"}, [])
    assert yaml_text.decode(b"a: 1\na: 2") == ({"a": 2}, ['line 2: key "a" already set in map'])
    assert yaml_text.decode(b"a: &x {b: 1}\nc:\n  <<: *x\n  d: 2") == ({"a": {"b": 1}, "c": {"b": 1, "d": 2}}, [])


@pytest.mark.parametrize(
    "body",
    [
        b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c,*%c]\n" % (i + 1, i + 1, i, i, i) for i in range(97, 115)),
        b"a: &a [*a]",
        b"[" * 10_000,
        b"[" * 1_000_000,
        b"{a: " * 500_000,
        b"- " * 500_000,
        b"a: b: c",
        b"\t- x",
        b"a: !!python/object/apply:os.system [true]",
    ],
)
def test_hostile_yaml_is_refused_quickly(body):
    with pytest.raises(yaml_text.YAMLError, match=r"^yaml: "):
        yaml_text.decode(body)


def test_what_the_server_stored_is_stored_the_same_again():
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {},
        "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {}, "env": [{"name": "A"}], "stdin": True}],
            "enableServiceLinks": False, "securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }  # fmt: skip
    assert typed.read(struct(scheme.POD.definition), pod) == pod


def test_nulls_and_zeroes_go_where_go_has_none():
    pod = {
        "metadata": {"name": "p", "labels": None, "annotations": {"a": None}},
        "spec": {
            "hostNetwork": False, "nodeName": "", "tolerations": [], "nodeSelector": {},
            "containers": [{"name": "c", "args": [None], "env": [None], "resources": {"limits": {"cpu": None}}}],
        },
    }  # fmt: skip
    clean = typed.read(struct(scheme.POD.definition), pod)
    assert clean["metadata"] == {"name": "p", "annotations": {"a": ""}}
    assert clean["spec"] == {
        "containers": [{"name": "c", "args": [""], "env": [{"name": ""}], "resources": {"limits": {"cpu": "0"}}}]
    }


def test_yaml_and_json_say_the_same(tmp_path):
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1", "b": "x\ny"}}
    as_json = decode.decode(msgspec.json.encode(manifest), JSON, scheme.CONFIG_MAP)
    as_yaml = decode.decode(msgspec.yaml.encode(manifest), YAML, scheme.CONFIG_MAP)
    assert as_json == as_yaml == decode.Decoded(manifest)


def test_statuses_survive_the_wire():
    refused = status.invalid(
        "apps", "Deployment", "d", [status.Cause("FieldValueRequired", "Required value", "spec.selector")]
    )
    received = status.from_json(refused.to_json())
    assert (received.code, received.reason, received.message) == (422, "Invalid", refused.message)
    assert received.details == refused.details
    assert refused.message == 'Deployment.apps "d" is invalid: spec.selector: Required value'
    assert status.from_json(b"<html>bad gateway", 502).message == "<html>bad gateway"
