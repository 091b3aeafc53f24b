"""The table of kinds the API server serves: names from `api.scheme`, rules from one module per API group."""

from minikube_raw.apiserver.resources import (
    apps,
    coordination,
    core,
    events,
    persistentvolumes,
    runtimeclasses,
    storage,
)
from minikube_raw.apiserver.resources.strategy import Strategy

STRATEGIES: tuple[Strategy, ...] = (
    *core.STRATEGIES,
    *persistentvolumes.STRATEGIES,
    *apps.STRATEGIES,
    *coordination.STRATEGIES,
    *events.STRATEGIES,
    *storage.STRATEGIES,
    *runtimeclasses.STRATEGIES,
)
