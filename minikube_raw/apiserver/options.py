"""Query parameters as typed options: metav1's ListOptions, CreateOptions, UpdateOptions, PatchOptions and DeleteOptions.

Values are read as Go's conversions read them and judged as apimachinery judges them (meta/v1/validation), with its texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from minikube_raw.api import decode, selectors, status
from minikube_raw.api.selectors import Selector
from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver.routes import is_true

Query = Mapping[str, tuple[str, ...]]
Object = dict[str, Any]
_GROUP = "meta.k8s.io"
_UINT64_DIGITS = 19  # one fewer than the largest has: no revision comes near it
_POLICIES = ("Foreground", "Background", "Orphan")
_VALIDATIONS = ("", "Ignore", "Warn", "Strict")


class ListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to list or watch. `resource_version` keeps the difference between unset (empty) and 0."""

    labels: Selector
    fields: Selector
    watch: bool
    resource_version: str
    match: str
    limit: int
    continue_token: str
    timeout: int
    bookmarks: bool
    # None: not given.
    send_initial_events: bool | None


class WriteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to create, update or patch."""

    dry_run: bool
    field_manager: str
    field_validation: str
    force: bool


class DeleteOptions(msgspec.Struct, kw_only=True, rename="camel"):
    """How to delete. Preconditions are the uid and resourceVersion the object must have."""

    grace_period_seconds: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    dry_run: list[str] | None = None
    preconditions: dict[str, Any] | None = None


def first(query: Query, name: str) -> str:
    """Return a parameter's first value, empty if it is not there."""
    values = query.get(name, ())
    return values[0] if values else ""


def integer(query: Query, name: str) -> int | None:
    """Return a parameter as a number, None if absent. Raises 400 in strconv's words."""
    text = first(query, name)
    if not text:
        return None
    try:
        if not text.isascii() or "_" in text or text != text.strip():
            raise ValueError(text)
        number = int(text)
    except ValueError:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= number < 1 << 63:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def read_revision(text: str) -> int:
    """Read a resourceVersion, 0 for none. Raises ValueError in Kubernetes' words."""
    why = "" if (text or "0").isascii() and (text or "0").isdigit() else "invalid syntax"
    if not why and len(text) > _UINT64_DIGITS:
        why = "value out of range"
    if why:
        raise ValueError(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {why}')
    return int(text or 0)


def list_options(query: Query, *, watch: bool) -> ListOptions:
    """Read the options of a list or watch. Raises 400, 422."""
    limit, timeout = integer(query, "limit") or 0, integer(query, "timeoutSeconds") or 0
    initial = is_true(query["sendInitialEvents"]) if "sendInitialEvents" in query else None
    options = ListOptions(
        labels=_selector(selectors.parse_labels, first(query, "labelSelector")),
        fields=_selector(selectors.parse_fields, first(query, "fieldSelector")),
        watch=watch,
        resource_version=first(query, "resourceVersion"),
        match=first(query, "resourceVersionMatch"),
        limit=limit,
        continue_token=first(query, "continue"),
        timeout=timeout,
        bookmarks=is_true(query.get("allowWatchBookmarks", ())),
        send_initial_events=initial,
    )
    _refuse("ListOptions", _judge_watch(options) if watch else _judge_list(options))
    return options


def _selector(parse: Any, text: str) -> Selector:
    try:
        found: Selector = parse(text)
    except selectors.SelectorError as error:
        raise status.bad_request(str(error)) from None
    return found


def _judge_list(options: ListOptions) -> Iterator[Cause]:
    path = "resourceVersionMatch"
    if options.send_initial_events is not None:
        yield field.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
        return
    if not options.match:
        return
    if not options.resource_version:
        yield field.forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if options.continue_token:
        yield field.forbidden(path, "resourceVersionMatch is forbidden when continue is provided")
    if options.match not in ("Exact", "NotOlderThan"):
        yield field.not_supported(path, options.match, ("Exact", "NotOlderThan", ""))
    if options.match == "Exact" and options.resource_version == "0":
        yield field.forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')


def _judge_watch(options: ListOptions) -> Iterator[Cause]:
    path = "resourceVersionMatch"
    if options.continue_token:
        yield field.forbidden(path, "resourceVersionMatch is forbidden when continue is provided")
    if options.send_initial_events is None:
        if options.match:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            yield field.forbidden(path, text)
        return
    if options.match != "NotOlderThan":
        yield field.forbidden(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        if options.match:
            yield field.not_supported(path, options.match, ("NotOlderThan",))


def write_options(query: Query, user_agent: str, kind: str, *, applies: bool = False) -> WriteOptions:
    """Read the options of a create, update or patch; `kind` is CreateOptions, UpdateOptions or PatchOptions. Raises 422."""
    manager = first(query, "fieldManager")
    validation = first(query, "fieldValidation")
    causes = list(_judge_write(query, manager, validation))
    if applies and not manager:
        causes.append(field.required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and not applies and "force" in query:
        causes.append(field.forbidden("force", "may not be specified for non-apply patch"))
    _refuse(kind, iter(causes))
    return WriteOptions(
        dry_run="dryRun" in query,
        field_manager=manager or user_agent.split("/", 1)[0] or "unknown",
        field_validation=validation or "Warn",
        force=is_true(query.get("force", ())),
    )


def _judge_write(query: Query, manager: str, validation: str) -> Iterator[Cause]:
    yield from _judge_dry_run(list(query.get("dryRun", ())))
    if len(manager) > 128:
        yield field.too_long("fieldManager", 128)
    for position, char in enumerate(manager):
        if not char.isprintable():
            text = f"invalid character U+{ord(char):04X} (at position {position})"
            shown = _GO_ESCAPES.get(char, char)
            yield Cause("FieldValueInvalid", f'Invalid value: "{shown}": {text}', "fieldManager")
    if validation not in _VALIDATIONS:
        yield field.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn"))


_GO_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def _judge_dry_run(values: list[str]) -> Iterator[Cause]:
    if any(value != "All" for value in values):
        yield field.not_supported("dryRun", values, ("All",))


def delete_options(query: Query, body: Any) -> DeleteOptions:
    """Read the options of a deletion; a body (plain data, None for none) counts before the query. Raises 400, 422."""
    if body is not None:
        options = _delete_body(body)
    else:
        orphan = query.get("orphanDependents")
        options = DeleteOptions(
            grace_period_seconds=integer(query, "gracePeriodSeconds"),
            propagation_policy=first(query, "propagationPolicy") or None,
            orphan_dependents=is_true(orphan) if orphan else None,
            dry_run=list(query.get("dryRun", ())),
        )
    _refuse("DeleteOptions", _judge_delete(options))
    return options


def _delete_body(body: Any) -> DeleteOptions:
    if not isinstance(body, dict):
        text = f"json: cannot unmarshal {_json_type(body)} into Go value of type {decode.TYPE_META}"
        raise status.bad_request(f"couldn't get version/kind; json parse error: {text}")
    kind, version = body.get("kind", "DeleteOptions"), body.get("apiVersion", "v1")
    if kind != "DeleteOptions":
        scheme = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"
        raise status.bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{scheme}"')
    try:
        return msgspec.convert(body, DeleteOptions)
    except msgspec.ValidationError:
        name = next(name for name in _DELETE_TYPES if not _fits(body, name))
        found = _json_type(body[name])
        if found == "number" and _DELETE_TYPES[name] == "int64":
            found = f"number {body[name]}"
        text = f"json: cannot unmarshal {found} into Go struct field DeleteOptions.{name} of type {_DELETE_TYPES[name]}"
        raise status.bad_request(text) from None


_DELETE_TYPES = {
    "gracePeriodSeconds": "int64",
    "propagationPolicy": "v1.DeletionPropagation",
    "orphanDependents": "bool",
    "dryRun": "[]string",
    "preconditions": "v1.Preconditions",
}


def _fits(body: Object, name: str) -> bool:
    try:
        msgspec.convert({name: body[name]} if name in body else {}, DeleteOptions)
    except msgspec.ValidationError:
        return False
    return True


def _json_type(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _judge_delete(options: DeleteOptions) -> Iterator[Cause]:
    policy = options.propagation_policy
    if policy is not None and options.orphan_dependents is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        yield field.invalid("propagationPolicy", policy, text)
    if policy is not None and policy not in _POLICIES:
        yield field.not_supported("propagationPolicy", policy, (*_POLICIES, "nil"))
    yield from _judge_dry_run(options.dry_run or [])


def _refuse(kind: str, causes: Iterator[Cause]) -> None:
    found = list(causes)
    if found:
        raise status.invalid(_GROUP, kind, "", found)
