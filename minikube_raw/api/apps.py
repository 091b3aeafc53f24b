"""apps/v1 kinds as read-only views: Deployment and ReplicaSet.

Pod templates stay bytes: what a controller makes pods from must be the whole template, and a view knows only a part.
"""

from __future__ import annotations

import msgspec

from minikube_raw.api.meta import Condition, IntOrString, LabelSelector, ObjectMeta, View

NO_TEMPLATE = msgspec.Raw(b"{}")


class RollingUpdateDeployment(View, frozen=True, gc=False):
    """How far a rolling update may go above and below the wished number; a count or a percentage."""

    max_unavailable: IntOrString = "25%"
    max_surge: IntOrString = "25%"


class DeploymentStrategy(View, frozen=True, gc=False):
    """`type` is RollingUpdate or Recreate."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdateDeployment | None = None


class DeploymentSpec(View, frozen=True, gc=False):
    """apps/v1.DeploymentSpec."""

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: msgspec.Raw = NO_TEMPLATE
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10
    paused: bool = False
    progress_deadline_seconds: int = 600


class DeploymentStatus(View, frozen=True, gc=False):
    """apps/v1.DeploymentStatus."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: tuple[Condition, ...] = ()
    collision_count: int | None = None


class Deployment(View, frozen=True, gc=False):
    """apps/v1.Deployment."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class ReplicaSetSpec(View, frozen=True, gc=False):
    """apps/v1.ReplicaSetSpec."""

    replicas: int = 1
    min_ready_seconds: int = 0
    selector: LabelSelector = LabelSelector()
    template: msgspec.Raw = NO_TEMPLATE


class ReplicaSetStatus(View, frozen=True, gc=False):
    """apps/v1.ReplicaSetStatus."""

    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int | None = None
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class ReplicaSet(View, frozen=True, gc=False):
    """apps/v1.ReplicaSet."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()
