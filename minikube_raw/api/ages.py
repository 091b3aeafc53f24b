"""Ages as kubectl shows them: two units at most, fewer the older something is (apimachinery, pkg/util/duration)."""

from __future__ import annotations

from datetime import datetime

from minikube_raw.api import times

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR = 365 * _DAY
UNKNOWN = "<unknown>"


def human(seconds: float) -> str:
    """Write a duration: 45s, 3m20s, 47m, 5h12m, 30h, 5d4h, 120d, 3y20d, 12y. A second of clock skew counts as 0s."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 3 * _HOUR:
        return _two(whole, _MINUTE, "m", 1, "s", show_small=whole < 10 * _MINUTE)
    if whole < 2 * _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "m", show_small=whole < 8 * _HOUR)
    if whole < 2 * _YEAR:
        return _two(whole, _DAY, "d", _HOUR, "h", show_small=whole < 8 * _DAY)
    return _two(whole, _YEAR, "y", _DAY, "d", show_small=whole < 8 * _YEAR)


def _two(whole: int, big: int, big_name: str, small: int, small_name: str, *, show_small: bool) -> str:
    rest = whole % big // small
    return f"{whole // big}{big_name}" + (f"{rest}{small_name}" if show_small and rest else "")


def age(timestamp: str | None, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was; `<unknown>` for none."""
    if not timestamp:
        return UNKNOWN
    return human(times.seconds_since(timestamp, now))
