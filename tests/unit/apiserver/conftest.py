"""A server over a store in a temporary directory, and a client that speaks to it in process as an administrator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served_api import Api
from served_https import Served, serving

from minikube_raw.apiserver import pki
from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "store.sqlite")
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What a server needs to sign tokens."""
    return pki.load_or_create_pki(tmp_path_factory.mktemp("pki")).token_keys


@pytest.fixture
async def server(store: SQLiteStore) -> AsyncIterator[APIServer]:
    server = APIServer(store, Options(service_cidr="10.96.0.0/16"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def api(server: APIServer) -> Api:
    return Api(server)


@pytest.fixture
async def served(tmp_path: Path, store: SQLiteStore) -> AsyncIterator[Served]:
    async with serving(store, tmp_path / "pki") as made:
        yield made
