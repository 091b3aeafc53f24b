"""What `up` asks of the API it has just started: are the nodes Ready, and may this sample be applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import yaml

from minikube_raw.api import scheme
from minikube_raw.api.core import Node
from minikube_raw.api.status import StatusError
from minikube_raw.client.resources import LEASES, NODES, resource_of
from minikube_raw.client.rest import Client, EventType, PatchType
from minikube_raw.machine.layout import ClusterRecord

KNOCK = 0.02  # seconds between two attempts to reach a master that is still starting


class NotReady(Exception):
    """The nodes named did not become Ready in time."""


async def wait_for_nodes(
    client: Client, record: ClusterRecord, booted: Collection[str], timeout: float, master_lives: Callable[[], bool]
) -> list[tuple[str, str]]:
    """Return (podCIDR, node address) of every node of the record once all are Ready.

    Raises NotReady after `timeout` seconds, and at once when the master has ended.

    Nodes in `booted` were switched on now: what their objects say from before counts only after a new heartbeat.
    """
    since = datetime.now(UTC)
    nodes: dict[str, Node] = {}
    try:
        async with asyncio.timeout(timeout):
            # A master that is still starting has nothing to wait on but its port.
            while not await _watch_until_ready(client, record, nodes):
                if not master_lives():
                    raise NotReady(f"the master of {record.name} has ended")
                await asyncio.sleep(KNOCK)
            for name in booted:
                while not await _has_heartbeat(client, name, since):  # noqa: ASYNC110
                    await asyncio.sleep(KNOCK)
    except TimeoutError:
        if not nodes:
            raise NotReady(f"the master of {record.name} did not answer within {timeout:.0f} s") from None
        missing = [node.name for node in record.nodes if not is_ready(nodes.get(node.name))]
        raise NotReady(f"after {timeout:.0f} s not Ready: {', '.join(missing)}") from None
    finally:
        await client.close()
    return [(nodes[node.name].spec.pod_cidr, node.ip) for node in record.nodes]


def is_ready(node: Node | None) -> bool:
    """Whether a Node has the Ready condition and a podCIDR."""
    if node is None or not node.spec.pod_cidr:
        return False
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)


async def _watch_until_ready(client: Client, record: ClusterRecord, nodes: dict[str, Node]) -> bool:
    """One list and watch; False when the master is not there yet or the watch ended early."""
    try:
        page = await client.list(NODES)
        nodes |= {node.metadata.name: node for node in page.items}
        if all(is_ready(nodes.get(node.name)) for node in record.nodes):
            return True
        async for kind, node in client.watch(NODES, resource_version=page.metadata.resource_version):
            if kind in (EventType.ADDED, EventType.MODIFIED):
                nodes[node.metadata.name] = node
            if all(is_ready(nodes.get(member.name)) for member in record.nodes):
                return True
    except (OSError, StatusError):  # not listening yet, or not serving yet
        return False
    return False


async def _has_heartbeat(client: Client, node: str, since: datetime) -> bool:
    try:
        lease = await client.get(LEASES, node, "kube-node-lease")
    except (OSError, StatusError):  # not created yet, or the master is being restarted
        return False
    renewed = lease.spec.renew_time
    return renewed is not None and datetime.fromisoformat(renewed) >= since


async def apply(client: Client, manifests: Path) -> None:
    """Apply every document of a YAML file, in the namespace it names or in default."""
    try:
        for document in yaml.load_all(manifests.read_bytes(), Loader=yaml.CSafeLoader):
            kind = scheme.by_api_version(document["apiVersion"], document["kind"])
            assert kind is not None, document["kind"]
            metadata = document["metadata"]
            namespace = metadata.get("namespace", "default") if kind.namespaced else ""
            await client.patch(
                resource_of(kind),
                metadata["name"],
                document,
                namespace,
                kind=PatchType.APPLY,
                field_manager="minikube-raw",
            )
    finally:
        await client.close()
