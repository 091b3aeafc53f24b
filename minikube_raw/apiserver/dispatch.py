"""From a request to an answer: authorization, the resource, the verb. Everything here is transport-neutral.

Long answers (watches, logs, exec) are told apart by `is_watch` and `streams`; all others are one coroutine to one Answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec

from minikube_raw.api import protobuf, status, times
from minikube_raw.api.patch import APPLY_PATCH
from minikube_raw.apiserver import (
    answers,
    auth,
    bodies,
    frames,
    negotiation,
    nodetokens,
    objects,
    ownership,
    patching,
    subresources,
    tables,
    tokens,
)
from minikube_raw.apiserver.admission import Admission
from minikube_raw.apiserver.answers import Answer, PlainNotFound
from minikube_raw.apiserver.auth import Authorizer, User
from minikube_raw.apiserver.deletion import Deleter
from minikube_raw.apiserver.discovery import serves
from minikube_raw.apiserver.documents import Documents
from minikube_raw.apiserver.issuer import Issuer
from minikube_raw.apiserver.lists import Page
from minikube_raw.apiserver.metrics import GROUP, Metrics
from minikube_raw.apiserver.negotiation import Representation
from minikube_raw.apiserver.options import delete_options, first, list_options, write_options
from minikube_raw.apiserver.registry import Now, Registry, Resource
from minikube_raw.apiserver.resizing import Resizing
from minikube_raw.apiserver.resources.strategy import Object, Part
from minikube_raw.apiserver.reviews import Reviews
from minikube_raw.apiserver.routes import RequestInfo, parse
from minikube_raw.apiserver.writes import Merge, WriteContext, Writer, Written
from minikube_raw.client.transport import Request

_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
# What kubectl asks before it says that nobody knows a kind (openapi3 validation, `failed to check CRD` otherwise).
_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions", "list")
_STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})
# Objects of a list written in protobuf (0.1 ms each) before the loop may serve others.
_PROTOBUF_PIECE = 50


class Call(msgspec.Struct, frozen=True):
    """A request that passed authorization, with what was found about it."""

    request: Request
    user: User
    info: RequestInfo
    resource: Resource
    now: Now

    def write_context(self) -> WriteContext:
        """Return who writes what, and how. Raises 422 for bad options."""
        applies = negotiation.content_type(self.request.content_type) == APPLY_PATCH
        options = write_options(self.request.query, self.request.user_agent, _OPTIONS[self.info.verb], applies=applies)
        return WriteContext(self.user, self.info, options, self.now, applies)


class Watch(NamedTuple):
    """An opened watch: what it is sent as, and its frames in batches."""

    content_type: str
    batches: AsyncIterator[list[bytes]]


class Dispatcher:
    """Answers requests over the registry."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission,
        authorize: Authorizer,
        documents: Documents,
        now: Now,
        issuer: Issuer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._authorize = authorize
        self._documents = documents
        self._issuer = issuer
        self._reviews = Reviews(authorize, issuer, now)
        self._resizing = Resizing(registry)
        self._writer = Writer(admission, now)
        self._deleter = Deleter(admission, now)
        self._now = now
        self._verbs: dict[str, Callable[[Call], Awaitable[Answer]]] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        self._subresources: dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]] = {
            ("status", "get"): self._get,
            ("status", "update"): partial(self._update, subresource=True),
            ("status", "patch"): partial(self._patch, subresource=True),
            ("scale", "get"): self._get_scale,
            ("scale", "update"): self._update_scale,
            ("scale", "patch"): self._patch_scale,
            ("binding", "create"): self._bind,
            ("eviction", "create"): self._evict,
            ("finalize", "update"): self._finalize,
            ("token", "create"): self._request_token,
        }
        for part in ("ephemeralcontainers", "resize"):
            verbs = (("get", self._get), ("update", self._update), ("patch", self._patch))
            self._subresources |= {(part, verb): handler for verb, handler in verbs}

    def authorized(self, request: Request, user: User) -> RequestInfo:
        """Return what the request asks for. Raises 403 when the user may not."""
        info = parse(request.method, request.path, request.query)
        decision = self._authorize(user, info, request.query)
        if not decision.allowed:
            raise auth.refusal(user, info, decision.reason)
        return info

    def is_watch(self, info: RequestInfo) -> bool:
        """Whether the answer is a watch."""
        return info.is_resource and info.verb == "watch"

    def is_stream(self, info: RequestInfo) -> bool:
        """Whether the answer is log output, a stream of bytes both ways, or somebody else's."""
        return info.is_resource and info.subresource in _STREAMS

    async def answer(self, request: Request, user: User, info: RequestInfo) -> Answer:
        """Answer an authorized request. Raises StatusError."""
        if not info.is_resource:
            return self._documents.answer(request, info)
        if (info.group, info.resource, info.verb) == _DEFINITIONS:
            return self._no_definitions()
        if self._reviews.serves(info):
            return self._reviews.answer(request, user, info)
        if info.group == GROUP and self._metrics is not None:
            return await self._metrics.answer(request, info)
        call = self.call(request, user, info)
        handler = self._handler(call)
        if handler is None:
            raise status.method_not_allowed()
        return await handler(call)

    def _no_definitions(self) -> Answer:
        head = {"kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1"}
        revision = str(self._registry.watch_cache.revision)
        return answers.document({**head, "metadata": {"resourceVersion": revision}, "items": []})

    def call(self, request: Request, user: User, info: RequestInfo) -> Call:
        """Find the resource. Raises 404 for a path that names none in this scope, 400 for a name that is none."""
        if info.group and info.group not in self._documents.groups:
            raise PlainNotFound
        if info.resource == "bindings" and not info.group and info.namespace:
            info = msgspec.structs.replace(info, resource="pods", subresource="binding", name=_bound_name(request))
        resource = self._registry.find(info)
        kind = resource.kind
        out_of_scope = bool(info.namespace) if not kind.namespaced else bool(info.name and not info.namespace)
        if out_of_scope and not (kind.plural == "namespaces" and info.name == info.namespace):
            raise status.no_such_resource()
        if info.subresource and not serves(kind, info.subresource):
            raise status.no_such_resource()
        if info.rest and info.subresource != "proxy":
            raise status.no_such_resource()
        if info.name in (".", ".."):
            raise status.bad_request(f"Name parameter invalid: \"{info.name}\": may not be '{info.name}'")
        if not kind.namespaced and info.namespace:
            info = msgspec.structs.replace(info, namespace="")
        return Call(request, user, info, resource, self._now)

    def _handler(self, call: Call) -> Callable[[Call], Awaitable[Answer]] | None:
        info, kind = call.info, call.resource.kind
        if info.subresource:
            return self._subresources.get((info.subresource, info.verb))
        needs_name = info.verb in ("get", "update", "patch", "delete")
        if needs_name != bool(info.name) or info.verb not in kind.verbs:
            return None
        if kind.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            return None
        return self._verbs.get(info.verb)

    # --- reads ---

    async def _get(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        version = first(call.request.query, "resourceVersion")
        value = await call.resource.get(call.info.namespace, call.info.name, version)
        return self._one(call, value, wanted)

    async def _list(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept, watchable=True)
        options = list_options(call.request.query, watch=False)
        page = await call.resource.page(call.info.namespace, options)
        return await self._page(call, page, wanted)

    def _one(self, call: Call, value: bytes, wanted: Representation, code: int = 200, warnings: Any = ()) -> Answer:
        if wanted.shape:
            include = tables.include_object(first(call.request.query, "includeObject"))
            shaped = tables.single(call.resource.strategy, value, include, wanted, self._now())
            value = msgspec.json.encode(shaped)
        return answers.encoded(value, wanted, code, warnings)

    async def _page(self, call: Call, page: Page, wanted: Representation) -> Answer:
        resource = call.resource
        metadata: Object = {"resourceVersion": str(page.revision)}
        if page.next_token:
            metadata["continue"] = page.next_token
            if page.remaining:
                metadata["remainingItemCount"] = page.remaining
        values = [resource.external(entry.value) for entry in page.entries]
        if wanted.shape:
            include = tables.include_object(first(call.request.query, "includeObject"))
            shaped = tables.collection(resource.strategy, values, metadata, include, wanted, self._now())
            return answers.document(shaped, wanted)
        return await _listed(resource, values, metadata, wanted)

    async def watch(self, request: Request, user: User, info: RequestInfo) -> Watch:
        """Open a watch of an authorized request. Raises StatusError before the first line; 410 comes as an event."""
        call = self.call(request, user, info)
        if "watch" not in call.resource.kind.verbs or info.subresource:
            raise status.method_not_allowed()
        wanted = negotiation.negotiate(request.accept, watchable=True)
        query = dict(request.query)
        if info.name:  # the deprecated /watch/…/NAME
            query["fieldSelector"] = (f"metadata.name={info.name}",)
        options = list_options(query, watch=True)
        convert = self._watch_shape(call, wanted) if wanted.shape else None
        binary = wanted.media == negotiation.PROTOBUF
        encode = frames.message if binary else frames.line
        content_type = f"{negotiation.PROTOBUF};stream=watch" if binary else negotiation.JSON
        try:
            return Watch(content_type, await call.resource.watch(info.namespace, options, convert, encode))
        except status.StatusError as error:
            if error.code != 410:
                raise
            return Watch(content_type, _once(frames.error(encode, error)))

    def _watch_shape(self, call: Call, wanted: Representation) -> Callable[[bytes], bytes]:
        include = tables.include_object(first(call.request.query, "includeObject"))
        strategy, external = call.resource.strategy, call.resource.external
        one = wanted._replace(shape="Table" if wanted.shape == "Table" else "PartialObjectMetadata")

        def convert(value: bytes) -> bytes:
            return msgspec.json.encode(tables.single(strategy, external(value), include, one, self._now()))

        return convert

    # --- writes ---

    async def _create(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        context = call.write_context()
        body = bodies.decode(call.resource.kind, call.request, context.options.field_validation)
        with _warning(body):
            body.obj.setdefault("metadata", {})
            call.resource.strategy.default(body.obj)
            written = await self._writer.create(call.resource, body.obj, context)
        return self._written(call, written, wanted, body.warnings)

    async def _update(self, call: Call, *, subresource: bool = False) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        context = call.write_context()
        body = bodies.decode(call.resource.kind, call.request, context.options.field_validation)
        with _warning(body):
            written = await self._replace(call, body.obj, context, subresource)
        return self._written(call, written, wanted, body.warnings)

    async def _replace(self, call: Call, obj: Object, context: WriteContext, subresource: bool) -> Written:
        metadata = obj.setdefault("metadata", {})
        objects.check_name(obj, call.info.name)
        objects.check_namespace(call.resource.kind, obj, call.info.namespace)
        call.resource.strategy.default(obj)
        upsert = call.resource.strategy.create_on_update and not subresource

        def merge(current: Object | None) -> Object:
            if current is not None:
                objects.check_uid(call.resource.kind, obj, current)
            return {**obj, "metadata": dict(metadata)}

        part = self._part(call)
        made = merge if part is None else self._fitting(call, merge)
        upsert = upsert and part is None
        return await self._writer.update(call.resource, made, context, part=part, upsert=upsert, status=subresource)

    async def _patch(self, call: Call, *, subresource: bool = False) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        context = call.write_context()
        patch = patching.read(call.resource.strategy, call.request, context)
        part = self._part(call)
        merge = patch.merge if part is None else self._fitting(call, patch.merge)
        upsert = patch.creates and not subresource and part is None
        with _warning(patch):
            written = await self._writer.update(
                call.resource, merge, context, part=part, upsert=upsert, status=subresource
            )
        return self._written(call, written, wanted, patch.warnings)

    def _part(self, call: Call) -> Part | None:
        """The part of the object that a subresource of the kind's own changes."""
        return call.resource.strategy.parts.get(call.info.subresource)

    def _fitting(self, call: Call, merge: Merge) -> Merge:
        """Refuse a resize that the pod's node could never give (the PodResize admission plugin)."""

        def checked(current: Object | None) -> Object:
            made = merge(current)
            if current is not None and call.info.subresource == "resize":
                self._resizing.check(current, made)
            return made

        return checked

    def _written(self, call: Call, written: Written, wanted: Representation, warnings: Any = ()) -> Answer:
        code = 201 if written.created else 200
        return self._one(call, written.value, wanted, code, (*warnings, *written.warnings))

    async def _delete(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        options = delete_options(call.request.query, bodies.plain(call.request))
        deleted = await self._deleter.delete(call.resource, call.user, call.info, options)
        return answers.encoded(deleted.body, wanted)

    async def _delete_collection(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        options = delete_options(call.request.query, bodies.plain(call.request))
        selection = list_options(call.request.query, watch=False)
        values = await self._deleter.delete_collection(call.resource, call.user, call.info, options, selection)
        metadata = {"resourceVersion": str(self._registry.watch_cache.revision)}
        return await _listed(call.resource, values, metadata, wanted)

    # --- subresources ---

    async def _get_scale(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        value = await call.resource.get(call.info.namespace, call.info.name)
        return answers.document(subresources.scale_of(objects.decode(value)), wanted)

    async def _update_scale(self, call: Call) -> Answer:
        context = call.write_context()
        body = bodies.decode(subresources.SCALE, call.request, context.options.field_validation)
        objects.check_name({"metadata": body.obj.get("metadata") or {}}, call.info.name)
        return await self._scale(call, context, lambda current: body.obj, body)

    async def _patch_scale(self, call: Call) -> Answer:
        context = call.write_context()
        patch = patching.read_plain(subresources.SCALE, call.request, context)
        return await self._scale(call, context, patch.merge, patch)

    async def _scale(
        self,
        call: Call,
        context: WriteContext,
        scale: Callable[[Object | None], Object],
        source: bodies.Body | patching.Merge,
    ) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)

        def merge(current: Object | None) -> Object:
            assert current is not None
            wanted_scale = scale(subresources.scale_of(current, owners=context.applies))
            return subresources.scaled(current, wanted_scale, owners=context.applies)

        with _warning(source):
            written = await self._writer.update(call.resource, merge, context)
        scaled = msgspec.json.encode(subresources.scale_of(objects.decode(written.value)))
        return answers.encoded(scaled, wanted, warnings=source.warnings)

    async def _bind(self, call: Call) -> Answer:
        context = call.write_context()
        body = bodies.decode(subresources.BINDING, call.request, context.options.field_validation)

        def merge(current: Object | None) -> Object:
            assert current is not None
            return subresources.bound(current, body.obj, self._now)

        await self._writer.update(call.resource, merge, context, as_is=True)
        return _created(call)

    async def _evict(self, call: Call) -> Answer:
        context = call.write_context()
        body = bodies.decode(subresources.EVICTION, call.request, context.options.field_validation)
        options = delete_options(call.request.query, subresources.eviction_options(body.obj, call.info.name))
        await self._deleter.delete(call.resource, call.user, call.info, options)
        return _created(call)

    async def _request_token(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        context, info = call.write_context(), call.info
        body = bodies.decode(tokens.TOKEN_REQUEST, call.request, context.options.field_validation)
        if self._issuer is None:
            raise status.service_unavailable("this API server has no key to sign tokens with")
        tokens.default(body.obj)
        ownership.record_update(tokens.TOKEN_REQUEST, None, body.obj, context, times.time(self._now()))
        if call.user.node_name:
            await nodetokens.admit(self._registry, call.user.node_name, info.namespace, info.name, body.obj["spec"])
        made = await self._issuer.tokens.create(info.namespace, info.name, body.obj, self._now())
        return answers.encoded(msgspec.json.encode(made), wanted, 201, body.warnings)

    async def _finalize(self, call: Call) -> Answer:
        wanted = negotiation.negotiate(call.request.accept)
        context = call.write_context()
        body = bodies.decode(call.resource.kind, call.request, context.options.field_validation)

        def merge(current: Object | None) -> Object:
            assert current is not None
            return subresources.finalized(current, body.obj)

        written = await self._writer.update(call.resource, merge, context, as_is=True)
        return answers.encoded(written.value, wanted)


async def _listed(resource: Resource, values: list[bytes], metadata: Object, wanted: Representation) -> Answer:
    kind = resource.kind
    if wanted.media != negotiation.PROTOBUF:
        return answers.encoded(_joined(resource, values, metadata), wanted)
    items = []
    for number, value in enumerate(values):
        items.append(protobuf.message(objects.decode(value), kind.api_version, kind.kind))
        if number % _PROTOBUF_PIECE == _PROTOBUF_PIECE - 1:
            await asyncio.sleep(0)
    body = protobuf.encode_list(kind.api_version, f"{kind.kind}List", metadata, items)
    return Answer(200, body, negotiation.PROTOBUF)


def _joined(resource: Resource, values: list[bytes], metadata: Object) -> bytes:
    """Join objects to a list; what the list says once (kind, apiVersion) its items leave out."""
    kind = resource.kind
    skip = len(objects.item_prefix(kind))
    head = b'{"kind":"%bList","apiVersion":"%b","metadata":' % (kind.kind.encode(), kind.api_version.encode())
    items = b",{".join([memoryview(value)[skip:] for value in values])
    return b"".join((head, msgspec.json.encode(metadata), b',"items":[', b"{" if values else b"", items, b"]}"))


async def _once(frame: bytes) -> AsyncIterator[list[bytes]]:
    yield [frame]


def _created(call: Call) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return answers.document(body, negotiation.negotiate(call.request.accept), 201)


def _bound_name(request: Request) -> str:
    """Return the pod that a Binding posted to the collection is about."""
    metadata = bodies.peek(request).get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


@contextlib.contextmanager
def _warning(source: bodies.Body | patching.Merge) -> Iterator[None]:
    """Let a refusal carry the body's warnings; they are read when it happens, since a patch has them after its merge."""
    try:
        yield
    except status.StatusError as error:
        error.warnings = source.warnings
        raise
