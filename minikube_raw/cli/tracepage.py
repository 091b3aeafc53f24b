"""A pod's trace as one self-contained HTML page: a timeline to look at, the pod's host objects, every step in a table.

The page needs nothing but itself: no library, no font, no network. Positions are computed here (tracelayout.py) and written
as shares of the axis; the script in trace_page.html only zooms, points and filters.
"""

from __future__ import annotations

import html
from importlib import resources
from string import Template
from typing import Any

from minikube_raw.cli import tracelayout
from minikube_raw.cli.tracelayout import KINDS, LANES, Bar, Lane, Picture, Step

ROW_PX = 18
_PADDING_PX = 10
_NAME_PX = 58  # a lane is at least as high as its name
_LINE_PX = 24  # of a process that does nothing in the picture

Json = dict[str, Any]


def page(pod: str, found: Json) -> str:
    """Returns the page of a trace as runtime.trace.load() gives it."""
    steps: list[Step] = found["steps"]
    picture = tracelayout.picture(steps, found["start_ms"])
    template = Template(resources.files("minikube_raw.cli").joinpath("trace_page.html").read_text("utf-8"))
    return template.substitute(
        title=f"pod {_text(pod)}: how it came to run",
        pod=_text(pod),
        figures=_figures(found["start_ms"], steps),
        legend=_legend(steps),
        names="".join(_name(lane) for lane in picture.lanes),
        end=f"{picture.end_ms:.3f}",
        first=_first_instruction(found["start_ms"], picture),
        lanes="".join(_lane(lane, steps, picture.end_ms) for lane in picture.lanes),
        objects=_objects(steps),
        rows="".join(_row(index, step) for index, step in enumerate(steps)),
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _figures(start: float | None, steps: list[Step]) -> str:
    inside = sum(milliseconds for _, milliseconds in tracelayout.totals(steps).values())
    shown = [
        ("first", "–" if start is None else f"{start:.1f} ms", "to the first instruction"),
        ("", str(len(steps)), "steps"),
        ("", f"{inside:.1f} ms", "inside calls"),
    ]
    return "".join(f'<div class="{name}"><b>{value}</b><span>{words}</span></div>' for name, value, words in shown)


def _legend(steps: list[Step]) -> str:
    return "".join(
        f'<button class="{kind}" data-kind="{kind}" aria-pressed="true" title="show or hide"><i></i>{KINDS[kind][0]}'
        f"<em>{number} · {milliseconds:.1f} ms</em></button>"
        for kind, (number, milliseconds) in tracelayout.totals(steps).items()
    )


def _height(lane: Lane) -> int:
    if not lane.bars:
        return _LINE_PX
    return max(lane.rows * ROW_PX + _PADDING_PX, _NAME_PX)


def _name(lane: Lane) -> str:
    notes = [LANES.get(lane.who, ""), *_outside(lane)] if lane.bars else []
    lines = "".join(f"<span>{_text(note)}</span>" for note in notes)
    head = f"<b>{_text(_who(lane.who, lane.pid))}</b>"
    return f'<div class="name{"" if lane.bars else " flat"}" style="height:{_height(lane)}px">{head}{lines}</div>'


def _outside(lane: Lane) -> list[str]:
    notes = [f"{_steps(lane.ahead)} ahead of time"] if lane.ahead else []
    return notes + ([f"{_steps(lane.later)} later"] if lane.later else [])


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"


def _who(who: str, pid: int) -> str:
    return f"{who} {pid}" if pid else who


def _first_instruction(start: float | None, picture: Picture) -> str:
    if start is None:
        return ""
    left = 100 * start / picture.end_ms
    return f'<div class="first-instruction" style="left:{left:.4f}%"><span>first instruction</span></div>'


def _lane(lane: Lane, steps: list[Step], end: float) -> str:
    bars = "".join(_bar(bar, steps[bar.step], end) for bar in lane.bars)
    bars = bars or f'<span class="note">{_text(", ".join(_outside(lane)))}</span>'
    return f'<div class="lane" data-who="{_text(lane.who)}" style="height:{_height(lane)}px">{bars}</div>'


def _bar(bar: Bar, step: Step, end: float) -> str:
    left, width = 100 * step["at_ms"] / end, 100 * step["took_ms"] / end
    place = f"left:{left:.4f}%;width:{width:.4f}%;top:{bar.row * ROW_PX + _PADDING_PX // 2}px"
    return (
        f'<div class="bar {bar.kind}" data-step="{bar.step}" data-kind="{bar.kind}" style="{place}">'
        f"{_text(step['what'])}</div>"
    )


def _objects(steps: list[Step]) -> str:
    return "".join(
        f"<dt>{_text(kind)}</dt>" + "".join(f'<dd class="mono">{_text(name)}</dd>' for name in names)
        for kind, names in tracelayout.host_objects(steps).items()
    )


def _row(index: int, step: Step) -> str:
    kind = tracelayout.kind(step)
    who = _who(step["who"], step.get("pid", 0))
    return (
        f'<tr data-step="{index}" class="{kind}"><td class="number">{step["at_ms"]:.3f}</td>'
        f'<td class="number">{step["took_ms"]:.3f}</td><td>{_text(who)}</td><td><i></i>{_text(step["what"])}</td>'
        f'<td class="object mono" title="{_text(step["object"])}">{_text(step["object"])}</td></tr>'
    )
