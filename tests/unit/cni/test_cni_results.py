from __future__ import annotations

import pytest

from netplugins import errors, results
from netplugins.errors import CNIError

LATEST = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1450},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/ns/a", "mtu": 1450, "socketPath": "/s"},
    ],
    "ips": [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
        {"address": "10.1.0.3/24", "interface": 1},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "priority": 5}, {"dst": "::/0"}],
    "dns": {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]},
}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_middle_versions_say_the_family_of_each_address(version):
    told = results.downgrade(LATEST, version)
    assert [ip["version"] for ip in told["ips"]] == ["4", "6", "4"]
    assert told["cniVersion"] == version


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.0.0"])
def test_what_1_1_0_added_is_dropped_on_the_way_down(version):
    told = results.downgrade(LATEST, version)
    assert told["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}
    assert told["interfaces"][1] == {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/ns/a"}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_oldest_versions_have_one_address_per_family(version):
    assert results.downgrade(LATEST, version) == {
        "cniVersion": version,
        "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
        "dns": LATEST["dns"],
    }


def test_a_result_without_addresses_cannot_be_told_in_0_2_0():
    with pytest.raises(CNIError):
        results.downgrade({"interfaces": []}, "0.2.0")


def test_1_1_0_keeps_everything():
    assert results.downgrade(LATEST, "1.1.0") == LATEST


@pytest.mark.parametrize("version", results.SUPPORTED_VERSIONS)
def test_down_and_up_again_keeps_addresses_and_gateways(version):
    again = results.upgrade(results.downgrade(LATEST, version), version)
    kept = LATEST["ips"][:2] if version in ("0.1.0", "0.2.0") else LATEST["ips"]
    assert [(ip["address"], ip.get("gateway")) for ip in again["ips"]] == [
        (ip["address"], ip.get("gateway")) for ip in kept
    ]
    assert "version" not in again["ips"][0]
    assert again["dns"] == LATEST["dns"]


def test_a_result_without_version_is_in_the_configurations():
    assert results.upgrade({"ips": [{"version": "4", "address": "10.0.0.1/8"}]}, "0.4.0")["ips"] == [
        {"address": "10.0.0.1/8"}
    ]


@pytest.mark.parametrize("version", ["", "1.0", "1.1.1", "2.0.0", "v1.0.0", "1.0.0 "])
def test_versions_match_letter_by_letter(version):
    with pytest.raises(CNIError) as raised:
        results.require_supported(version)
    assert raised.value.code == errors.INCOMPATIBLE_VERSION
