"""Claims for pods' ephemeral volumes: one per volume, called POD-VOLUME, owned by the pod and gone with it.

A claim of that name which is not the pod's own is never used: its data is somebody else's
(pkg/controller/volume/ephemeral, v1.36).
"""

from __future__ import annotations

from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.api.volumes import Volume
from minikube_raw.client.events import WARNING, reference
from minikube_raw.client.informer import key_of
from minikube_raw.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from minikube_raw.controllers.controller import Context, Controller
from minikube_raw.controllers.owners import controller_reference


class EphemeralVolumeController:
    """Makes the claims; `run` until cancelled. Keys are pods'."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._recorder = context.recorder("ephemeral_volume")
        self._pods = context.informers.of(PODS)
        self._claims = context.informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._controller = Controller("ephemeralvolumes", self._reconcile, context, workers=5)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> float | None:
        pod = self._pods.get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return None
        for volume in pod.spec.volumes:
            if volume.ephemeral is not None:
                await self._ensure(pod, volume)
        return None

    async def _ensure(self, pod: Pod, volume: Volume) -> None:
        name, namespace = volume.claim_name(pod.metadata.name), pod.metadata.namespace
        claim = self._claims.get(f"{namespace}/{name}")
        try:
            if claim is None:
                await self._client.create(PERSISTENT_VOLUME_CLAIMS, _claim(pod, volume, name), namespace)
            elif claim.metadata.controller is None or claim.metadata.controller.uid != pod.metadata.uid:
                text = (
                    f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name} (pod is not owner)"
                )
                self._tell(pod, volume, text)
        except StatusError as error:
            # Our copy was a moment behind, or the pod's namespace is going; anything else the pod's owner has to know.
            if error.reason != "AlreadyExists":
                self._tell(pod, volume, error.message)
                raise

    def _tell(self, pod: Pod, volume: Volume, why: str) -> None:
        text = f"ephemeral volume {volume.name}: {why}"
        self._recorder.event(reference(PODS, pod), WARNING, "FailedBinding", text)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and any(volume.ephemeral is not None for volume in new.spec.volumes):
            self._controller.queue.add(key_of(new))


def _claim(pod: Pod, volume: Volume, name: str) -> dict[str, Any]:
    assert volume.ephemeral is not None
    template = volume.ephemeral.volume_claim_template
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "labels": template.metadata.labels,
            "annotations": template.metadata.annotations,
            "ownerReferences": [controller_reference(PODS, pod)],
        },
        "spec": template.spec,
    }
