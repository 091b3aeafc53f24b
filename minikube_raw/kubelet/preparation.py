"""What a container needs before the runtime is asked to create it: image, variables, volumes.

Everything that can be missing is found out here and comes back as one of three errors: ImageUnavailable,
env.ConfigError, MountError. The worker turns them into reasons, Events and another try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from minikube_raw.api.core import Container, FileKeySelector, Pod
from minikube_raw.api.storage import PersistentVolume
from minikube_raw.api.volumes import ServiceAccountTokenProjection
from minikube_raw.client.clock import Clock
from minikube_raw.kubelet import convert, downward, env, envfiles, projection
from minikube_raw.kubelet.images import ImageManager, NodeImage
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.objects import ReferredObjects
from minikube_raw.kubelet.terminationmessages import TerminationMessages
from minikube_raw.kubelet.tokens import TokenError, Tokens
from minikube_raw.kubelet.volumes import VolumeManager, needs_a_look
from minikube_raw.runtime import cri
from minikube_raw.runtime.emptying import Emptying


class ClaimSource(Protocol):
    """Who knows the volumes behind a pod's claims: `persistent.Claims`, or `givenvolumes.GivenClaims`."""

    async def of(self, pod: Pod) -> dict[str, PersistentVolume]:
        """By the name of the pod's volume. Raises MountError."""
        ...


class Preparation:
    """Resolves what pods refer to, for all workers of a node."""

    def __init__(
        self,
        images: ImageManager,
        volumes: VolumeManager,
        objects: ReferredObjects,
        node: Callable[[], convert.NodeFacts],
        clock: Clock,
        tokens: Tokens | None = None,
        claims: ClaimSource | None = None,
    ) -> None:
        self._images = images
        self._volumes = volumes
        self._objects = objects
        self._node = node
        self._clock = clock
        self.messages = TerminationMessages(volumes.pod_dir)
        self._tokens = tokens
        self._claims = claims
        self._emptying = Emptying(volumes.trash)
        self.image_names: dict[str, tuple[str, str]] = {}  # image id → (image, imageID) as statuses show them

    async def volumes(self, pod: Pod) -> None:
        """Set up the pod's volumes, or refresh them. Raises MountError."""
        if not pod.spec.volumes:
            return
        sources = await self._sources(pod)
        await asyncio.to_thread(self._volumes.set_up, pod, sources)

    async def _sources(self, pod: Pod) -> projection.Sources:
        """What the pod's volumes are made from. Tokens are asked for while objects arrive. Raises MountError."""
        node, tokens = self._node(), self._ask_for_tokens(pod)
        try:
            referred = await self._objects.of(pod)
            persistent = await self._claims.of(pod) if self._claims is not None else {}
            issued = await tokens if tokens is not None else {}
        except TimeoutError:
            why = "failed to sync configmap cache: timed out waiting for the condition"
            raise MountError(pod.spec.volumes[0].name, why) from None
        except TokenError as error:
            raise MountError(_with_token(pod), str(error)) from error
        finally:
            if tokens is not None:
                tokens.cancel()
        return projection.Sources(referred, downward.Addresses(node.ip), node.allocatable, issued, persistent)

    def _ask_for_tokens(self, pod: Pod) -> asyncio.Task[Mapping[ServiceAccountTokenProjection, str]] | None:
        if self._tokens is None or not any(projection.token_sources(pod)):
            return None
        return asyncio.get_running_loop().create_task(self._tokens.of(pod))

    async def container(self, pod: Pod, wanted: Container, sandbox: cri.PodSandboxStatus) -> convert.Prepared:
        """Image, variables and mounts of one container. Raises ImageUnavailable, env.ConfigError."""
        node = self._node()
        seen = await self._image_volumes(pod, wanted)
        image = await self._images.ensure(pod, wanted, self._clock.now())
        self.image_names[image.id] = _names(wanted, image)
        _check_non_root(pod, wanted, image.config.user)
        at = downward.Addresses(node.ip, (node.ip,) if pod.spec.host_network else sandbox.ips)
        variables = await self._variables(pod, wanted, at)
        mounts = await self._mounts(pod, wanted, variables, seen)
        devices = self._volumes.devices(pod, wanted)
        return convert.Prepared(image=image.id, envs=variables, mounts=mounts, devices=devices)

    async def _variables(self, pod: Pod, wanted: Container, at: downward.Addresses) -> dict[str, str]:
        referred, node = await self._referred(pod), self._node()

        def file_key(selector: FileKeySelector) -> str | None:
            return envfiles.value(self._volumes.path(pod, selector.volume_name), selector)

        if any(each.value_from is not None and each.value_from.file_key_ref is not None for each in wanted.env):
            return await asyncio.to_thread(convert.variables, pod, wanted, referred, at, node, file_key)
        return convert.variables(pod, wanted, referred, at, node)

    async def _image_volumes(self, pod: Pod, wanted: Container) -> dict[str, str]:
        """Ids of the images that the container sees as volumes, by volume name. Raises ImageUnavailable."""
        mounted = {mount.name for mount in wanted.volume_mounts}
        seen = {}
        for volume in pod.spec.volumes:
            if volume.image is not None and volume.name in mounted:
                # Events about it are the pod's, not the container's.
                asked = Container(image=volume.image.reference, image_pull_policy=volume.image.pull_policy)
                seen[volume.name] = (await self._images.ensure(pod, asked, self._clock.now())).id
        return seen

    async def _mounts(
        self, pod: Pod, wanted: Container, variables: dict[str, str], images: dict[str, str]
    ) -> tuple[cri.Mount, ...]:
        """The container's mounts; a kubelet that has just begun first looks where the pod's claims lie."""
        if (wanted.volume_mounts or wanted.volume_devices) and not self._volumes.knows(pod):
            try:
                await self.volumes(pod)
            except MountError as error:
                raise env.ConfigError(str(error)) from error
        if needs_a_look(wanted):
            return await asyncio.to_thread(self._volumes.mounts, pod, wanted, variables, images)
        return self._volumes.mounts(pod, wanted, variables, images)

    async def release(self, uid: str, pod: Pod | None) -> None:
        """The pod is gone: let go of its objects and its directories."""
        self._objects.release(uid)
        if self._tokens is not None:
            self._tokens.release(uid)
        if pod is not None:
            self._images.forget(pod)
        await asyncio.to_thread(self._volumes.tear_down, uid)
        self.empty_trash()

    async def release_volumes(self, uid: str) -> None:
        """The pod has ended for good: nobody reads its volumes again. What its containers said last stays."""
        self._objects.release(uid)
        if self._tokens is not None:
            self._tokens.release(uid)
        if await asyncio.to_thread(self._volumes.tear_down, uid, only_volumes=True):
            self.empty_trash()

    def empty_trash(self) -> None:
        """Have what is left of earlier pods' volumes deleted in the background, one deletion at a time."""
        self._emptying.begin()

    async def settled(self, seconds: float | None = None) -> None:
        """Wait until nothing of earlier pods' volumes is left, or for so many seconds."""
        await self._emptying.done(seconds)

    async def _referred(self, pod: Pod) -> env.Referred:
        try:
            return await self._objects.of(pod)
        except TimeoutError:
            raise env.ConfigError("failed to sync configmap cache: timed out waiting for the condition") from None


def _with_token(pod: Pod) -> str:
    """The first volume that wants a token."""
    parts = ((volume.name, volume.projected.sources) for volume in pod.spec.volumes if volume.projected is not None)
    return next(name for name, sources in parts if any(source.service_account_token for source in sources))


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
    is_number = user.isascii() and user.isdigit()
    if uid is None and (not user or (is_number and not user.strip("0"))):
        raise env.ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if uid is None and not is_number:
        text = f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        raise env.ConfigError(f"{text} {where}")
