"""Whether a toleration stands a taint (component-helpers/scheduling/corev1, ToleratesTaint): scheduler, eviction and kubelet ask alike."""

from __future__ import annotations

from collections.abc import Iterable

from minikube_raw.api.core import Taint, Toleration


def stands(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration stands the taint; an empty key with Exists stands every key, an empty effect every effect."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator in ("", "Equal") and toleration.key == taint.key and toleration.value == taint.value


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether any of them stands the taint."""
    return any(stands(toleration, taint) for toleration in tolerations)
