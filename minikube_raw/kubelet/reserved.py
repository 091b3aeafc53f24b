"""What of a node is not for pods: kubeReserved, systemReserved and the hard eviction thresholds; the rest is allocatable.

Pure. Words and arithmetic are the kubelet's (pkg/kubelet/cm/node_container_manager_linux.go, pkg/kubelet/eviction/helpers.go):
allocatable leaves out the memory and disk that eviction keeps free, the cgroup of all pods may use them. Memory that the kernel
keeps as huge pages is no other memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.quantity import Quantity

Amounts = Mapping[str, str]
RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")
SIGNALS = (
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "pid.available",
)
# pkg/kubelet/eviction/defaults_linux.go.
DEFAULT_HARD = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}
_RESOURCE_OF = {"memory.available": "memory", "nodefs.available": "ephemeral-storage"}


class Threshold(msgspec.Struct, frozen=True):
    """How much of what a signal tells must stay free: an amount, or a share (0 to 1) of the capacity."""

    amount: int = 0
    share: float | None = None
    text: str = ""  # the amount as it was given, for messages

    def of(self, capacity: int) -> int:
        """The amount, given the capacity."""
        return self.amount if self.share is None else int(capacity * self.share)

    def __str__(self) -> str:
        return str(self.amount) if self.share is None else f"{self.share:.0%}"


def threshold(text: str) -> Threshold:
    """Parse "100Mi" or "10%". Raises ValueError."""
    if text.endswith("%"):
        share = float(text[:-1]) / 100
        if not 0 <= share <= 1:
            raise ValueError(f"invalid threshold {text}: a percentage is between 0% and 100%")
        return Threshold(share=share)
    parsed = quantity.parse(text)
    if parsed.nanos < 0:
        raise ValueError(f"invalid threshold {text}: an amount is not negative")
    return Threshold(amount=parsed.value(), text=text)


def check(options: Mapping[str, Amounts]) -> None:
    """Refuse what is no resource, signal or amount; `options` are by flag name. Raises ValueError naming the flag."""
    for flag, given in options.items():
        known = SIGNALS if flag.startswith("eviction") else RESERVABLE
        for name, text in given.items():
            if name not in known:
                raise ValueError(f"--{flag}: {name} is not one of {', '.join(known)}")
            try:
                threshold(text) if "grace" not in flag else duration(text)
            except ValueError as error:
                raise ValueError(f"--{flag}: {name}: {error}") from None


def duration(text: str) -> float:
    """Parse Go's "1m30s" into seconds. Raises ValueError."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    total, number = 0.0, ""
    for character in text:
        if character in units and number:
            total, number = total + float(number) * units[character], ""
        else:
            number += character
    if number or not text:
        raise ValueError(f"invalid duration {text!r}")
    return total


def allocatable(capacity: Amounts, reserved: Sequence[Amounts], hard: Amounts) -> dict[str, str]:
    """What pods may ask for together, by resource; never below zero. `capacity` as the Node shows it."""
    left = {name: _less(name, amount, reserved) for name, amount in capacity.items()}
    for signal, name in _RESOURCE_OF.items():
        if signal in hard:
            kept = threshold(hard[signal]).of(quantity.resource(capacity, name).value())
            left[name] = _minus(left[name], Quantity(kept * quantity.NANO))
    for name, amount in capacity.items():
        if name.startswith("hugepages-"):
            left["memory"] = _minus(left["memory"], quantity.parse(amount))
    return left


def pods_limit(capacity: Amounts, reserved: Sequence[Amounts], name: str) -> Quantity:
    """What the cgroup of all pods may use: the capacity less what is reserved."""
    return quantity.parse(_less(name, capacity[name], reserved))


def _less(name: str, amount: str, reserved: Sequence[Amounts]) -> str:
    for each in reserved:
        amount = _minus(amount, quantity.resource(each, name))
    return amount


def _minus(amount: str, taken: Quantity) -> str:
    if not taken:
        return amount
    left = quantity.parse(amount) - taken
    return str(left) if left.nanos > 0 else "0"
