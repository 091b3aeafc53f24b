"""Ranges of user ids: never shared by two sandboxes that exist, on one host with several nodes."""

from __future__ import annotations

from pathlib import Path

from minikube_raw.runtime import userids


def claim(directory: Path, record: Path) -> int:
    return userids.claim(str(record), lambda first: record.write_text(str(first)) and None, str(directory))


def test_each_sandbox_gets_a_range_of_its_own(tmp_path: Path) -> None:
    firsts = [claim(tmp_path / "ids", tmp_path / f"record{number}") for number in range(5)]
    assert firsts == [userids.FIRST + number * userids.COUNT for number in range(5)]
    assert (tmp_path / "record0").read_text() == str(userids.FIRST)


def test_a_range_comes_back_by_release_and_by_the_end_of_its_record(tmp_path: Path) -> None:
    records = [tmp_path / f"record{number}" for number in range(3)]
    firsts = [claim(tmp_path / "ids", record) for record in records]
    userids.release(firsts[0], str(tmp_path / "ids"))
    userids.release(firsts[0], str(tmp_path / "ids"))
    records[2].unlink()  # its node was deleted without a word
    again = {claim(tmp_path / "ids", tmp_path / f"new{number}") for number in range(2)}
    assert again == {firsts[0], firsts[2]}


def test_a_sweep_leaves_nothing_where_nothing_is_claimed(tmp_path: Path) -> None:
    records = [tmp_path / f"record{number}" for number in range(2)]
    firsts = [claim(tmp_path / "ids", record) for record in records]
    records[0].unlink()
    userids.sweep(str(tmp_path / "ids"))
    assert [path.name for path in (tmp_path / "ids").iterdir()] == [str(firsts[1])]
    records[1].unlink()
    userids.sweep(str(tmp_path / "ids"))
    assert not (tmp_path / "ids").exists()
    userids.sweep(str(tmp_path / "ids"))
