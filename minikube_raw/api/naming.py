"""Names nobody types: UIDs, generateName's suffixes and pod-template-hash.

Suffixes use apimachinery's alphabet (util/rand), which has no vowels and no easily confused digits, so that no name
reads as a word.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from typing import Any

import msgspec

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_GENERATED_PREFIX = 63 - _SUFFIX_LENGTH


def new_uid() -> str:
    """Return a random UUID, the form of metadata.uid."""
    return str(uuid.uuid4())


def random_suffix(length: int = _SUFFIX_LENGTH) -> str:
    """Return a random string of the safe alphabet."""
    return "".join(random.choices(ALPHABET, k=length))


def generate_name(prefix: str) -> str:
    """Return metadata.generateName's name: the prefix, cut so that the whole is a DNS label, and five characters."""
    return prefix[:_MAX_GENERATED_PREFIX] + random_suffix()


def safe_encode(text: str) -> str:
    """Write any string in the safe alphabet, one character each, as util/rand.SafeEncodeString does."""
    return "".join(ALPHABET[ord(char) % len(ALPHABET)] for char in text)


def template_hash(template: dict[str, Any], collision_count: int | None = None) -> str:
    """Return a stable hash of a pod template for the label pod-template-hash.

    Stable over key order and Python versions; `collision_count` makes another one when two templates met. It is not
    Kubernetes' own hash (FNV of Go's printed structs), which nothing outside the controller may depend on.
    """
    digest = hashlib.blake2b(msgspec.json.encode(template, order="deterministic"), digest_size=8)
    if collision_count:
        digest.update(str(collision_count).encode())
    return safe_encode(str(int.from_bytes(digest.digest(), "big") % 2**32))
