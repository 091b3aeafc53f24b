"""Variables from files in an emptyDir: the syntax is a shell's, and a hostile file harms nobody."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from minikube_raw.api.core import FileKeySelector
from minikube_raw.kubelet import envfiles
from minikube_raw.kubelet.env import ConfigError

FILE = """
  # written by an init container
ONE='1'
\tTWO='a # b = "c" $HOME \\n'   # a comment
LINES='first

  third'
EMPTY=''
ONE='again'
  # the end"""


def wanted(key: str, *, optional: bool = False, path: str = "env") -> FileKeySelector:
    return FileKeySelector(volume_name="v", path=path, key=key, optional=optional)


@pytest.mark.parametrize("key", ["TWO", "LINES", "EMPTY"])
def test_a_value_is_what_a_shell_would_make_of_it(tmp_path: Path, key: str) -> None:
    (tmp_path / "env").write_text(FILE)
    script = f'. {shlex.quote(str(tmp_path / "env"))}; printf %s "${key}"'
    shells = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert envfiles.value(str(tmp_path), wanted(key)) == shells


def test_the_first_of_two_values_counts_and_nothing_after_it_is_judged() -> None:
    assert envfiles.lookup(FILE + "\n???", "ONE") == "1"
    assert envfiles.lookup(FILE, "THREE") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A='1'\nnonsense\nK='2'\n", "invalid environment variable format at line 2"),
        ("='1'\n", "invalid environment variable format at line 1"),
        ("K = '1'\n", "whitespace before '=' is not allowed"),
        ("K=1\n", "value must be enclosed in single quotes"),
        ('K="1"\n', "value must be enclosed in single quotes"),
        ("K= '1'\n", "value must be enclosed in single quotes"),
        ("K='1'2\n", "unexpected content after closing quote"),
        ("K='1''2'\n", "unexpected content after closing quote"),
        ("K='1\nA='2'\n", "unexpected content after closing quote"),
        ("K='1", "value must be enclosed in single quotes"),
    ],
)
def test_what_is_no_assignment_is_named_with_its_line(text: str, why: str) -> None:
    with pytest.raises(envfiles.FormatError, match=why):
        envfiles.lookup(text, "K")


def test_what_is_missing_is_an_error_unless_it_is_optional(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(FILE)
    assert envfiles.value(str(tmp_path), wanted("NONE", optional=True)) is None
    assert envfiles.value(str(tmp_path), wanted("K", optional=True, path="nosuch")) is None
    with pytest.raises(ConfigError, match='environment variable key "NONE" not found in file "env"'):
        envfiles.value(str(tmp_path), wanted("NONE"))
    with pytest.raises(ConfigError, match="couldn't parse env file: nosuch: No such file"):
        envfiles.value(str(tmp_path), wanted("K", path="nosuch"))


def test_no_file_of_a_container_leads_out_blocks_or_fills_the_memory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("K='the node's own'\n")
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(volume / "fifo")
    (volume / "large").write_bytes(b"\n" * (envfiles.MOST_BYTES + 1))
    (volume / "binary").write_bytes(b"K='\xff'\n")
    for path in ("link", "fifo", "large", "binary", "."):
        with pytest.raises(ConfigError, match="couldn't parse env file") as caught:
            envfiles.value(str(volume), wanted("K", path=path))
        assert "own" not in str(caught.value)
