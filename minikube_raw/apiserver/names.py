"""Name rules as validations use them: `api.name_rules` with the texts that belong to objects' own names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minikube_raw.api import name_rules
from minikube_raw.api.status import Cause

from . import fielderrors as field


def dns_label(value: str) -> list[str]:
    """Judge a name that must be a DNS label; one that is a DNS name with dots is told so."""
    if "." in value and not name_rules.dns_subdomain(value):
        return ["must not contain dots"]
    return name_rules.dns_label(value)


def causes(path: str, value: Any, texts: Iterable[str]) -> Iterator[Cause]:
    """Report each sentence found about `value` as a FieldValueInvalid at `path`."""
    return (field.invalid(path, value, text) for text in texts)
