"""The cluster's certificate authority and the certificates it signs: API server, kubelets, administrators, components.

Everything but the key of tokens is EC P-256 and lives as PEM files in one directory; making them twice gives the same files. This module
imports `cryptography` (9 MB), so it belongs to the commands that set a cluster up, not to the serving process.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from minikube_raw.apiserver import jwt

CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
# Kubernetes certificates start a little in the past, so that a node whose clock is late accepts them.
CLOCK_SKEW = timedelta(minutes=5)

SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


class Authority(NamedTuple):
    """A CA: its certificate and the key that signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, as clients want it in certificate-authority-data."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class KeyPair(NamedTuple):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class PKI(NamedTuple):
    """Where a cluster's files are. `directory` also holds what `client_files` makes for nodes and users."""

    directory: Path
    authority: Authority

    @property
    def ca(self) -> Path:
        """The CA's certificate, which every party trusts."""
        return self.directory / "ca.crt"

    @property
    def server(self) -> tuple[Path, Path]:
        """The API server's serving certificate and key."""
        return _paths(self.directory, "apiserver")

    @property
    def kubelet_client(self) -> tuple[Path, Path]:
        """The certificate and key the API server shows to kubelets."""
        return _paths(self.directory, "apiserver-kubelet-client")

    @property
    def token_keys(self) -> tuple[Path, Path]:
        """The private key that signs service accounts' tokens, and the public one as a JSON Web Key Set."""
        return self.directory / "sa.key", self.directory / "sa.jwks"

    @property
    def admin(self) -> tuple[Path, Path]:
        """The administrator's certificate and key (O = system:masters)."""
        return _paths(self.directory, "admin")


def make_ca(common_name: str = "kubernetes") -> Authority:
    """Make a self-signed authority that may sign leaf certificates only (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(name, name, key.public_key(), CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(
    ca: Authority,
    common_name: str,
    organisations: Sequence[str] = (),
    sans: Iterable[str] = (),
    *,
    server: bool = False,
    client: bool = False,
) -> KeyPair:
    """Sign a fresh key. The subject is what Kubernetes reads: CN is the user, each O a group; `sans` are names or addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organisations]
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = _builder(ca.certificate.subject, x509.Name(attributes), key.public_key(), LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=False), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    if names := [_general_name(san) for san in sans]:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(ca.key, hashes.SHA256())
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def load_or_create_pki(
    directory: Path,
    *,
    server_names: Iterable[str] = (),
    service_ip: str = "10.96.0.1",
) -> PKI:
    """Make what is missing in `directory` and keep what is there; the serving certificate is renewed when a name is new.

    `server_names` are every name and address under which clients reach this API server, besides those every cluster has.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki = PKI(directory, _load_or_create_ca(directory))
    names = tuple(dict.fromkeys((*SERVICE_NAMES, service_ip, "127.0.0.1", "::1", *server_names)))
    if not _covers(pki.server[0], names):
        _write_pair(directory, "apiserver", issue(pki.authority, "kube-apiserver", sans=names, server=True))
    client_files(pki, "apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    _ensure_token_keys(*pki.token_keys)
    client_files(pki, "admin", "kubernetes-admin", ("system:masters",))
    return pki


def _ensure_token_keys(key: Path, key_set: Path) -> None:
    """Make the key of service accounts' tokens, once: RSA, since every verifier of such tokens knows RS256 (30 ms)."""
    if not key.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.PrivateFormat.PKCS8
        _write(key, made.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()), 0o600)
    if not key_set.exists():
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise ValueError(f"{key}: not an RSA key")
        _write(key_set, _key_set(loaded.public_key()), 0o644)


def _key_set(key: rsa.RSAPublicKey) -> bytes:
    """Return the key as RFC 7517 has it; the key's name is the digest of its DER, as kube-apiserver names it."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    numbers = key.public_numbers()
    n, e = (jwt.encode(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.n, numbers.e))
    kid = jwt.encode(hashlib.sha256(der).digest())
    return json.dumps(
        {"keys": [{"use": "sig", "kty": "RSA", "kid": kid, "alg": jwt.ALGORITHM, "n": n, "e": e}]}
    ).encode()


def client_files(pki: PKI, file_name: str, common_name: str, organisations: Sequence[str] = ()) -> tuple[Path, Path]:
    """Return certificate and key files of a client, issued now if they are missing or near their end."""
    paths = _paths(pki.directory, file_name)
    if not _covers(paths[0], ()):
        _write_pair(pki.directory, file_name, issue(pki.authority, common_name, organisations, client=True))
    return paths


def server_files(pki: PKI, file_name: str, common_name: str, sans: Sequence[str]) -> tuple[Path, Path]:
    """Return certificate and key files of a server (a kubelet), issued now if missing, near their end or lacking a name."""
    paths = _paths(pki.directory, file_name)
    if not _covers(paths[0], sans):
        _write_pair(pki.directory, file_name, issue(pki.authority, common_name, sans=sans, server=True))
    return paths


def kubeconfig(
    server: str, ca: bytes, client: KeyPair, *, name: str = "minikube-raw", user: str = ""
) -> dict[str, Any]:
    """Return a kubeconfig with one cluster, user and context called `name`, credentials embedded."""
    user = user or name
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }


def read_pair(paths: tuple[Path, Path]) -> KeyPair:
    """Read a certificate and its key as PEM."""
    return KeyPair(paths[0].read_bytes(), paths[1].read_bytes())


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    begin = datetime.now(UTC) - CLOCK_SKEW
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begin).not_valid_after(begin + lifetime)


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _load_or_create_ca(directory: Path) -> Authority:
    certificate, key = _paths(directory, "ca")
    if not certificate.exists():
        authority = make_ca()
        _write_pair(directory, "ca", KeyPair(authority.pem, _key_pem(authority.key)))
        return authority
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key}: not an EC key")
    return Authority(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


def _covers(certificate: Path, names: Iterable[str]) -> bool:
    """Whether the certificate is there, lasts another month and holds every name."""
    if not certificate.exists():
        return False
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    if loaded.not_valid_after_utc - datetime.now(UTC) < timedelta(days=30):
        return False
    try:
        held = set(loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        held = set()
    return {_general_name(name) for name in names} <= held


def _write_pair(directory: Path, name: str, pair: KeyPair) -> None:
    # The key first: a certificate that is there always has its key.
    certificate, key = _paths(directory, name)
    _write(key, pair.key, 0o600)
    _write(certificate, pair.certificate, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.crt", directory / f"{name}.key"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
