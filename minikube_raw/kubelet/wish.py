"""What is asked of one pod at this moment: its newest object, whether that is still there, whether somebody ended the pod."""

from __future__ import annotations

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import grace
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import same_wish
from minikube_raw.runtime import cri


class Wish:
    """Taken in by the pod's worker, read by its parts. `pod` stays what it was last when the object is gone (`wanted` False)."""

    def __init__(self, pod: Pod | None) -> None:
        self.pod = pod
        self.wanted = True
        self.ending: Ending | None = None

    def take(self, pod: Pod | None) -> bool:
        """Take the newest object, None when it is gone; False for what is only an echo of our own status."""
        echo = pod is not None and self.wanted and self.pod is not None and same_wish(self.pod, pod)
        self.wanted = pod is not None
        self.pod = pod or self.pod
        return not echo

    @property
    def deleted(self) -> bool:
        """Whether the object is gone or going."""
        return not self.wanted or (self.pod is not None and self.pod.metadata.deletion_timestamp is not None)

    @property
    def must_end(self) -> bool:
        """Whether the pod is deleted, or ended as a whole."""
        return self.deleted or self.ending is not None

    def has_left(self, driven: Pod | None) -> bool:
        """Whether it has changed so that another round must decide than the one that drives `driven`."""
        if self.must_end:
            return True
        return (
            driven is not None and self.pod is not None and driven is not self.pod and not same_wish(driven, self.pod)
        )

    def grace(self, running: list[cri.ContainerStatus], own: int | None = None) -> float:
        """Seconds that containers have to end; `own` is a probe's."""
        if self.pod is None:
            return grace.noted(running)
        return grace.seconds(self.pod, own, self.ending, gone=not self.wanted)
