"""Durations as Go writes them, in which a kubelet's messages have them."""

from __future__ import annotations

import pytest

from minikube_raw.api import times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0304, "30ms"),
        (1.5, "1.5s"),
        (2, "2s"),
        (80, "1m20s"),
        (300, "5m0s"),
        (62.25, "1m2.25s"),
        (7200, "2h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert times.duration(seconds) == text
