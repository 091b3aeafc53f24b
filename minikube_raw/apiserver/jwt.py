"""JSON Web Tokens signed with RS256: written with a private key, judged by published ones (RFC 7515, 7517, 8017).

Judging is one power in a ring of 2,048 bits (0.1 ms), so `cryptography` (9 MB) is imported only by a server that signs.
What the claims mean is not this module's business: see `tokens` and `tokenauth`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

ALGORITHM = "RS256"
# RFC 8017, 9.2: the DER that says "what follows is a SHA-256 digest".
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
Claims = dict[str, Any]


class JWTError(Exception):
    """The text is no token of these keys."""


class PublicKey(NamedTuple):
    """An RSA key that judges: modulus and exponent."""

    kid: str
    modulus: int
    exponent: int

    @property
    def size(self) -> int:
        """The length of its signatures in bytes."""
        return (self.modulus.bit_length() + 7) // 8


def read_keys(jwks: bytes) -> list[PublicKey]:
    """Return the keys of a JSON Web Key Set. Raises ValueError for another document."""
    keys = msgspec.json.decode(jwks)["keys"]
    return [PublicKey(key["kid"], _number(key["n"]), _number(key["e"])) for key in keys]


def verify(token: str, keys: Sequence[PublicKey]) -> Claims:
    """Return the claims of a token that one of the keys has signed. Raises JWTError."""
    head, payload, signature = _parts(token)
    header = _json(head)
    if header.get("alg") != ALGORITHM:
        raise JWTError(f"signature algorithm {header.get('alg')} is not supported")
    signed = f"{head}.{payload}".encode("ascii")
    asked = header.get("kid", "")
    if not any(_signed_by(key, signed, signature) for key in keys if asked in ("", key.kid)):
        raise JWTError("no key of ours has signed this token")
    return _json(payload)


def peek(token: str) -> Claims:
    """Return the claims without judging the signature: to see whose token it says it is. Raises JWTError."""
    return _json(_parts(token)[1])


def _parts(token: str) -> tuple[str, str, bytes]:
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise JWTError("a token has three parts")
    return parts[0], parts[1], _bytes(parts[2])


def _signed_by(key: PublicKey, signed: bytes, signature: bytes) -> bool:
    if len(signature) != key.size:
        return False
    opened = pow(int.from_bytes(signature, "big"), key.exponent, key.modulus).to_bytes(key.size, "big")
    digest = _SHA256_PREFIX + hashlib.sha256(signed).digest()
    # Compared whole: a check that skips over the padding is how forged signatures got in elsewhere (CVE-2006-4339).
    return opened == b"\x00\x01" + b"\xff" * (key.size - len(digest) - 3) + b"\x00" + digest


class Signer:
    """Signs with the private key in a PEM file, read on first use."""

    def __init__(self, path: Path, kid: str) -> None:
        self._path = path
        self._kid = kid
        self._key: Any = None

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the token of these claims. The first call imports `cryptography`; all others take 0.3 ms."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding

        if self._key is None:
            self._key = serialization.load_pem_private_key(self._path.read_bytes(), password=None)
        header = {"alg": ALGORITHM, "kid": self._kid}
        signed = f"{encode(msgspec.json.encode(header))}.{encode(msgspec.json.encode(claims))}"
        signature = self._key.sign(signed.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encode(signature)}"


def encode(content: bytes) -> str:
    """Return base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise JWTError(f"illegal base64 data: {error}") from None


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def _json(text: str) -> Claims:
    try:
        found = msgspec.json.decode(_bytes(text))
    except msgspec.DecodeError as error:
        raise JWTError(f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise JWTError("no JSON object")
    return found
