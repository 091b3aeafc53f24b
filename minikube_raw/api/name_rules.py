"""Which strings may be names, labels and keys: the rules of apimachinery's util/validation in its words (v1.36).

Each function returns what is wrong, an empty list if nothing is; callers put the field's path before it.
"""

from __future__ import annotations

import re

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end"
    f" with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character"
    f" (e.g. 'my-name',  or 'abc-123', regex used for validation is '{_LABEL_1035}')"
)
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    f" (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character"
    f" (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{_LABEL_VALUE}')"
)
_CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    f" (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
)


def _check(value: str, limit: int, pattern: str, text: str, unit: str = "characters") -> list[str]:
    wrong = [f"must be no more than {limit} {unit}"] if len(value.encode()) > limit else []
    if not re.fullmatch(pattern, value):
        wrong.append(text)
    return wrong


def dns_label(value: str) -> list[str]:
    """RFC 1123 label: names of namespaces, containers and volumes."""
    return _check(value, 63, _LABEL, _LABEL_TEXT)


def dns_subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: names of most objects."""
    return _check(value, 253, _SUBDOMAIN, _SUBDOMAIN_TEXT)


def dns_1035_label(value: str) -> list[str]:
    """RFC 1035 label: names of Services."""
    return _check(value, 63, _LABEL_1035, _LABEL_1035_TEXT)


def path_segment(value: str) -> list[str]:
    """Names that are only ever part of a path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def qualified_name(value: str) -> list[str]:
    """Label keys, annotation keys, resource names: NAME or SUBDOMAIN/NAME."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {_QUALIFIED_TEXT} {optional}"]
    wrong = []
    if slash and not prefix:
        wrong.append("prefix part must be non-empty")
    elif slash:
        wrong += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not name:
        wrong.append("name part must be non-empty")
    return wrong + [f"name part {text}" for text in _check(name, 63, _QUALIFIED, _QUALIFIED_TEXT, "bytes")]


def label_value(value: str) -> list[str]:
    """Values of labels."""
    return _check(value, 63, _LABEL_VALUE, _LABEL_VALUE_TEXT, "bytes")


def config_map_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets, which become file names."""
    wrong = _check(value, 253, _CONFIG_KEY, _CONFIG_KEY_TEXT)
    if value == ".":
        wrong.append("must not be '.'")
    elif value == "..":
        wrong.append("must not be '..'")
    elif value.startswith(".."):
        wrong.append("must not start with '..'")
    return wrong
