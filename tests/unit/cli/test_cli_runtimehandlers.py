"""OCI runtimes behind handlers, as `up` and `node run` take them."""

from __future__ import annotations

import pytest

from minikube_raw.cli import runtimehandlers
from minikube_raw.cli.errors import Failure


def test_each_flag_is_a_handler_with_its_command_and_the_last_of_a_name_counts() -> None:
    given = ["a=/bin/true", "g='/bin/true'  --platform=ptrace --network=host", "a=/bin/false"]
    assert runtimehandlers.parse(given) == {
        "a": "/bin/false",
        "g": "/bin/true --platform=ptrace --network=host",
    }
    assert runtimehandlers.parse(()) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/bin/true", "'/bin/true' is not NAME=/PATH"),
        ("a=", "'a=' is not NAME=/PATH"),
        ("a=true", "'a=true' is not NAME=/PATH"),
        ("=/bin/true", "'=/bin/true' is not NAME=/PATH"),
        ("a='/bin/true", "No closing quotation"),
        ("a=/nosuch", "a: /nosuch cannot be executed"),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_given(text: str, message: str) -> None:
    with pytest.raises(Failure) as refused:
        runtimehandlers.parse([text])
    assert message in str(refused.value)
