"""A served API and kubectls of two versions far apart: Debian's 1.20 and whatever newer one is installed."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from kubectls import NEW, OLD, Kubectl

from minikube_raw.apiserver import pki
from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore

NO_OLD = "Debian's kubernetes-client is not unpacked in .cache"


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serve an API in a thread of its own for all tests; they keep apart by namespaces."""
    directory = tmp_path_factory.mktemp("served")
    made = pki.load_or_create_pki(directory / "pki")
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def serve() -> None:
        store = SQLiteStore(directory / "store.sqlite")
        await store.open()
        options = Options(
            addresses=[("127.0.0.1", 0)],
            server_certificate=made.server,
            client_ca=made.ca,
            kubelet_client=made.kubelet_client,
            token_keys=made.token_keys,
        )
        server = APIServer(store, options)
        await server.start()
        stop = asyncio.Event()
        state.update(port=server.ports[0], loop=asyncio.get_running_loop(), stop=stop)
        ready.set()
        await stop.wait()
        await server.stop()
        await store.close()

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    path = directory / "kubeconfig"
    pair = pki.read_pair(made.admin)
    path.write_text(json.dumps(pki.kubeconfig(f"https://127.0.0.1:{state['port']}", made.authority.pem, pair)))
    yield path
    state["loop"].call_soon_threadsafe(state["stop"].set)
    thread.join(20)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discovery caches, one a version, kept over the tests."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(
    params=[
        pytest.param(str(OLD), id="1.20", marks=pytest.mark.skipif(not OLD.exists(), reason=NO_OLD)),
        pytest.param(NEW, id="new", marks=pytest.mark.skipif(not Path(NEW).exists(), reason="no kubectl is installed")),
    ]
)
async def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, homes: Path) -> Kubectl:
    """A kubectl whose current namespace is new and its own."""
    home = homes / Path(request.param).parent.name / str(request.param_index)
    home.mkdir(parents=True, exist_ok=True)
    name = f"t{abs(hash(request.node.nodeid)) % 10**10}"
    own = home / f"{name}.kubeconfig"
    shutil.copy(kubeconfig, own)
    made = Kubectl(request.param, own, home)
    await made("create", "namespace", name)
    # There are no controllers here, which would make it.
    await made("create", "serviceaccount", "default", f"--namespace={name}")
    await made("config", "set-context", "--current", f"--namespace={name}")
    return made
