"""Acting as somebody else: the Impersonate-* headers (`kubectl --as`), for those who may do everything.

Sources: apiserver's endpoints/filters/impersonation and the headers' description in Kubernetes' authentication guide.
The uid and the extra fields are carried along; nothing here is decided by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from minikube_raw.api import status
from minikube_raw.apiserver import auth
from minikube_raw.apiserver.auth import ANONYMOUS, AUTHENTICATED, MASTERS, User
from minikube_raw.apiserver.routes import parse
from minikube_raw.client.transport import Request

_PREFIX = "impersonate-"
_EXTRA = "extra-"
_SERVICE_ACCOUNT = "system:serviceaccount:"
# By what follows the prefix, in small letters: every value that is not empty.
Asked = Mapping[str, list[str]]


def acting(user: User, request: Request, headers: Iterable[tuple[str, str]]) -> User:
    """Return whom the request is to be judged as: the user, or the one it asks to act as. Raises 400, 403."""
    asked: dict[str, list[str]] = {}
    for header, value in headers:
        if header.lower().startswith(_PREFIX) and value:
            asked.setdefault(header[len(_PREFIX) :].lower(), []).append(value)
    if not asked:
        return user
    if "user" not in asked:
        raise status.bad_request(f"requested {_shown(asked)} without impersonating a user name")
    name = asked["user"][0]
    if MASTERS not in user.groups:
        raise _refusal(user, name, request)
    extra = {
        unquote(key.removeprefix(_EXTRA)): tuple(values) for key, values in asked.items() if key.startswith(_EXTRA)
    }
    return User(name, _groups(name, asked.get("group", [])), asked.get("uid", [""])[0], extra)


def _groups(name: str, asked: list[str]) -> tuple[str, ...]:
    """Return the groups asked for, and those in which authentication would have put the user besides."""
    found = dict.fromkeys(asked)
    if name == ANONYMOUS.name:
        return tuple(found | dict.fromkeys(ANONYMOUS.groups))
    if not asked and name.startswith(_SERVICE_ACCOUNT):
        namespace = name.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
        found = dict.fromkeys(("system:serviceaccounts", f"system:serviceaccounts:{namespace}"))
    return tuple(found | {AUTHENTICATED: None})


def _refusal(user: User, name: str, request: Request) -> status.StatusError:
    """Return the 403 in the words of v1.36: the verb may not be done in another's name."""
    info = parse(request.method, request.path, request.query)
    mode = "serviceaccount" if name.startswith(_SERVICE_ACCOUNT) else "user-info"
    return auth.refusal(user, msgspec.structs.replace(info, verb=f"impersonate-on:{mode}:{info.verb}"), "")


def _shown(asked: Asked) -> str:
    """Write what was asked for as Go's %#v does."""
    extra = {key.removeprefix(_EXTRA): values for key, values in asked.items() if key.startswith(_EXTRA)}
    pairs = ", ".join(f'"{key}":{_strings(values)}' for key, values in sorted(extra.items()))
    shown = f"map[string][]string{{{pairs}}}" if extra else "map[string][]string(nil)"
    uid, groups = asked.get("uid", [""])[0], _strings(asked.get("group", []))
    return f'&user.DefaultInfo{{Name:"", UID:"{uid}", Groups:{groups}, Extra:{shown}}}'


def _strings(values: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}" if values else "[]string(nil)"
