"""How long pods have when their machine shuts down, and in which order they go."""

from __future__ import annotations

import pytest
from pod_builders import pod

from minikube_raw.kubelet.shutdownperiods import Period, grace, periods, phases

CRITICAL = 2_000_000_000


def test_without_a_grace_period_a_node_has_no_periods() -> None:
    assert periods(0, 0, {}) == ()


def test_critical_pods_have_the_end_of_the_whole_period() -> None:
    assert periods(30, 10, {}) == (Period(0, 20), Period(CRITICAL, 10))


def test_periods_by_priority_are_sorted_and_instead_of_both() -> None:
    assert periods(0, 0, {"1000": "1m", "-5": "10s", "10": "0s"}) == (Period(-5, 10), Period(10, 0), Period(1000, 60))


@pytest.mark.parametrize(
    ("whole", "critical", "listed"),
    [
        pytest.param(10, 20, {}, id="more for critical pods than for all"),
        pytest.param(0.5, 0, {}, id="less than a second"),
        pytest.param(10, 0.5, {}, id="less than a second for critical pods"),
        pytest.param(10, 0, {"0": "5s"}, id="both ways"),
        pytest.param(0, 0, {"high": "5s"}, id="a priority that is none"),
        pytest.param(0, 0, {"0": "soon"}, id="a duration that is none"),
    ],
)
def test_periods_that_cannot_be_are_refused(whole: float, critical: float, listed: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        periods(whole, critical, listed)


@pytest.mark.parametrize(
    ("priority", "period"),
    [(-1, 10), (0, 10), (9, 10), (10, 20), (99, 20), (100, 30), (CRITICAL, 30)],
)
def test_a_pod_goes_in_the_last_period_that_its_priority_reaches_or_else_in_the_first(
    priority: int, period: int
) -> None:
    own = pod(priority=priority)
    assert phases((Period(5, 10), Period(10, 20), Period(100, 30)), [own]) == [
        (Period({10: 5, 20: 10, 30: 100}[period], period), [own])
    ]


def test_periods_without_pods_are_left_out_and_the_others_follow_by_priority() -> None:
    low, high = pod(priority=0), pod(priority=CRITICAL)
    three = (Period(0, 1), Period(1000, 2), Period(CRITICAL, 3))
    assert phases(three, [high, low]) == [(Period(0, 1), [low]), (Period(CRITICAL, 3), [high])]


def test_a_pods_own_grace_holds_where_it_is_shorter() -> None:
    assert grace(Period(0, 20), pod(terminationGracePeriodSeconds=5)) == 5
    assert grace(Period(0, 20), pod(terminationGracePeriodSeconds=600)) == 20
