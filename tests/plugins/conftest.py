from __future__ import annotations

import pytest

from tests.netns import NetworkNamespace


@pytest.fixture
def host():
    """The namespace in which bridges are made: a host of the test's own."""
    with NetworkNamespace() as namespace:
        yield namespace


@pytest.fixture
def make_pod():
    """Makes pods' namespaces and ends them with the test."""
    made = []

    def make() -> NetworkNamespace:
        made.append(NetworkNamespace())
        return made[-1]

    yield make
    for pod in made:
        pod.close()


@pytest.fixture
def pod(make_pod):
    return make_pod()
