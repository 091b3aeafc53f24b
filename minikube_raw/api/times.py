"""RFC 3339 as Kubernetes writes it: metav1.Time in whole seconds, metav1.MicroTime with six digits, both in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)")


def now() -> datetime:
    """Return the present in UTC."""
    return datetime.now(UTC)


def time(moment: datetime | None = None) -> str:
    """Format as metav1.Time: 2026-01-31T09:30:00Z. Fractions are cut off, as Kubernetes does."""
    return (moment or now()).astimezone(UTC).isoformat(timespec="seconds")[:-6] + "Z"


def micro_time(moment: datetime | None = None) -> str:
    """Format as metav1.MicroTime: 2026-01-31T09:30:00.000000Z."""
    return (moment or now()).astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse(text: str) -> datetime:
    """Read either form, any offset, any number of digits (beyond microseconds cut off). Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(f'"{text}" is not an RFC 3339 time')
    day, clock, fraction, offset = match.groups()
    moment = datetime.fromisoformat(f"{day} {clock}")
    return moment.replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")), tzinfo=_zone(offset))


def _zone(offset: str) -> timezone:
    if offset == "Z":
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    delta = timedelta(hours=hours, minutes=minutes)
    return timezone(-delta if offset[0] == "-" else delta)


def seconds_since(text: str | None, moment: datetime | None = None) -> float:
    """Return seconds from an object's time until `moment` (now); infinity where the object has none."""
    return ((moment or now()) - parse(text)).total_seconds() if text else float("inf")


def duration(seconds: float) -> str:
    """Format as Go's time.Duration, cut to milliseconds: 0s, 250ms, 1.5s, 1m20s, 5m0s, 2h0m0s."""
    whole, left = divmod(int(seconds * 1000 + 1e-6), 1000)
    if not whole:
        return f"{left}ms" if left else "0s"
    fraction = f"{left / 1000:.3f}"[1:].rstrip("0").rstrip(".")
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    above = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{above}{whole}{fraction}s"
