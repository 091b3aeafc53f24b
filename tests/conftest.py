"""A cluster of three nodes for all tests that ask for one, whatever folder they are in.

Everything runs below a temporary state and run directory with a kubeconfig of its own, in the network and mount
namespace that `make cluster` gives the test runner.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator

import pytest

from tests import host
from tests.clusters import Cluster, need_root_and_loopback


def pytest_configure() -> None:
    """A shell starts what it puts into the background with SIGINT ignored; the commands that tests interrupt must heed it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, up for the whole session; afterwards the host must be as it was."""
    need_root_and_loopback()
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    before = host.snapshot()
    try:
        cluster.cli("up", "--nodes", "3")
        yield cluster
    finally:
        cluster.cli("down")
    assert host.difference(before, host.snapshot()) == {}, "down left something behind"


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, deleted without waiting afterwards."""
    words = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    name = f"{words}-{secrets.token_hex(3)}"
    manifest = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
    cluster.kubectl("create", "-f", "-", stdin=manifest)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def apply(cluster: Cluster, namespace: str) -> Callable[..., str]:
    """Apply a manifest in the test's namespace and return what kubectl printed."""

    def run(manifest: str, *arguments: str, binary: str | None = None) -> str:
        done = cluster.kubectl("-n", namespace, "apply", "-f", "-", *arguments, stdin=manifest, binary=binary)
        return done.stdout

    return run
