"""Lists: which objects at which revision, and the pages of a limited list.

Without a limit a list comes from the cache. A page after the first reads the store at the first page's revision, so all
pages are one snapshot; when that history is gone the answer is 410, with a token that goes on without consistency.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from minikube_raw.api import status
from minikube_raw.api.selectors import Requirement, Selector
from minikube_raw.apiserver.cache import KindCache, WatchCache
from minikube_raw.apiserver.changes import Entry
from minikube_raw.apiserver.options import ListOptions, read_revision
from minikube_raw.store.kv import Compacted, FutureRevision, Store

TOKEN_VERSION = "meta.k8s.io/v1"
_PAGE = 500


class Token(msgspec.Struct, omit_defaults=True):
    """A continue token: go on at `start` (relative to the list's prefix) as of revision `rv` (-1: whatever is current)."""

    v: str = ""
    rv: int = 0
    start: str = ""


class Page(NamedTuple):
    """The objects of one answer. `remaining` is known only for lists without selectors."""

    entries: list[Entry]
    revision: int
    next_token: str = ""
    remaining: int = 0


Selects = Callable[[Entry], bool] | None


def selection(options: ListOptions, known: Collection[str], aliases: Mapping[str, str]) -> Selects:
    """Return the test of both selectors, None if every object passes. Raises 400 for a field nobody can select by."""
    labels = options.labels
    fields = Selector(tuple(_known(wanted, known, aliases) for wanted in options.fields.requirements))
    if labels.everything and fields.everything:
        return None
    if labels.everything:
        return lambda entry: fields.matches(entry.fields)
    if fields.everything:
        return lambda entry: labels.matches(entry.labels)
    return lambda entry: fields.matches(entry.fields) and labels.matches(entry.labels)


def _known(wanted: Requirement, known: Collection[str], aliases: Mapping[str, str]) -> Requirement:
    name = wanted.key
    if name in ("metadata.name", "metadata.namespace"):
        return wanted
    if aliases and name in aliases:
        return wanted._replace(key=aliases[name])
    if name in known and not aliases:
        return wanted
    if known:
        raise status.bad_request(f"field label not supported: {name}")
    text = f'"{name}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    raise status.bad_request(text)


def parse_revision(text: str) -> int:
    """Read a resourceVersion parameter. Raises 400."""
    try:
        return read_revision(text)
    except ValueError as error:
        raise status.bad_request(f"invalid resource version: {error}") from None


class Lister:
    """Answers lists of one kind."""

    def __init__(self, store: Store, watch_cache: WatchCache, cache: KindCache) -> None:
        self._store = store
        self._watch_cache = watch_cache
        self._cache = cache

    async def list(self, prefix: str, options: ListOptions, selects: Selects) -> Page:
        """Return the page that `options` ask for. Raises 400, 410, 504."""
        if options.continue_token:
            if options.resource_version not in ("", "0"):
                raise status.bad_request("specifying resource version is not allowed when using continue")
            return await self._continue(prefix, decode_token(options.continue_token), options.limit, selects)
        revision = parse_revision(options.resource_version)
        if options.match == "Exact" or (revision and options.limit > 0 and not options.match):
            return await self._at(prefix, revision, "", options.limit, selects)
        if not options.resource_version:
            await self._watch_cache.fresh()
        else:
            await self._watch_cache.wait(revision)
        # From the cache a list is not worth cutting for clients that take any revision (storage/cacher ignores the limit).
        limit = 0 if options.resource_version == "0" else max(options.limit, 0)
        return self._from_cache(prefix, limit, selects)

    def _from_cache(self, prefix: str, limit: int, selects: Selects) -> Page:
        found = self._cache.select(prefix, selects)
        revision = self._watch_cache.revision
        if not limit:
            return Page(list(found), revision)
        entries = list(itertools.islice(found, limit))
        rest = sum(1 for _ in found) if len(entries) == limit else 0
        if not rest:
            return Page(entries, revision)
        return Page(entries, revision, encode_token(prefix, entries[-1].key, revision), 0 if selects else rest)

    async def _continue(self, prefix: str, token: Token, limit: int, selects: Selects) -> Page:
        revision = 0 if token.rv < 0 else token.rv
        try:
            return await self._at(prefix, revision, prefix + token.start.lstrip("/"), limit, selects)
        except status.StatusError as error:
            if error.code != 410:
                raise
        go_on = Token(TOKEN_VERSION, -1, token.start.lstrip("/"))
        message = (
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
            "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
            "modified, or deleted between the time the first chunk was returned and now may show up in the list."
        )
        raise ExpiredContinue(message, _base64(go_on))

    async def _at(self, prefix: str, revision: int, start: str, limit: int, selects: Selects) -> Page:
        entries: list[Entry] = []
        while True:
            try:
                found = await self._store.range(prefix, start=start, limit=max(limit, 0) and _PAGE, revision=revision)
            except Compacted:
                raise status.expired() from None
            except FutureRevision as error:
                raise status.too_large_resource_version(error.asked, error.current) from None
            revision = revision or found.revision
            for position, kv in enumerate(found.kvs):
                entry = self._cache.entry(kv)
                if selects is not None and not selects(entry):
                    continue
                entries.append(entry)
                left = len(found.kvs) - position - 1 + found.remaining
                if len(entries) == limit and left:
                    return Page(entries, revision, encode_token(prefix, kv.key, revision), 0 if selects else left)
            if not found.remaining or not found.kvs:
                return Page(entries, revision)
            start = found.kvs[-1].key + "\0"


class ExpiredContinue(status.StatusError):
    """410 for a continue token whose snapshot is gone; `token` goes on from there without consistency."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(410, "Expired", message)
        self.token = token

    def to_dict(self) -> dict[str, object]:
        """Return the Status, whose metadata carries the token."""
        return {**super().to_dict(), "metadata": {"continue": self.token}}

    def to_json(self) -> bytes:
        """Return the Status as the server sends it."""
        return msgspec.json.encode(self.to_dict())


def encode_token(prefix: str, last_key: str, revision: int) -> str:
    """Return the token that goes on right after `last_key`."""
    return _base64(Token(TOKEN_VERSION, revision, "/" + last_key.removeprefix(prefix) + "\0"))


def _base64(token: Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """Read a continue token. Raises 400 in apiserver's words (storage/continue.go)."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_token("illegal base64 data at input byte 0") from None
    try:
        token = msgspec.json.decode(raw, type=Token)
    except msgspec.MsgspecError:
        begin = raw[:1].decode(errors="replace")
        raise _bad_token(f"invalid character '{begin}' looking for beginning of value") from None
    if token.v != TOKEN_VERSION:
        raise _bad_token(f"server does not recognize this encoded version {token.v}")
    if token.rv == 0:
        raise _bad_token(f"incorrect encoded start resourceVersion (version {token.v})")
    if not token.start:
        raise _bad_token(f"encoded start key empty (version {token.v})")
    if ".." in token.start.split("/"):
        raise _bad_token(token.start)
    return token


def _bad_token(detail: str) -> status.StatusError:
    return status.bad_request(f"invalid continue token: continue key is not valid: {detail}")
