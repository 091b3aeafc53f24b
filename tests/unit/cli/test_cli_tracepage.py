"""A pod's trace as a page: what stands where, that it needs nothing but itself, and that a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from minikube_raw.cli import tracelayout, tracepage

Json = dict[str, Any]
CGROUP = "/sys/fs/cgroup/cpu/node/kubepods/pod1"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def step(at: float, took: float, what: str, subject: str, who: str = "keeper", pid: int = 7) -> Json:
    return {"at_ms": at, "took_ms": took, "what": what, "object": subject, "who": who, "pid": pid}


TRACE: Json = {
    "pod": "ns/<web>",
    "start_ms": 12.0,
    "steps": [
        step(-900.0, 0.5, "unshare", "CLONE_NEWNET"),
        step(0.0, 9.0, "RunPodSandbox", "ns/web", "kubelet", 3),
        step(1.0, 0.25, "mkdir", CGROUP),
        step(1.5, 0.25, "write", f"{CGROUP}/cpu.shares=512"),
        step(2.0, 1.5, "netlink", "link add veth1 type veth peer eth0; neighbour replace 10.0.0.2", "cni", 3),
        step(4.0, 2.0, "mount proc", "/proc", "child", 9),
        step(4.5, 0.5, "mount", "proc, /proc, proc, MS_NOSUID", "child", 9),
        step(11.0, 0.1, "capset", "effective=0xff", "child", 9),
        step(60_000.0, 0.1, "clone", "0, 77"),
    ],
}


class Elements(HTMLParser):
    """The start tags of a page and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, kind: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.tags if kind in attributes.get("class", "").split()]


def test_lanes_come_in_the_order_of_a_start_and_count_what_lies_outside() -> None:
    lanes = tracelayout.picture(TRACE["steps"], 12.0).lanes
    assert [(lane.who, lane.pid) for lane in lanes] == [("kubelet", 3), ("cni", 3), ("keeper", 7), ("child", 9)]
    assert [(lane.ahead, lane.later) for lane in lanes] == [(0, 0), (0, 0), (1, 1), (0, 0)]


def test_a_step_inside_a_block_stands_below_it() -> None:
    child = tracelayout.picture(TRACE["steps"], 12.0).lanes[-1]
    assert [(bar.step, bar.row, bar.kind) for bar in child.bars] == [
        (5, 0, "group"),
        (6, 1, "mount"),
        (7, 0, "rights"),
    ]


def test_writes_are_a_cgroups_if_their_path_says_so() -> None:
    kinds = [tracelayout.kind(each) for each in TRACE["steps"]]
    assert kinds[:5] == ["process", "group", "cgroup", "cgroup", "network"]


def test_the_pods_host_objects_are_named() -> None:
    assert tracelayout.host_objects(TRACE["steps"]) == {
        "cgroups": ["node/kubepods/pod1"],
        "links": ["veth1 (type veth peer eth0)"],
    }


def test_every_step_has_a_row_and_those_of_the_start_a_bar() -> None:
    elements = Elements(tracepage.page("ns/<web>", TRACE))
    rows = [attributes for tag, attributes in elements.tags if tag == "tr" and "data-step" in attributes]
    assert [row["data-step"] for row in rows] == [str(number) for number in range(9)]
    bars = elements.of("bar")
    assert sorted(bar["data-step"] for bar in bars) == ["1", "2", "3", "4", "5", "6", "7"]
    places = [re.findall(r"(left|width):([\d.]+)%", bar["style"]) for bar in bars]
    assert all(0 <= float(left[1]) <= 100 and float(left[1]) + float(width[1]) <= 100 for left, width in places)
    assert "ns/<web>" in elements.text
    assert {button["data-kind"] for tag, button in elements.tags if tag == "button" and "data-kind" in button} == {
        "process",
        "mount",
        "cgroup",
        "network",
        "rights",
    }


def test_a_process_without_a_step_in_the_picture_takes_one_line() -> None:
    later = [step(60_000.0 + number, 0.1, "mount", "x", "child", 100 + number) for number in range(9)]
    elements = Elements(tracepage.page("ns/web", {**TRACE, "steps": [*TRACE["steps"], *later]}))
    heights = [int(re.findall(r"height:(\d+)px", each["style"])[0]) for each in elements.of("lane")]
    assert heights == [int(re.findall(r"height:(\d+)px", each["style"])[0]) for each in elements.of("name")]
    assert (min(heights[:4]) >= 58, set(heights[4:])) == (True, {24})
    assert elements.text.count("1 step later") == 10


def test_the_page_needs_nothing_but_itself() -> None:
    text = tracepage.page("ns/web", TRACE)
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<link", text)
    assert "color-scheme: light dark" in text


def test_a_pod_without_steps_or_start_has_a_page_too() -> None:
    assert "to the first instruction" in tracepage.page("ns/web", {"pod": "ns/web", "start_ms": None, "steps": []})


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt install chromium")
def test_a_browser_shows_ticks_zooms_finds_and_points(tmp_path: Path) -> None:
    acts = """<script>
      const wide = axis.clientWidth;
      setZoom(4);
      document.querySelector(".find").value = "mount /proc"; find();
      document.querySelector('.legend [data-kind="cgroup"]').click();
      showTip(document.querySelector('.bar[data-step="4"]'), { clientX: 5, clientY: 5 });
      document.body.dataset.grew = Math.round(axis.clientWidth / wide);
    </script></body>"""
    (tmp_path / "page.html").write_text(tracepage.page("ns/<web>", TRACE).replace("</body>", acts))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    address = f"{(tmp_path / 'page.html').as_uri()}#6"
    shown = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, check=True, timeout=60)
    elements = Elements(shown.stdout)
    assert next(tags for name, tags in elements.tags if name == "body")["data-grew"] == "4"
    ticks = [tags for name, tags in elements.tags if name == "span" and tags.get("style", "").startswith("left:")]
    assert len(ticks) >= 3
    assert {each["data-step"] for each in elements.of("chosen")} == {"6"}
    assert {bar["data-step"] for bar in elements.of("off")} >= {"2", "3"}
    visible = [tags for name, tags in elements.tags if name == "tr" and "data-step" in tags and "hidden" not in tags]
    assert [row["data-step"] for row in visible] == ["5", "6"]
    assert "link add veth1 type veth peer eth0" in elements.text.split("dragging")[-1]  # in the tip, after the footer
