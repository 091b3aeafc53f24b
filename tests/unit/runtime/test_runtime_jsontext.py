from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.runtime import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_a_value_is_written_as_the_standard_library_writes_it_and_comes_back(value: object) -> None:
    text = jsontext.dumps(value)

    assert text == json.dumps(value, separators=(",", ":"))
    assert jsontext.loads(text.encode()) == value


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "nope", '{"a":1} {"b":2}', '"\\ud8"'])
def test_what_is_not_one_json_value_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_what_has_no_json_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        jsontext.dumps({"socket": object()})
