from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.runtime.logs import MAX_LINE, LogFile, format_chunk, timestamp

NOW = 1_136_214_245_000_000_042
STAMP = "2006-01-02T15:04:05.000000042Z"


def test_a_time_stamp_has_nine_digits_in_utc() -> None:
    assert timestamp(NOW).decode() == STAMP


@pytest.mark.parametrize(
    ("chunk", "tags"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"a\n", [("F", 1)], id="a line"),
        pytest.param(b"a\nbb\n", [("F", 1), ("F", 2)], id="two lines"),
        pytest.param(b"\n", [("F", 0)], id="an empty line"),
        pytest.param(b"a\nrest", [("F", 1), ("P", 4)], id="an unfinished line is logged at once"),
        pytest.param(b"x" * MAX_LINE + b"\n", [("F", MAX_LINE)], id="the longest line"),
        pytest.param(b"x" * (MAX_LINE + 1) + b"\n", [("P", MAX_LINE), ("F", 1)], id="one byte more"),
        pytest.param(b"x" * (2 * MAX_LINE), [("P", MAX_LINE), ("P", MAX_LINE)], id="two full pieces without an end"),
    ],
)
def test_lines_are_cut_as_cri_has_it(chunk: bytes, tags: list[tuple[str, int]]) -> None:
    lines = format_chunk("stdout", chunk, NOW).decode().splitlines()
    assert [(line.split(" ")[2], len(line.split(" ", 3)[3])) for line in lines] == tags
    assert all(line.startswith(f"{STAMP} stdout ") for line in lines)


def test_pieces_joined_as_the_kubelet_joins_them_give_the_output_back() -> None:
    output = b"".join(b"%d %s\n" % (number, b"y" * (number * 997 % 40_000)) for number in range(60)) + b"end"
    text = b""
    for start in range(0, len(output), 30_011):
        for line in format_chunk("stderr", output[start : start + 30_011], NOW).split(b"\n")[:-1]:
            _stamp, _stream, tag, content = line.split(b" ", 3)
            text += content + (b"\n" if tag == b"F" else b"")
    assert text == output


def test_what_a_full_disk_does_not_take_is_not_in_the_log_at_all() -> None:
    log = LogFile("/dev/full")
    assert not log.write("stdout", b"kept by the caller\n")
    log.close()


def test_a_piece_can_be_taken_back_but_a_new_file_is_left_alone(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"))
    log.write("stdout", b"one\n")
    size = log.size
    log.write("stdout", b"two\n")
    log.cut(size)
    log.write("stderr", b"two again\n")
    assert [line.split(b" ", 1)[1] for line in (tmp_path / "log").read_bytes().splitlines()] == [
        b"stdout F one",
        b"stderr F two again",
    ]
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.reopen()
    log.cut(size)
    log.close()
    assert (tmp_path / "log").read_bytes() == b""
