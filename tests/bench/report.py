"""Figures and the page they are written to: medians of several runs, with the machine and the load they were taken under."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """One row: what was measured, as text, beside its budget (empty: none) and notes such as the number of runs."""

    what: str
    value: str
    budget: str = ""
    note: str = ""


class Section(NamedTuple):
    """A table of the page."""

    title: str
    intro: str
    figures: Sequence[Figure]


def milliseconds(seconds: Sequence[float]) -> str:
    """Median and 95th percentile of times given in seconds."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"{statistics.median(ordered) * 1e3:.1f} ms (p95 {p95 * 1e3:.1f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ours over median of theirs."""
    return statistics.median(ours) / statistics.median(theirs)


def load() -> str:
    """The load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def machine() -> str:
    """One sentence about where the figures were taken."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load average {load()} at the start, {datetime.now(UTC):%Y-%m-%d}"
    )


def render(where: str, sections: Iterable[Section]) -> str:
    """The page as Markdown."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench ARGS=--write`; every peer was measured in the same run, in turn with ours. Machines are noisy:",
        "compare ratios, not single figures. A budget that is missed is written down like one that is met.",
        "",
        f"Machine: {where}.",
    ]
    for section in sections:
        lines += [
            "",
            f"## {section.title}",
            "",
            section.intro,
            "",
            "| what | measured | budget | note |",
            "|---|---|---|---|",
        ]
        lines += [f"| {f.what} | {f.value} | {f.budget} | {f.note} |" for f in section.figures]
    return "\n".join(lines) + "\n"
