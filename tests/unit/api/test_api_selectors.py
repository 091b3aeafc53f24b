"""Label and field selectors: what they select, and what the API server says of those it cannot read."""

import pytest

from minikube_raw.api.meta import LabelSelector, LabelSelectorRequirement
from minikube_raw.api.selectors import NOTHING, SelectorError, from_labels, from_view, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "front", "rank": "7"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("app", True), ("!app", False), ("!nope", True), ("app=web", True), ("app==web", True),
        ("app!=web", False), ("nope!=x", True), ("app in (web,db)", True), ("app notin (web)", False),
        ("nope notin (web)", True), ("app in ()", False), ("rank>6", True), ("rank<7", False), ("app>1", False),
        ("app=web,tier=front", True), ("app=web,tier=back", False), ("app in (,web)", True), ("in in (a)", False),
        (" app = web ", True), ("nope=", False),
    ],
)  # fmt: skip
def test_a_label_selector_selects(text, selected):
    assert parse_labels(text).matches(LABELS) is selected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a=b,,c", "found ',', expected: identifier after ','"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
    ],
)
def test_a_label_selector_it_cannot_read_is_refused_in_kubernetes_words(text, message):
    with pytest.raises(SelectorError) as refused:
        parse_labels(text)
    assert str(refused.value) == message


def test_keys_and_values_follow_the_rules_for_labels():
    with pytest.raises(SelectorError, match=r'<nil>: Invalid value: "A_B.C/x": prefix part a lowercase RFC 1123'):
        parse_labels("A_B.C/x=1")
    with pytest.raises(SelectorError, match=r"a valid label must be"):
        parse_labels("a=_")


def test_a_manifests_selector_needs_labels_and_expressions():
    selector = from_view(
        LabelSelector(
            match_labels={"app": "web"},
            match_expressions=(
                LabelSelectorRequirement("tier", "NotIn", ("back",)),
                LabelSelectorRequirement("rank", "Exists"),
            ),
        )
    )
    assert selector.matches(LABELS)
    assert not selector.matches({**LABELS, "tier": "back"})
    assert str(selector) == "app=web,rank,tier notin (back)"
    assert from_view(None) == NOTHING
    assert not NOTHING.matches(LABELS)
    assert not from_labels({"app": "db"}).matches(LABELS)


@pytest.mark.parametrize("text", ["app=web,tier in (a,b),!x", "a!=b", "rank>6"])
def test_a_selector_written_out_reads_back_the_same(text):
    assert parse_labels(str(parse_labels(text))) == parse_labels(text)


def test_field_selectors_compare_for_equality_and_unescape():
    assert parse_fields(r"metadata.name=a\,b,status.phase!=Failed").matches(
        {"metadata.name": "a,b", "status.phase": "Running"}
    )
    assert parse_fields("spec.nodeName=").matches({"spec.nodeName": ""})
    assert parse_fields("spec.nodeName==n1").exact("spec.nodeName") == "n1"
    for text in ("metadata.name", "a in (b)"):
        with pytest.raises(SelectorError) as refused:
            parse_fields(text)
        assert str(refused.value) == f"invalid selector: '{text}'; can't understand '{text}'"
