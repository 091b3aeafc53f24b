"""YAML request bodies read as Kubernetes reads them (sigs.k8s.io/yaml over go-yaml v2): one document, as JSON data.

PyYAML's C loader with go-yaml's idea of scalars: `y` and `n` are booleans, 1e3 is a number, 1:30 and dates are text. Keys
become strings, equal keys are reported, aliases are bounded.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from minikube_raw.api import json_text

TOO_MANY_ALIASES = "yaml: document contains excessive aliasing"
TOO_DEEP = "yaml: exceeded max depth"
_MAX_EXPANDED = 400_000
# go-yaml's bound. The C composer calls itself for every level and has none: at 25,000 levels it takes the process down.
_MAX_DEPTH = 10_000
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]*[0-7]|0x[0-9a-fA-F_]+|(?:0|[1-9][0-9_]*))", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII
)
_BOOLEAN = re.compile(r"y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF|true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = frozenset({"y", "yes", "on", "true"})


class YAMLError(ValueError):
    """Malformed YAML; the text is go-yaml's where the same libyaml is underneath."""


class _Loader(_Base):  # type: ignore[misc]
    """A loader with resolvers of its own; counts and remembers what it meets."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []
        self.sizes: dict[int, int] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(self.construct_object(key_node, deep=True))
            if key in made:
                self.repeated.append(f'line {key_node.start_mark.line + 1}: key "{key}" already set in map')
            made[key] = self.construct_object(value_node, deep=True)
        return made


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (str, int, float)):
        return str(key)
    raise YAMLError(f"yaml: unsupported map key of type: {type(key).__name__}")


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "").lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith("0") and digits[1:2].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _number(loader: Any, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _boolean(loader: Any, node: yaml.ScalarNode) -> bool:
    return node.value.lower() in _TRUE


def _mapping(loader: Any, node: yaml.MappingNode) -> Any:
    return loader.construct_mapping(node, deep=True)


for _tag, _pattern, _first in (
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("bool", _BOOLEAN, "yYnNtTfFoO"),
    ("null", _NULL, "~nN\0"),
    ("merge", re.compile("<<"), "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$", re.ASCII), [*_first.replace("\0", ""), ""]
    )
for _tag, _construct in (("int", _integer), ("float", _number), ("bool", _boolean), ("map", _mapping)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)


def decode(body: bytes) -> tuple[Any, list[str]]:
    """Return the first document as plain data and what it says about repeated keys. Raises YAMLError."""
    if body.startswith(b"{") and (value := _as_json(body)) is not None:
        return value, []
    try:
        _check_depth(body)
        loader = _Loader(body)
        try:
            node = loader.get_node() if loader.check_node() else None
            if node is None:
                return None, []
            _expanded(node, loader.sizes)
            return loader.construct_document(node), loader.repeated
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise YAMLError(f"yaml: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YAMLError(str(error) if isinstance(error, YAMLError) else f"yaml: {error}") from None
    except RecursionError:
        raise YAMLError(TOO_DEEP) from None


def _check_depth(body: bytes) -> None:
    """Raise YAMLError for a first document that nests deeper than go-yaml reads."""
    if len(body) <= _MAX_DEPTH:
        return
    depth = 0
    for event in yaml.parse(body, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise YAMLError(TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentEndEvent):
            return


def _as_json(body: bytes) -> Any:
    """Return the value of a body that is JSON with no key twice, thirty times faster; None for any other."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if json_text.may_repeat_keys(body, value) else value


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many nodes a node stands for, aliases written out. Raises YAMLError beyond the bound."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise YAMLError("yaml: anchor contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    total = 1
    for child in node.value if not isinstance(node, yaml.ScalarNode) else ():
        total += sum(_expanded(part, sizes) for part in (child if isinstance(child, tuple) else (child,)))
        if total > _MAX_EXPANDED:
            raise YAMLError(TOO_MANY_ALIASES)
    sizes[id(node)] = total
    return total
