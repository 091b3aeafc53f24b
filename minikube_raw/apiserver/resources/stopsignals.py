"""The signals a container may ask to be stopped by (core/v1.Signal, v1.36): a pod that asks has to say that it is for Linux."""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.resources.strategy import Object

_PLAIN = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMIN SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ"
)
_REAL_TIME = [*(f"SIGRTMIN+{number}" for number in range(1, 16)), *(f"SIGRTMAX-{number}" for number in range(1, 15))]
LINUX = frozenset([*(f"SIG{name}" for name in _PLAIN.split()), *_REAL_TIME])
WINDOWS = frozenset({"SIGKILL", "SIGTERM"})


def stop_signal(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    """Judge lifecycle.stopSignal of a container at `path`."""
    wanted, at = (container.get("lifecycle") or {}).get("stopSignal"), f"{path}.lifecycle.stopSignal"
    if wanted is None:
        return
    system = (spec.get("os") or {}).get("name")
    if not system:
        yield field.forbidden(at, "may not be set for containers with empty `spec.os.name`")
        return
    known = WINDOWS if system == "windows" else LINUX
    if wanted not in known:
        yield field.not_supported(at, wanted, sorted(known))
