"""What is left of a node for pods."""

from __future__ import annotations

import pytest

from minikube_raw.kubelet import nodecgroup, reserved

CAPACITY = {
    "cpu": "2",
    "ephemeral-storage": "264212084Ki",
    "hugepages-2Mi": "0",
    "memory": "24684092Ki",
    "pods": "110",
}


def test_without_reservations_pods_have_all_but_what_eviction_keeps_free() -> None:
    hard = {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"}
    left = reserved.allocatable(CAPACITY, [], hard)
    assert left == {**CAPACITY, "memory": "24581692Ki", "ephemeral-storage": "267847642276"}
    limits = nodecgroup.limits(CAPACITY, [], 32_768)
    assert (limits.memory_limit, limits.cpu_shares, limits.pids_limit) == (25_276_510_208, 2048, None)


def test_pods_may_swap_together_only_where_each_may() -> None:
    assert nodecgroup.limits(CAPACITY, [], 32_768).swap_limit is None
    assert nodecgroup.limits(CAPACITY, [], 32_768, swaps=True).swap_limit == -1


def test_both_reservations_count_and_nothing_goes_below_zero() -> None:
    taken = [{"cpu": "500m", "memory": "1Gi", "pid": "1000"}, {"cpu": "100m", "memory": "30Gi"}]
    assert reserved.allocatable(CAPACITY, taken, {}) | {"cpu": "1400m", "memory": "0"} == {
        **CAPACITY,
        "cpu": "1400m",
        "memory": "0",
    }
    assert nodecgroup.limits(CAPACITY, taken[:1], 32_768).pids_limit == 31_768


def test_what_is_kept_as_huge_pages_is_no_other_memory() -> None:
    kept = {**CAPACITY, "hugepages-2Mi": "1Gi"}
    assert reserved.allocatable(kept, [], {}) == {**kept, "memory": "23635516Ki"}


@pytest.mark.parametrize(
    ("flag", "given", "message"),
    [
        ("kube-reserved", {"disk": "1Gi"}, "--kube-reserved: disk is not one of cpu, memory, ephemeral-storage, pid"),
        ("system-reserved", {"cpu": "much"}, "--system-reserved: cpu: "),
        ("eviction-hard", {"memory": "1Gi"}, "--eviction-hard: memory is not one of memory.available"),
        ("eviction-hard", {"nodefs.available": "101%"}, "a percentage is between 0% and 100%"),
        ("eviction-soft-grace-period", {"memory.available": "soon"}, "invalid duration 'soon'"),
    ],
)
def test_a_wrong_reservation_is_refused_by_name(flag: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        reserved.check({flag: given})
    assert message in str(refused.value)


def test_durations_are_gos() -> None:
    assert [reserved.duration(text) for text in ("90s", "1m30s", "1h")] == [90, 90, 3600]
