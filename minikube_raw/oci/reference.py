"""Image references: what a user writes (`busybox`, `quay.io/a/b:v1@sha256:…`) and its one canonical form.

Grammar and the docker.io shorthand follow github.com/distribution/reference, which docker, containerd and CRI-O share.
Pure text; whether an image of that name exists is the store's question.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


class InvalidReference(ValueError):
    """The text is no image reference; the kubelet reports it as InvalidImageName."""

    def __init__(self, text: str, why: str = "invalid reference format") -> None:
        super().__init__(f'couldn\'t parse image name "{text}": {why}')
        self.text = text
        self.why = why


class Reference(NamedTuple):
    """A parsed reference: registry domain, repository path, and a tag, a digest or both (then the digest decides)."""

    domain: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The shortest form that parses to the same reference, as docker prints it: `busybox:latest`."""
        name = self.name.removeprefix("docker.io/library/").removeprefix("docker.io/")
        return name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 digest as images and blobs are named by."""
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> Reference:
    """Parse what a user wrote into its canonical reference; `:latest` is added when neither tag nor digest is given.

    Raises InvalidReference.
    """
    name, digest = _split_digest(text)
    name, tag = _split_tag(name)
    domain, path = _split_domain(name)
    if _BARE_ID.fullmatch(name):
        raise InvalidReference(text, "a repository name cannot be 64 hexadecimal digits")
    if path.lower() != path:
        raise InvalidReference(text, "invalid reference format: repository name must be lowercase")
    checks = ((_DOMAIN, domain), (_PATH, path), (_TAG, tag), (_DIGEST, digest))
    if any(part is not None and not grammar.fullmatch(part) for grammar, part in checks):
        raise InvalidReference(text)
    if len(f"{domain}/{path}") > MAX_NAME:
        raise InvalidReference(text, f"repository name must not be more than {MAX_NAME} characters")
    return Reference(domain, path, tag if tag or digest else DEFAULT_TAG, digest)


def _split_digest(text: str) -> tuple[str, str | None]:
    name, at, digest = text.partition("@")
    return name, digest if at else None


def _split_tag(name: str) -> tuple[str, str | None]:
    """The tag follows the last colon behind the last slash: a colon before a slash belongs to the registry's port."""
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return head + slash + last, tag if colon else None


def _split_domain(name: str) -> tuple[str, str]:
    """`localhost/x`, `host.name/x`, `host:5000/x` name a registry; the rest is docker.io's (library/ if bare)."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first.lower() != first):
        if first not in ("docker.io", "index.docker.io"):
            return first, rest
        name = rest
    return DEFAULT_DOMAIN, name if "/" in name else f"library/{name}"
