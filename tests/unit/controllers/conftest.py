"""A master in one process, real but for its nodes: API server over SQLite, scheduler and controllers on a clock that tests move."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from simulated import Kubelets

from minikube_raw.api import apps, core, scheme
from minikube_raw.api.meta import PartialObject
from minikube_raw.api.status import StatusError
from minikube_raw.apiserver import pki
from minikube_raw.apiserver.server import APIServer
from minikube_raw.apiserver.server import Options as ServerOptions
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.informer import Informers
from minikube_raw.client.kubeconfig import transport_from
from minikube_raw.client.resources import DEPLOYMENTS, NODES, PODS, REPLICA_SETS
from minikube_raw.client.rest import Client, Resource
from minikube_raw.client.transport import Transport
from minikube_raw.controllers import manager
from minikube_raw.controllers.options import Options
from minikube_raw.scheduler.scheduler import Scheduler
from minikube_raw.store.sqlite import SQLiteStore

_EVENTS = Resource(scheme.EVENT, core.Event)


class Master:
    """What tests say to and ask of the cluster."""

    def __init__(self, client: Client, clock: ManualClock, informers: Informers) -> None:
        self.client, self.clock, self.informers = client, clock, informers
        self.kubelets = Kubelets(client, informers, clock)

    async def apply(self, body: dict[str, Any]) -> Any:
        kind = scheme.by_api_version(body["apiVersion"], body["kind"])
        namespace = body["metadata"].get("namespace", "")
        return await self.client.create(Resource(kind, PartialObject), body, namespace)

    def pods(self, namespace: str = "default") -> list[core.Pod]:
        return [pod for pod in self.informers.of(PODS).cache.values() if pod.metadata.namespace == namespace]

    def places(self) -> Counter[str]:
        return Counter(pod.spec.node_name for pod in self.pods() if pod.metadata.deletion_timestamp is None)

    def deployment(self, name: str = "web") -> apps.Deployment | None:
        return self.informers.of(DEPLOYMENTS).get(f"default/{name}")

    def sets(self) -> list[apps.ReplicaSet]:
        return sorted(
            self.informers.of(REPLICA_SETS).cache.values(), key=lambda each: each.metadata.creation_timestamp or ""
        )

    def node(self, name: str) -> core.Node | None:
        return self.informers.of(NODES).get(name)

    async def events(self, reason: str = "", about: str = "") -> list[str]:
        found = (await self.client.list(_EVENTS)).items
        return [
            event.message
            for event in sorted(found, key=lambda event: event.metadata.name.rpartition(".")[2])
            if reason in ("", event.reason) and about in ("", event.involved_object.name)
        ]

    async def gone(self, resource: Resource[Any], name: str, namespace: str = "default") -> bool:
        try:
            await self.client.get(resource, name, namespace)
        except StatusError as error:
            return error.code == 404
        return False

    def rolled_out(self, name: str = "web") -> bool:
        found = self.deployment(name)
        if found is None or found.status.observed_generation < found.metadata.generation:
            return False
        status, size = found.status, found.spec.replicas
        return (status.replicas, status.updated_replicas, status.available_replicas) == (size, size, size)


@pytest.fixture
def options() -> Options:
    return Options(root_ca="CERTIFICATE")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def cluster_pki(tmp_path_factory):
    return pki.load_or_create_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["in process", "https"])
def transport_to(request, tmp_path, cluster_pki):
    """Return a function that makes a transport to a server: both kinds must behave alike (and do, in every test here)."""

    def make(server: APIServer) -> Transport:
        user = "system:kube-controller-manager"
        if request.param == "in process":
            return server.local_transport(user)
        pair = pki.issue(cluster_pki.authority, user, client=True)
        config = pki.kubeconfig(f"https://127.0.0.1:{server.ports[0]}", cluster_pki.authority.pem, pair)
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return transport_from(path)

    return make


@pytest.fixture
async def master(tmp_path, options, clock, cluster_pki, transport_to):
    """Yield a running master without nodes; whatever of it fails, fails the test."""
    store = SQLiteStore(tmp_path / "store.sqlite")
    await store.open()
    served = ServerOptions(
        clock=lambda: datetime.fromtimestamp(clock.now(), UTC),
        addresses=[("127.0.0.1", 0)],
        server_certificate=cluster_pki.server,
        client_ca=cluster_pki.ca,
    )
    server = APIServer(store, served)
    await server.start()
    client = Client(transport_to(server))
    informers = Informers(client, clock=clock)
    master = Master(client, clock, informers)
    loops = [
        manager.run(client, options, informers=informers, clock=clock),
        Scheduler(client, informers, clock=clock, seed=1).run(),
        master.kubelets.run(),
        informers.run(),
    ]
    tasks = [asyncio.create_task(loop) for loop in loops]
    await informers.wait_synced()
    yield master
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()
    await server.stop()
    await store.close()
    assert [result for result in results if isinstance(result, Exception)] == []
