"""Hints merged by each policy: the cases that Kubernetes has for its own (pkg/kubelet/cm/topologymanager/policy_test.go)."""

from __future__ import annotations

import pytest

from minikube_raw.kubelet.numa import NUMANode
from minikube_raw.kubelet.topologyhints import (
    ANY,
    BEST_EFFORT,
    NONE,
    RESTRICTED,
    SINGLE,
    Hint,
    admits,
    merge,
    sets_of,
)

NEAR, BESIDE, FAR = 11, 12, 30
# Two halves of two pairs: the distances of Kubernetes' own tests.
EIGHT = tuple(
    NUMANode(
        one,
        {},
        {
            other: 10 if one == other else NEAR if one // 2 == other // 2 else BESIDE if one // 4 == other // 4 else FAR
            for other in range(8)
        },
    )
    for one in range(8)
)
FOUR, TWO = EIGHT[:4], EIGHT[:2]


def hint(text: str) -> Hint:
    """ "01" prefers nodes 0 and 1, "01-" does not; "*" is any."""
    nodes = text.rstrip("-")
    return Hint(None if nodes == "*" else frozenset(map(int, nodes)), not text.endswith("-"))


def resource(texts: str) -> list[Hint]:
    return [hint(text) for text in texts.split()]


MERGED = [
    pytest.param(["0"], "0", id="one hint"),
    pytest.param(["0", "0"], "0", id="the same node"),
    pytest.param(["0", "1"], "01-", id="no common node"),
    pytest.param(["0", "0-"], "0-", id="preferred by one"),
    pytest.param(["0 1", "0"], "0", id="one of two"),
    pytest.param(["0 1", "0 1"], "0", id="the lower of two"),
    pytest.param(["0 1", "01-"], "0-", id="a wider one that is not preferred"),
    pytest.param(["01", "0 1 01-"], "01-", id="one needs both, the other prefers one: two are enough, not one"),
    pytest.param(["*"], "01", id="any node"),
    pytest.param(["*-"], "01-", id="any node, not preferred"),
    pytest.param([], "01", id="nobody cares"),
]


@pytest.mark.parametrize(("resources", "best"), MERGED)
@pytest.mark.parametrize("policy", [BEST_EFFORT, RESTRICTED])
def test_the_narrowest_preferred_combination_is_best(policy: str, resources: list[str], best: str) -> None:
    assert merge(policy, [{text: resource(text)} for text in resources], TWO) == hint(best)


def test_a_provider_without_a_preference_and_one_without_a_place() -> None:
    assert merge(BEST_EFFORT, [{"cpu": resource("0 1 01-")}, {}], TWO) == hint("0")
    assert merge(BEST_EFFORT, [{"cpu": resource("0 1 01-")}, {"memory": []}], TWO) == hint("0-")


@pytest.mark.parametrize(
    ("resources", "best", "closest"),
    [
        pytest.param(["0123- 01-", "01-"], "01-", "01-", id="1"),
        pytest.param(["0123- 01-", "03-"], "03-", "03-", id="2"),
        pytest.param(["0123- 01-", "12-"], "12-", "12-", id="3"),
        pytest.param(["0123- 01-", "23-"], "23-", "23-", id="4"),
        pytest.param(["0123- 01-", "12- 23-"], "12-", "23-", id="5"),
        pytest.param(["0123- 01-", "123- 12- 13- 23-"], "12-", "23-", id="6"),
    ],
)
def test_of_what_nobody_prefers_as_many_nodes_as_the_most_demanding_needs_are_best(
    resources: list[str], best: str, closest: str
) -> None:
    given = [{text: resource(text)} for text in resources]
    assert merge(BEST_EFFORT, given, FOUR) == hint(best)
    assert merge(BEST_EFFORT, given, EIGHT, closest=True) == hint(closest)


@pytest.mark.parametrize(
    ("resources", "best"),
    [
        pytest.param(["04 02", "04 02"], "02", id="of as many the nearest"),
        pytest.param(["4 02", "4 02"], "4", id="fewer before nearer"),
    ],
)
def test_closest_nodes_are_preferred_where_that_is_asked_for(resources: list[str], best: str) -> None:
    given = [{str(number): resource(text)} for number, text in enumerate(resources)]
    assert merge(RESTRICTED, given, EIGHT, closest=True) == hint(best)


@pytest.mark.parametrize(
    ("resources", "best"),
    [
        pytest.param([], ANY, id="nobody cares"),
        pytest.param(["*"], ANY, id="any node"),
        pytest.param(["*-"], Hint(None, False), id="any node, not preferred"),
        pytest.param(["0", "1"], Hint(None, False), id="no common node"),
        pytest.param(["0", "0-"], Hint(None, False), id="preferred by one"),
        pytest.param(["0 1", "01-"], Hint(None, False), id="one needs two nodes"),
        pytest.param(["01", "0 1 01-"], Hint(None, False), id="one prefers two nodes"),
        pytest.param(["0 1 01-", "*"], hint("0"), id="one does not care"),
    ],
)
def test_a_single_node_is_one_that_everybody_prefers_alone(resources: list[str], best: Hint) -> None:
    merged = merge(SINGLE, [{str(number): resource(text)} for number, text in enumerate(resources)], TWO)
    assert merged == best
    assert admits(SINGLE, merged) == best.preferred


def test_only_strict_policies_refuse_what_is_not_preferred() -> None:
    assert [admits(policy, hint("0-")) for policy in (NONE, BEST_EFFORT, RESTRICTED, SINGLE)] == [
        True,
        True,
        False,
        False,
    ]


def test_sets_of_nodes_come_smallest_first() -> None:
    assert [sorted(each) for each in sets_of({2, 0, 1})] == [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
