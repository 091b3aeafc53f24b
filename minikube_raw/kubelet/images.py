"""From what a pod writes as `image` to an image id the runtime can start, under the pod's imagePullPolicy.

An image is in the store, can be built from a recipe of ours, or cannot be had: registries come with the image work.
Failures come back as reasons in the kubelet's words; waits between attempts are its back-off (10 s doubling to 5 min).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from minikube_raw.api import times
from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import backoff
from minikube_raw.kubelet.circumstances import Waiting
from minikube_raw.kubelet.pods import every_container
from minikube_raw.oci import recipes, reference
from minikube_raw.oci.images import ImageError, ImageInUse, ImageNotFound, ImageStore


class EventSink(Protocol):
    """Where an Event about a container goes."""

    def __call__(self, pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        """Record an Event; kind is Normal or Warning."""
        ...


class ImageConfig(Protocol):
    """What an image says of itself, as far as a kubelet asks."""

    @property
    def user(self) -> str:
        """The user its program runs as, as the image names it."""
        ...


class NodeImage(Protocol):
    """An image of the node's store (`oci.images.Image`)."""

    @property
    def id(self) -> str:
        """The config's digest."""
        ...

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """Its canonical names."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its compressed layers."""
        ...

    @property
    def config(self) -> ImageConfig:
        """Its configuration."""
        ...


class ImageSource(Protocol):
    """What the node has of an image store (`oci.images.ImageStore` is behind it). Called in a thread."""

    def find(self, name: str) -> NodeImage | None:
        """The stored image of that canonical reference or id, or None."""
        ...

    def obtain(self, name: str) -> NodeImage | None:
        """Make the image present if this node can (a recipe of ours), else None. Raises ImageError."""
        ...

    def list(self) -> Sequence[NodeImage]:
        """Every image."""
        ...

    def held(self) -> set[str]:
        """The manifest digests of images that containers hold, be they of this node or of another that shares the store."""
        ...

    def remove(self, image_id: str) -> bool:
        """Delete an image with all its names; False when a container has just taken it, or somebody is writing."""
        ...


class StoredImages:
    """The node's image store and the recipes that are built into it on first use."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def find(self, name: str) -> NodeImage | None:
        """See ImageSource."""
        return self._store.resolve(name)

    def obtain(self, name: str) -> NodeImage | None:
        """See ImageSource."""
        try:
            return recipes.ensure(self._store, name)
        except ImageNotFound:
            return None

    def list(self) -> Sequence[NodeImage]:
        """See ImageSource."""
        return self._store.list()

    def held(self) -> set[str]:
        """See ImageSource."""
        return self._store.leases.images()

    def remove(self, image_id: str) -> bool:
        """See ImageSource."""
        try:
            self._store.remove(image_id, wait=False)
        except (ImageInUse, BlockingIOError):
            return False
        except ImageNotFound:
            pass  # another node of this host was quicker
        return True


class ImageUnavailable(Exception):
    """A container's image cannot be had now; look again at retry_at (seconds since the epoch)."""

    def __init__(self, waiting: Waiting, retry_at: float) -> None:
        super().__init__(waiting.message)
        self.waiting = waiting
        self.retry_at = retry_at


class Failure(msgspec.Struct, frozen=True):
    """How the last attempt at an image ended."""

    reason: str
    message: str


RETRY_SECONDS = 10.0


class ImageManager:
    """Decides by pull policy, remembers failures per (pod, image)."""

    def __init__(
        self,
        source: ImageSource,
        record: EventSink,
        name_of: Callable[[str], str] = lambda text: str(reference.parse(text)),
    ) -> None:
        """`name_of` gives what an image is looked up by; it raises InvalidReference."""
        self._source = source
        self._name_of = name_of
        self._record = record
        self._backoff = backoff.Backoff()
        self._failures: dict[str, Failure] = {}

    async def ensure(self, pod: Pod, container: Container, now: float) -> NodeImage:
        """The image of a container. Raises ImageUnavailable."""
        try:
            name = self._name_of(container.image)
        except reference.InvalidReference as error:
            raise self._invalid(pod, container, error, now) from error
        policy = container.image_pull_policy or default_pull_policy(container.image)
        present = await asyncio.to_thread(self._source.find, name)
        if present is not None:
            # Always asks the registry whether the tag has moved; with no registry client, what is stored is the answer.
            self._present(pod, container)
            return present
        if policy == "Never":
            raise self._never(pod, container, now)
        return await self._pull(pod, container, name, now)

    def listed(self) -> Sequence[NodeImage]:
        """Every image of the node, for its status."""
        return self._source.list()

    def forget(self, pod: Pod) -> None:
        """Drop what is remembered of a pod that is gone."""
        seen = (volume.image.reference for volume in pod.spec.volumes if volume.image is not None)
        for image in (*(container.image for container in every_container(pod)), *seen):
            key = f"{pod.metadata.uid}_{image}"
            self._backoff.forget(key)
            self._failures.pop(key, None)

    async def _pull(self, pod: Pod, container: Container, name: str, now: float) -> NodeImage:
        key = _key(pod, container)
        entry = self._backoff.get(key)
        failure = self._failures.get(key)
        if entry is not None and failure is not None and now < entry.since + entry.delay:
            raise self._backing_off(pod, container, failure, entry.since + entry.delay)
        self._record(pod, "Normal", "Pulling", f'Pulling image "{container.image}"', container.name)
        began = time.monotonic()
        try:
            image = await asyncio.to_thread(self._source.obtain, name)
        except (ImageError, OSError) as error:  # OSError: the disk is full, or has other troubles
            why = f"{error.filename or 'its layers'}: {error.strerror}" if isinstance(error, OSError) else error
            raise self._failed(pod, container, f'failed to pull and unpack image "{name}": {why}', now) from error
        if image is None:
            why = "not in the image store of this node, and no recipe of that name is known"
            raise self._failed(pod, container, f'failed to pull and unpack image "{name}": {why}', now)
        self._backoff.forget(key)
        took = times.duration(time.monotonic() - began)
        told = f'Successfully pulled image "{container.image}" in {took} ({took} including waiting).'
        self._record(pod, "Normal", "Pulled", f"{told} Image size: {image.size} bytes.", container.name)
        return image

    def _present(self, pod: Pod, container: Container) -> None:
        message = f'Container image "{container.image}" already present on machine and can be accessed by the pod'
        self._record(pod, "Normal", "Pulled", message, container.name)

    def _failed(self, pod: Pod, container: Container, message: str, now: float) -> ImageUnavailable:
        key = _key(pod, container)
        self._failures[key] = Failure("ErrImagePull", message)
        self._backoff.advance(key, now, now)
        self._record(pod, "Warning", "Failed", f'Failed to pull image "{container.image}": {message}', container.name)
        self._record(pod, "Warning", "Failed", "Error: ErrImagePull", container.name)
        # The next look, a second later, shows the back-off, as a kubelet's does.
        return ImageUnavailable(Waiting("ErrImagePull", message), now + 1)

    def _backing_off(self, pod: Pod, container: Container, failure: Failure, until: float) -> ImageUnavailable:
        short = f'Back-off pulling image "{container.image}"'
        self._record(pod, "Normal", "BackOff", short, container.name)
        self._record(pod, "Warning", "Failed", "Error: ImagePullBackOff", container.name)
        return ImageUnavailable(Waiting("ImagePullBackOff", f"{short}: {failure.reason}: {failure.message}"), until)

    def _never(self, pod: Pod, container: Container, now: float) -> ImageUnavailable:
        message = f'Container image "{container.image}" is not present with pull policy of Never'
        self._record(pod, "Warning", "ErrImageNeverPull", message, container.name)
        self._record(pod, "Warning", "Failed", "Error: ErrImageNeverPull", container.name)
        return ImageUnavailable(Waiting("ErrImageNeverPull", message), now + RETRY_SECONDS)

    def _invalid(self, pod: Pod, container: Container, error: Exception, now: float) -> ImageUnavailable:
        message = f'Failed to apply default image tag "{container.image}": {error}'
        self._record(pod, "Warning", "InspectFailed", message, container.name)
        self._record(pod, "Warning", "Failed", "Error: InvalidImageName", container.name)
        return ImageUnavailable(Waiting("InvalidImageName", message), now + 30 * RETRY_SECONDS)


def default_pull_policy(image: str) -> str:
    """Always for :latest or no tag, else IfNotPresent; the API server has defaulted it, a manifest may not."""
    parsed = reference.parse(image)
    return "Always" if parsed.tag == reference.DEFAULT_TAG and parsed.digest is None else "IfNotPresent"


def _key(pod: Pod, container: Container) -> str:
    return f"{pod.metadata.uid}_{container.image}"
