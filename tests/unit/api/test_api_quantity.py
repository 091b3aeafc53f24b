"""Quantities: recorded spellings, and that what is written reads back as the same amount."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.api import quantity
from minikube_raw.api.quantity import FORMAT_ERROR, SUFFIX_ERROR, QuantityError, parse


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("0.5", "500m"), ("1.", "1."), (".5", "500m"), ("1k", "1k"), ("1e3", "1e3"), ("1E3", "1E3"), ("1e-3", "1e-3"),
        ("1Mi", "1Mi"), (" 1", "1"), ("+1", "+1"), ("9223372036854775808", "9223372036854775808"), ("1E", "1E"),
        ("1Ei", "1Ei"), ("16Ei", "9223372036854775807"), ("1e100", "10e99"), ("1.5Gi", "1536Mi"), ("1000m", "1"),
        ("00", "0"), ("007", "007"), ("1024Ki", "1Mi"), ("0.001", "1m"), ("1e+3", "1e+3"), ("-1", "-1"),
        ("12345678901234567890123456789", "12345678901234567890123456789"), ("0.1n", "1n"), ("1.2345", "1234500u"),
        (0.5, "500m"), (1000.0, "1k"), (1, "1"), (1e20, "100e18"), ("1536Ki", "1536Ki"), ("0.5Ki", "512"),
        ("-1500m", "-1500m"),
    ],
)  # fmt: skip
def test_a_quantity_is_stored_as_kubernetes_spells_it(text, stored):
    assert quantity.canonical(text) == stored


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("banana", FORMAT_ERROR), ("", FORMAT_ERROR), ("1MB", FORMAT_ERROR), ("1,000", FORMAT_ERROR),
        ("1 Gi", FORMAT_ERROR),
        ("0x10", FORMAT_ERROR), ("NaN", FORMAT_ERROR), ("1.2.3", FORMAT_ERROR),
        ("1K", SUFFIX_ERROR), ("1ki", SUFFIX_ERROR),
        ("--1", SUFFIX_ERROR), ("1E+", SUFFIX_ERROR), ("1e999999999", SUFFIX_ERROR), ("١", FORMAT_ERROR),
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_in_kubernetes_words(text, message):
    with pytest.raises(QuantityError) as refused:
        parse(text)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [("100m", 1, 100), ("1.5", 2, 1500), ("-1.5", -2, -1500), ("1n", 1, 1), ("2Ki", 2048, 2048000)],
)
def test_whole_units_and_thousandths_are_rounded_away_from_zero(text, value, milli):
    assert (parse(text).value(), parse(text).milli()) == (value, milli)


def test_resources_are_stored_no_finer_than_milli():
    assert str(parse("1.0000000001").rounded_to_milli()) == "1001m"
    assert str(parse("1n").rounded_to_milli()) == "1m"
    assert str(parse("007").rounded_to_milli()) == "007"


_NUMBERS = st.from_regex(r"[+-]?([0-9]{1,25}(\.[0-9]{0,12})?|\.[0-9]{1,12})", fullmatch=True, alphabet="+-.0123456789")
_SUFFIXES = st.sampled_from(
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-6"]
)


@given(_NUMBERS, _SUFFIXES)
def test_the_stored_spelling_reads_back_as_the_same_amount_and_spelling(number, suffix):
    stored = quantity.canonical(number + suffix)
    assert parse(stored) == parse(number + suffix)
    assert quantity.canonical(stored) == stored


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_sums_and_order_are_those_of_integers(left, right):
    assert parse(f"{left}n") + parse(f"{right}n") == parse(f"{left + right}n")
    assert (parse(f"{left}n") < parse(f"{right}n")) == (left < right)
