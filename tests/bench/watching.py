"""Waiting for pods by watching the API, as long as a deadline allows and no longer than there is hope."""

from __future__ import annotations

import asyncio

from minikube_raw.api.core import Pod
from minikube_raw.client.resources import PODS
from minikube_raw.client.rest import Client, EventType

PATIENCE = 60.0


async def ready(client: Client, names: set[str] | None, *, count: int = 0, selector: str = "") -> None:
    """Wait until the named pods, or `count` pods of the selector, are Ready; RuntimeError when one of them fails."""
    async with asyncio.timeout(PATIENCE):
        page = await client.list(PODS, "default", label_selector=selector)
        done = {pod.metadata.name for pod in page.items if is_ready(pod)}

        def enough() -> bool:
            return names <= done if names is not None else len(done) >= count

        if enough():
            return
        version = page.metadata.resource_version
        async for _, found in client.watch(PODS, "default", resource_version=version, label_selector=selector):
            if names is None or found.metadata.name in names:
                refuse_failed(found)
            if is_ready(found):
                done.add(found.metadata.name)
            if enough():
                return


async def gone(client: Client, *names: str) -> None:
    """Wait until none of the pods is there."""
    async with asyncio.timeout(PATIENCE):
        page = await client.list(PODS, "default")
        left = {pod.metadata.name for pod in page.items} & set(names)
        if not left:
            return
        async for kind, found in client.watch(PODS, "default", resource_version=page.metadata.resource_version):
            if kind is EventType.DELETED:
                left.discard(found.metadata.name)
            if not left:
                return


def is_ready(pod: Pod) -> bool:
    """Whether the Ready condition is True."""
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)


def refuse_failed(pod: Pod) -> None:
    """RuntimeError for a pod that will never be Ready."""
    if pod.status.phase == "Failed":
        raise RuntimeError(f"pod {pod.metadata.name} failed: {pod.status.reason}: {pod.status.message}")
