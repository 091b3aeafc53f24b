"""The cluster's issuer of service-account tokens put together: its keys, who signs, who judges, and how others may judge.

The two documents are OIDC's discovery: whoever trusts this cluster's CA can check its tokens without asking for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from minikube_raw.apiserver import jwt
from minikube_raw.apiserver.answers import Answer
from minikube_raw.apiserver.auth import User
from minikube_raw.apiserver.jwt import Signer
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.tokenauth import TokenAuthenticator, TokenError
from minikube_raw.apiserver.tokens import Tokens

URL = "https://kubernetes.default.svc.cluster.local"
_CONFIGURATION, _KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
_CACHE = {"Cache-Control": "public, max-age=3600"}


class Issuer:
    """Over the files that `pki.service_account_key` makes: a private key, and the public ones as a key set."""

    def __init__(self, registry: Registry, key: Path, key_set: Path, now: Callable[[], datetime]) -> None:
        self._key_set = key_set.read_bytes()
        keys = jwt.read_keys(self._key_set)
        self.tokens = Tokens(registry, Signer(key, keys[0].kid), URL, (URL,))
        self.authenticator = TokenAuthenticator(registry, keys, URL, (URL,), now)

    def bearer(self, token: str) -> User | None:
        """Return whose token it is, None for nobody's."""
        try:
            return self.authenticator.authenticate(token).user
        except TokenError:
            return None

    def documents(self, address: str) -> Mapping[str, Answer]:
        """Return the documents by path; `address` is where clients reach this API server (host:port)."""
        configuration = {
            "issuer": URL,
            "jwks_uri": f"https://{address}{_KEYS}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [jwt.ALGORITHM],
        }
        about = Answer(200, msgspec.json.encode(configuration), headers=_CACHE)
        keys = Answer(200, self._key_set, "application/jwk-set+json", _CACHE)
        return {
            path + slash: answer for path, answer in ((_CONFIGURATION, about), (_KEYS, keys)) for slash in ("", "/")
        }
