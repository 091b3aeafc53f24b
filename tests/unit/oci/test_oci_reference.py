"""Image references: one table with the shorthand rules docker, containerd and CRI-O share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.oci.reference import InvalidReference, is_digest, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("group/app", "docker.io/group/app:latest", "group/app:latest"),
        ("a/b/c:v", "docker.io/a/b/c:v", "a/b/c:v"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("quay.io/a/b:v1", "quay.io/a/b:v1", "quay.io/a/b:v1"),
        ("[::1]:5000/app:v", "[::1]:5000/app:v", "[::1]:5000/app:v"),
        ("REGISTRY/app", "REGISTRY/app:latest", "REGISTRY/app:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}", f"busybox@sha256:{HEX}"),
        (f"busybox:v@sha256:{HEX}", f"docker.io/library/busybox:v@sha256:{HEX}", f"busybox:v@sha256:{HEX}"),
        ("a__b/c--d", "docker.io/a__b/c--d:latest", "a__b/c--d:latest"),
        ("x:A.b-_9", "docker.io/library/x:A.b-_9", "x:A.b-_9"),
    ],
)
def test_a_reference_has_one_canonical_form(text: str, canonical: str, familiar: str) -> None:
    parsed = parse(text)
    assert str(parsed) == canonical
    assert parsed.familiar == familiar
    assert parse(canonical) == parse(familiar) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "busybox ",
            "busybox:",
            "busybox@",
            ":v",
            "@",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "-a",
            "a-",
            "a..b",
            "a/../b",
        ),
        *("Busybox", "a/B", "busybox:ü", "büsybox", "busybox:-v", "busybox:" + "v" * 129, "a" * 256, HEX),
        *(
            "busybox@sha256:abc",
            f"busybox@sha512:{HEX}",
            f"busybox@sha256:{HEX.upper()}",
            "http://a/b",
            "a\nb",
            "a:v\n",
        ),
        *("a:99999999/b/", "[::1/app", "dir:/path", "host:port/app", "../../etc/passwd", "a\0b"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference) as error:
        parse(text)
    assert str(error.value).startswith(f'couldn\'t parse image name "{text}": ')


@given(st.text(alphabet="ab/:@.-_[]0AZ\n \0é", max_size=30))
def test_any_text_is_refused_or_has_a_fixed_point(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidReference:
        return
    assert parse(str(parsed)) == parse(parsed.familiar) == parsed


def test_digests_are_sha256_in_lower_case_and_nothing_else() -> None:
    assert is_digest(f"sha256:{HEX}")
    assert not any(
        is_digest(text) for text in (HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX}\n", "sha256:../x", f"md5:{HEX}")
    )
