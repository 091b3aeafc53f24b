"""Fixtures of those who judge plugins: a host and pods that are network namespaces and nothing else. For conftest files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.netns import NetworkNamespace

__all__ = ["host", "make_pod", "pod"]


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """The namespace in which bridges are made: a host of the test's own."""
    with NetworkNamespace() as namespace:
        yield namespace


@pytest.fixture
def make_pod() -> Iterator[Callable[[], NetworkNamespace]]:
    """Makes pods' namespaces and ends them with the test."""
    made: list[NetworkNamespace] = []

    def make() -> NetworkNamespace:
        made.append(NetworkNamespace())
        return made[-1]

    yield make
    for pod in made:
        pod.close()


@pytest.fixture
def pod(make_pod: Callable[[], NetworkNamespace]) -> NetworkNamespace:
    """A pod's namespace."""
    return make_pod()
