"""The server's TLS: clients may show a certificate of the cluster's CA, and who shows none gets a Status, not an alert.

A certificate of another CA ends the handshake: ssl has no callback by which it could be let in to be told 401.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """Return a context for serving: TLS 1.2 and newer, client certificates optional, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    # Two tickets with the client's certificates in them are a sixth of a handshake, and clients of Kubernetes resume no session.
    context.num_tickets = 0
    return context


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context for calling kubelets with the API server's client certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    return context
