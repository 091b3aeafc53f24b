"""Which CPUs a container gets: whole pieces stay whole as long as possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.kubelet import cputopology
from minikube_raw.kubelet.cputopology import CPU, parse, show, take

# Two sockets of four cores of two threads; thread n and n + 8 share a core, as Linux numbers them.
BIG = tuple(CPU(socket=n % 8 // 4, core=n % 4, number=n) for n in range(16))


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        ("0-15", 8, "0-3,8-11"),  # a socket
        ("0-15", 10, "0-4,8-12"),  # a socket and a core
        ("0-15", 2, "0,8"),  # a core
        ("0-15", 3, "0-1,8"),  # a core and half of another
        ("1-15", 1, "8"),  # the half that is left of a core
        ("1-15", 2, "1,9"),  # a core of the socket that is broken already
        ("4-7,9,12-15", 1, "9"),  # of the socket with the least left
        ("2,5,7", 3, "2,5,7"),
    ],
)
def test_what_is_taken_leaves_large_pieces_whole(free: str, count: int, chosen: str) -> None:
    assert show(take(BIG, parse(free), count)) == chosen


def test_a_container_that_starts_again_gets_the_same_if_they_are_free() -> None:
    assert show(take(BIG, parse("0-15"), 2, parse("5,6"))) == "5-6"
    assert show(take(BIG, parse("0-5,7-15"), 2, parse("5,6"))) == "4,12"


def test_more_than_are_free_is_an_error_in_the_kubelets_words() -> None:
    with pytest.raises(ValueError, match="not enough cpus available to satisfy request: requested=2, available=1"):
        take(BIG, parse("3"), 2)


@pytest.mark.parametrize("text", ["", "0", "0-2", "0,2-3,7", "0-15,128-255"])
def test_lists_are_written_as_the_kernel_writes_them(text: str) -> None:
    assert show(parse(text)) == text


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "1;2"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid list of CPUs"):
        parse(text)


@pytest.mark.parametrize(
    ("named", "millis", "found"), [("", 500, "0"), ("", 1001, "0,8"), ("3-4", 500, "3-4"), ("3", 0, "3")]
)
def test_reserved_are_those_that_are_named_or_as_many_as_are_kept(named: str, millis: int, found: str) -> None:
    assert show(cputopology.reserved_cpus(named, millis, BIG)) == found


@pytest.mark.parametrize(
    ("named", "millis", "why"), [("", 0, "greater than zero"), ("14-17", 0, "16-17 are not among")]
)
def test_a_node_must_keep_some_that_it_has(named: str, millis: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cputopology.reserved_cpus(named, millis, BIG)


def test_a_kernel_without_topology_has_a_core_for_each(tmp_path: Path) -> None:
    assert all(cpu.core == cpu.number and cpu.socket == 0 for cpu in cputopology.read(tmp_path))
