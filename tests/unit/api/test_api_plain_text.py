"""What others wrote stays on its line, in tables and in logs."""

from __future__ import annotations

import logging
import sys

import pytest

from minikube_raw.api.plain_text import LogFormatter, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünïcode", "plain – ünïcode"),
        ("two\nlines\tand\rmore", "two lines and more"),
        ("\x1b[2J\x07\x7f\x9b31m", r"\x1b[2J\x07\x7f\x9b31m"),
        ("right\u202eleft\u2028", r"right\u202eleft\u2028"),
        ("half\udc80", r"half\udc80"),
        ("nul\0", r"nul\x00"),
    ],
)
def test_nothing_in_a_text_acts_on_a_terminal(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_record_is_one_line_and_its_traceback_is_indented() -> None:
    try:
        raise ValueError("first\n2026-01-01 forged \x1b[2J")
    except ValueError:
        record = logging.LogRecord("pod", logging.WARNING, "", 0, "%s", ("a\n2026-01-01 forged",), sys.exc_info())

    first, *rest = LogFormatter().format(record).split("\n")

    assert first.endswith(" W pod a 2026-01-01 forged")
    assert rest[-1] == r"  2026-01-01 forged \x1b[2J"
    assert all(line.startswith("  ") for line in rest)
