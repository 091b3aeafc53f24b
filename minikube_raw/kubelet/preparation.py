"""What a container needs before the runtime is asked to create it: image, variables, volumes.

Everything that can be missing is found out here and comes back as one of three errors: ImageUnavailable,
env.ConfigError, MountError. The worker turns them into reasons, Events and another try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from minikube_raw.api.core import Container, Pod
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import convert, downward, env, projection
from minikube_raw.kubelet.images import ImageManager, NodeImage
from minikube_raw.kubelet.objects import ReferredObjects
from minikube_raw.kubelet.terminationmessages import TerminationMessages
from minikube_raw.kubelet.volumes import MountError, VolumeManager
from minikube_raw.runtime import cri


class Preparation:
    """Resolves what pods refer to, for all workers of a node."""

    def __init__(
        self,
        images: ImageManager,
        volumes: VolumeManager,
        objects: ReferredObjects,
        node: Callable[[], convert.NodeFacts],
        clock: Clock,
    ) -> None:
        self._images = images
        self._volumes = volumes
        self._objects = objects
        self._node = node
        self._clock = clock
        self.messages = TerminationMessages(volumes.pod_dir)
        self.image_names: dict[str, tuple[str, str]] = {}  # image id → (image, imageID) as statuses show them

    async def volumes(self, pod: Pod) -> None:
        """Set up the pod's volumes, or refresh them. Raises MountError."""
        if not pod.spec.volumes:
            return
        node = self._node()
        try:
            referred = await self._objects.of(pod)
        except TimeoutError:
            why = "failed to sync configmap cache: timed out waiting for the condition"
            raise MountError(pod.spec.volumes[0].name, why) from None
        sources = projection.Sources(referred, downward.Addresses(node.ip), node.allocatable)
        await asyncio.to_thread(self._volumes.set_up, pod, sources)

    async def container(self, pod: Pod, wanted: Container, sandbox: cri.PodSandboxStatus) -> convert.Prepared:
        """Image, variables and mounts of one container. Raises ImageUnavailable, env.ConfigError."""
        node = self._node()
        image = await self._images.ensure(pod, wanted, self._clock.now())
        self.image_names[image.id] = _names(wanted, image)
        _check_non_root(pod, wanted, image.config.user)
        at = downward.Addresses(node.ip, (node.ip,) if pod.spec.host_network else sandbox.ips)
        variables = convert.variables(pod, wanted, await self._referred(pod), at, node)
        mounts = await asyncio.to_thread(self._volumes.mounts, pod, wanted, variables)
        return convert.Prepared(image=image.id, envs=variables, mounts=mounts)

    async def release(self, uid: str, pod: Pod | None) -> None:
        """The pod is gone: let go of its objects and its directories."""
        self._objects.release(uid)
        if pod is not None:
            self._images.forget(pod)
        await asyncio.to_thread(self._volumes.tear_down, uid)

    async def _referred(self, pod: Pod) -> env.Referred:
        try:
            return await self._objects.of(pod)
        except TimeoutError:
            raise env.ConfigError("failed to sync configmap cache: timed out waiting for the condition") from None


def _names(wanted: Container, image: NodeImage) -> tuple[str, str]:
    """(image, imageID): the canonical name; a repository with the manifest's digest, or the image's own id."""
    name = image.references[0] if image.references else wanted.image
    repository = name.split("@")[0].rpartition(":")[0] if image.references else ""
    return name, f"{repository}@{image.digest}" if repository and image.digest else image.id


def _check_non_root(pod: Pod, wanted: Container, image_user: str) -> None:
    """runAsNonRoot. Raises env.ConfigError in upstream's words (pkg/kubelet/kuberuntime/security_context.go)."""
    own, shared = wanted.security_context, pod.spec.security_context
    asked = own.run_as_non_root if own is not None and own.run_as_non_root is not None else shared.run_as_non_root
    if not asked:
        return
    uid = own.run_as_user if own is not None and own.run_as_user is not None else shared.run_as_user
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {wanted.name})'
    user = image_user.split(":")[0]
    if uid == 0:
        raise env.ConfigError(f"container's runAsUser breaks non-root policy {where}")
    if uid is None and user in ("", "0", "root"):
        raise env.ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if uid is None and not user.isdigit():
        text = f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        raise env.ConfigError(f"{text} {where}")
