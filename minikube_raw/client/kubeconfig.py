"""From a kubeconfig file to a transport: the current context's server, CA and client certificate or token.

Only what our own commands and agents need: no exec plugins, no auth providers.
"""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from typing import Any

import yaml

from minikube_raw.client.http import HTTPTransport, client_context


class KubeconfigError(Exception):
    """The file does not say how to reach a cluster; the message names file and missing part."""


def transport_from(path: Path, context: str = "") -> HTTPTransport:
    """Return the transport of `context` (empty: current-context). Raises KubeconfigError, OSError."""
    with path.open(encoding="utf-8") as file:
        config: dict[str, Any] = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    chosen = _named(config, "contexts", context or config.get("current-context", ""), path).get("context", {})
    cluster = _named(config, "clusters", chosen.get("cluster", ""), path).get("cluster", {})
    user = _named(config, "users", chosen.get("user", ""), path).get("user", {})
    if not cluster.get("server"):
        raise KubeconfigError(f"{path}: the cluster {chosen.get('cluster')!r} has no server")
    return HTTPTransport(cluster["server"], _tls(cluster, user, path), token=user.get("token", ""))


def _named(config: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry)
    raise KubeconfigError(f"{path}: {section} has no entry named {name!r}")


def _tls(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> ssl.SSLContext | None:
    if not cluster["server"].startswith("https:"):
        return None
    ca_data = cluster.get("certificate-authority-data")
    context = client_context(
        ca_file=_beside(path, cluster.get("certificate-authority")),
        ca_data=base64.b64decode(ca_data).decode() if ca_data else None,
        cert_file=_beside(path, user.get("client-certificate")),
        key_file=_beside(path, user.get("client-key")),
    )
    if user.get("client-certificate-data"):
        certificate = base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        _load_chain(context, certificate)
    return context


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL reads certificates from files only; a memfd keeps the key off every disk."""
    fd = os.memfd_create("client-certificate")
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _beside(path: Path, name: str | None) -> Path | None:
    return path.parent / name if name else None
