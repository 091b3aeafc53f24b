"""Starts all controllers over one set of informers, as kube-controller-manager does in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Protocol

from minikube_raw.client.clock import Clock, SystemClock
from minikube_raw.client.informer import Informers
from minikube_raw.client.rest import Client
from minikube_raw.controllers.controller import Context
from minikube_raw.controllers.deployment import DeploymentController
from minikube_raw.controllers.ephemeralvolumes import EphemeralVolumeController
from minikube_raw.controllers.garbage import GarbageCollector
from minikube_raw.controllers.localprovisioner import LocalProvisioner
from minikube_raw.controllers.namespaces import NamespaceController
from minikube_raw.controllers.nodeipam import NodeIPAMController
from minikube_raw.controllers.nodelifecycle import NodeLifecycleController
from minikube_raw.controllers.options import Options
from minikube_raw.controllers.podgc import PodGCController
from minikube_raw.controllers.replicaset import ReplicaSetController
from minikube_raw.controllers.serviceaccounts import NamespaceContentsController
from minikube_raw.controllers.tainteviction import TaintEvictionController
from minikube_raw.controllers.volumebinder import VolumeBinder
from minikube_raw.controllers.volumeprotection import VolumeProtectionController

CONTROLLERS = (
    DeploymentController,
    ReplicaSetController,
    NodeIPAMController,
    NodeLifecycleController,
    TaintEvictionController,
    NamespaceController,
    NamespaceContentsController,
    GarbageCollector,
    PodGCController,
    EphemeralVolumeController,
    VolumeBinder,
    LocalProvisioner,
    VolumeProtectionController,
)


class Runnable(Protocol):
    """A controller."""

    async def run(self) -> None:
        """Work until cancelled."""
        ...


async def run(
    client: Client, options: Options, *, informers: Informers | None = None, clock: Clock | None = None
) -> None:
    """Run every controller until cancelled. Informers passed in are shared with, and run by, whoever made them."""
    chosen = clock or SystemClock()
    shared = informers or Informers(client, clock=chosen)
    context = Context(client, shared, chosen, options, {})
    controllers: list[Runnable] = [make(context) for make in CONTROLLERS]
    async with asyncio.TaskGroup() as tasks:
        if informers is None:
            tasks.create_task(shared.run(), name="informers")
        for recorder in context.recorders.values():
            tasks.create_task(recorder.run(), name="events")
        for controller in controllers:
            tasks.create_task(controller.run(), name=type(controller).__name__)
