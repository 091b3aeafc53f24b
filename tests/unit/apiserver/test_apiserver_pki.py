"""The cluster's certificates: who they name, how long they last, what a second call changes."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from minikube_raw.apiserver import pki


def names(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in san]


def test_the_server_is_named_as_pods_and_people_call_it(tmp_path: Path) -> None:
    made = pki.load_or_create_pki(tmp_path, server_names=["10.243.0.1", "master.example"])

    assert set(names(made.server[0])) == {
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
        "localhost", "10.96.0.1", "127.0.0.1", "::1", "10.243.0.1", "master.example",
    }  # fmt: skip


def test_a_second_call_changes_nothing_and_a_new_name_only_the_server(tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    pki.load_or_create_pki(tmp_path, server_names=["a"])
    before = content()

    pki.load_or_create_pki(tmp_path, server_names=["a"])
    assert content() == before

    pki.load_or_create_pki(tmp_path, server_names=["a", "b"])
    assert {name for name, value in content().items() if value != before[name]} == {"apiserver.crt", "apiserver.key"}


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    pki.load_or_create_pki(tmp_path)

    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_a_client_certificate_names_user_and_groups(tmp_path: Path) -> None:
    made = pki.load_or_create_pki(tmp_path)

    pair = pki.issue(made.authority, "system:node:n1", ["system:nodes"], client=True)

    subject = x509.load_pem_x509_certificate(pair.certificate).subject
    assert subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"


def test_a_kubeconfig_carries_its_credentials(tmp_path: Path) -> None:
    made = pki.load_or_create_pki(tmp_path)

    config = pki.kubeconfig("https://127.0.0.1:6443", made.authority.pem, pki.read_pair(made.admin), name="lab")

    assert config["current-context"] == "lab"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"


def test_openssl_takes_the_chain(tmp_path: Path) -> None:
    made = pki.load_or_create_pki(tmp_path)

    context = ssl.create_default_context(cafile=str(made.ca))
    context.load_cert_chain(*made.admin)
