"""What the results of a container's probes mean: thresholds, order, due times. Pure; `probing` runs the probes.

The rules are those of Kubernetes' prober (pkg/kubelet/prober/worker.go): a verdict changes only after the threshold's number
of equal results in a row, an unknown result changes nothing, and startup holds back the others.
"""

from __future__ import annotations

import enum
import math

import msgspec

from minikube_raw.api.core import Container, Probe

_EARLY = 0.005  # seconds that a timer may fire before its time: uvloop's count milliseconds


class Kind(enum.StrEnum):
    """The three probes, as messages name them."""

    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class Outcome(enum.Enum):
    """What one run of a probe found; WARNING counts as success and is told."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Result(msgspec.Struct, frozen=True, gc=False):
    """An outcome with what the program, the server or the kernel said."""

    outcome: Outcome
    output: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it counts as a success."""
        return self.outcome in (Outcome.SUCCESS, Outcome.WARNING)


class Streak(msgspec.Struct, frozen=True, gc=False):
    """Equal results in a row, up to now."""

    succeeded: bool | None = None
    length: int = 0

    def after(self, succeeded: bool) -> Streak:
        """The streak with one more result."""
        return Streak(succeeded, self.length + 1 if succeeded is self.succeeded else 1)

    def verdict(self, probe: Probe) -> bool | None:
        """True or False once the threshold is reached, None below it."""
        if self.succeeded is None:
            return None
        threshold = probe.success_threshold if self.succeeded else probe.failure_threshold
        return self.succeeded if self.length >= threshold else None


def probes_of(container: Container) -> dict[Kind, Probe]:
    """The probes a container has."""
    found = {
        Kind.STARTUP: container.startup_probe,
        Kind.LIVENESS: container.liveness_probe,
        Kind.READINESS: container.readiness_probe,
    }
    return {kind: probe for kind, probe in found.items() if probe is not None}


def next_due(kind: Kind, probe: Probe, age: float, *, ran: bool) -> float:
    """Seconds until a probe's next run in a container that is `age` seconds old; `ran`: it is not the first.

    Runs are whole periods after the container's start. Only readiness is also asked at the first possible moment: a
    liveness or startup probe that failed because the program has had no time yet would cost one of its few tries.
    """
    if not ran and age < probe.initial_delay_seconds and probe.initial_delay_seconds >= probe.period_seconds:
        return probe.initial_delay_seconds - age
    if not ran and kind is Kind.READINESS:
        return max(probe.initial_delay_seconds - age, 0.0)
    earliest = max(age, 0.0 if ran else float(probe.initial_delay_seconds))
    periods = math.floor((earliest + _EARLY) / probe.period_seconds) + 1
    return periods * probe.period_seconds - age


def event(kind: Kind, result: Result) -> tuple[str, str] | None:
    """(reason, message) of the Event a result gives; None for a success."""
    name = kind.value.capitalize()
    match result.outcome:
        case Outcome.SUCCESS:
            return None
        case Outcome.WARNING:
            return "ProbeWarning", f"{name} probe warning: {result.output}"
        case Outcome.FAILURE:
            return "Unhealthy", f"{name} probe failed: {result.output}"
        case Outcome.UNKNOWN:
            return "Unhealthy", f"{name} probe errored and resulted in unknown state: {result.output}"
