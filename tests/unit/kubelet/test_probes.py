"""Thresholds, order and due times of probes, and the words of their Events."""

from __future__ import annotations

import pytest

from minikube_raw.api.core import Probe
from minikube_raw.kubelet import probes
from minikube_raw.kubelet.probes import Kind, Outcome, Result, Streak


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        pytest.param("f", None, id="one failure of two says nothing"),
        pytest.param("ff", False, id="two in a row do"),
        pytest.param("fsf", None, id="a success between starts over"),
        pytest.param("ss", None, id="two successes of three say nothing"),
        pytest.param("ffsss", True, id="three do"),
        pytest.param("fff", False, id="and more of them stay so"),
    ],
)
def test_a_verdict_needs_equal_results_in_a_row(results: str, verdict: bool | None) -> None:
    probe, streak = Probe(failure_threshold=2, success_threshold=3), Streak()
    for each in results:
        streak = streak.after(each == "s")

    assert streak.verdict(probe) is verdict


@pytest.mark.parametrize(
    ("kind", "delay", "age", "ran", "due"),
    [
        pytest.param(Kind.READINESS, 0, 0.1, False, 0, id="readiness is asked at once"),
        pytest.param(Kind.READINESS, 5, 0.1, False, 4.9, id="or as soon as its delay is over"),
        pytest.param(Kind.READINESS, 0, 0.2, True, 1.8, id="then at every period after the container's start"),
        pytest.param(Kind.LIVENESS, 0, 0.1, False, 1.9, id="liveness gives the program a period"),
        pytest.param(Kind.LIVENESS, 5, 0.5, False, 4.5, id="or its delay, if that is longer"),
        pytest.param(Kind.LIVENESS, 1, 0.5, False, 1.5, id="a shorter delay changes nothing"),
        pytest.param(Kind.STARTUP, 0, 4.3, True, 1.7, id="a slow run is followed at the next period"),
    ],
)
def test_when_a_probe_runs(kind: Kind, delay: int, age: float, ran: bool, due: float) -> None:
    probe = Probe(initial_delay_seconds=delay, period_seconds=2)

    assert probes.next_due(kind, probe, age, ran=ran) == pytest.approx(due)


def test_a_timer_that_fires_a_moment_too_early_makes_no_second_run_in_the_same_period() -> None:
    """A refused connection is known at once: with a second run it would count twice."""
    assert probes.next_due(Kind.LIVENESS, Probe(period_seconds=2), 3.9991, ran=True) == pytest.approx(2.0009)


def test_events_are_in_the_kubelets_words() -> None:
    assert probes.event(Kind.LIVENESS, Result(Outcome.SUCCESS, "ok")) is None
    assert probes.event(Kind.READINESS, Result(Outcome.FAILURE, "no file\n")) == (
        "Unhealthy",
        "Readiness probe failed: no file\n",
    )
    assert probes.event(Kind.STARTUP, Result(Outcome.UNKNOWN, "gone")) == (
        "Unhealthy",
        "Startup probe errored and resulted in unknown state: gone",
    )
    assert probes.event(Kind.READINESS, Result(Outcome.WARNING, "x")) == ("ProbeWarning", "Readiness probe warning: x")
