"""Containerfile syntax: what is understood, and that every error says where."""

from __future__ import annotations

import pytest

from minikube_raw.oci.containerfile import ContainerfileError, parse


def test_comments_continuations_flags_and_forms() -> None:
    steps = parse(
        "# a comment\n\n"
        "FROM scratch\n"
        "  copy --from=apt:busybox-static --chmod=755 \\\n"
        "    # a comment inside\n"
        "\n"
        "    /bin/busybox \\\n"
        "    /bin/\n"
        'CMD ["sh", "-c", "echo $HOME"]\n'
        "ENTRYPOINT echo $HOME\n"
        'ENV A=1 B="two words" C=\n'
        "ENV OLD form of it\n"
    )

    assert [step.keyword for step in steps] == ["FROM", "COPY", "CMD", "ENTRYPOINT", "ENV", "ENV"]
    assert (steps[1].flag("from"), steps[1].flag("chmod"), steps[1].flag("chown")) == (
        "apt:busybox-static",
        "755",
        None,
    )
    assert steps[1].words() == ["/bin/busybox", "/bin/"]
    assert (steps[1].line, steps[1].column) == (4, 3)
    assert steps[2].command() == ("sh", "-c", "echo $HOME")
    assert steps[3].command() == ("/bin/sh", "-c", "echo $HOME")
    assert steps[4].pairs() == [("A", "1"), ("B", "two words"), ("C", "")]
    assert steps[5].pairs() == [("OLD", "form of it")]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "no instruction"),
        ("# only a comment", 1, 1, "no instruction"),
        ("COPY a b", 1, 1, "first instruction must be FROM"),
        ("FROM scratch\nRUN true", 2, 1, "RUN is not supported"),
        ("FROM scratch\n\n  FORM x", 3, 3, "unknown instruction FORM"),
        ("FROM scratch\nCMD", 2, 1, "CMD needs an argument"),
        ("FROM scratch\nCOPY --from=x", 2, 1, "COPY needs an argument"),
        ("FROM a\nFROM b", 2, 1, "second FROM"),
        ("FROM scratch\nENV A=$B", 2, 7, "variables in ENV"),
        ("FROM scratch\nARG X", 2, 1, "ARG is not supported"),
    ],
)
def test_an_error_names_line_and_column(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ContainerfileError, match=message) as error:
        parse(text)
    assert (error.value.line, error.value.column) == (line, column)
    assert str(error.value).startswith(f"line {line}, column {column}: ")


@pytest.mark.parametrize("text", ["ENV A", "ENV =1", "LABEL a=1 b", 'ENV A="open'])
def test_pairs_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ContainerfileError, match="line 2"):
        parse(f"FROM scratch\n{text}")[1].pairs()
