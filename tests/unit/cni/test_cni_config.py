from __future__ import annotations

import json

import pytest

from minikube_raw.cni import cache, config
from netplugins import errors, skel
from netplugins.errors import CNIError


def plan(**keys):
    return {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]} | keys


def test_lists_are_loaded_in_the_order_of_their_names(tmp_path):
    (tmp_path / "99-last.conflist").write_text(json.dumps(plan(name="last")))
    (tmp_path / "10-first.conf").write_text(json.dumps({"cniVersion": "0.4.0", "name": "first", "type": "ptp"}))
    (tmp_path / "50-middle.json").write_text(json.dumps(plan(name="middle")))
    (tmp_path / "README").write_text("not a configuration")
    loaded = config.load(tmp_path)
    assert [entry["name"] for entry in loaded] == ["first", "middle", "last"]
    assert loaded[0]["plugins"][0]["type"] == "ptp"


def test_a_missing_directory_has_no_networks(tmp_path):
    assert config.load(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("offered", "settled"),
    [
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersion": ""}, "0.1.0"),
        ({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0"]}, "1.1.0"),
        ({"cniVersion": "1.0.0", "cniVersions": ["9.0.0"]}, "1.0.0"),
    ],
)
def test_the_newest_supported_version_is_settled_on(offered, settled):
    assert config.validated(plan(**offered))["cniVersion"] == settled


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        pytest.param(plan(name="a/b"), errors.INVALID_CONFIG, id="name with a slash"),
        pytest.param(plan(name=None), errors.INVALID_CONFIG, id="no name"),
        pytest.param(plan(plugins=[]), errors.INVALID_CONFIG, id="no plugins"),
        pytest.param(plan(plugins="bridge"), errors.INVALID_CONFIG, id="plugins a string"),
        pytest.param(plan(plugins=[{}]), errors.INVALID_CONFIG, id="no type"),
        pytest.param(plan(plugins=[None]), errors.INVALID_CONFIG, id="plugin null"),
        pytest.param(plan(cniVersion="7.0.0"), errors.INCOMPATIBLE_VERSION, id="unknown version"),
        pytest.param([], errors.INVALID_CONFIG, id="a list"),
    ],
)
def test_a_broken_list_is_refused_and_the_file_is_named(tmp_path, broken, code):
    path = tmp_path / "10-net.conflist"
    path.write_text(json.dumps(broken))
    with pytest.raises(CNIError, match=r"10-net\.conflist") as raised:
        config.load_file(path)
    assert raised.value.code == code


def test_a_file_cut_off_is_a_decoding_failure(tmp_path):
    path = tmp_path / "10-net.conflist"
    path.write_text('{"name": ')
    with pytest.raises(CNIError) as raised:
        config.load_file(path)
    assert raised.value.code == errors.DECODING_FAILURE


def test_a_cached_attachment_comes_back_and_a_damaged_one_is_none(tmp_path):
    records = cache.Cache(tmp_path, "net")
    stored = cache.CachedAttachment("c1", "eth0", "/run/ns", {"mac": "x"}, {"K": "V"}, {"cniVersion": "1.0.0"})
    records.store(stored, plan())
    assert records.load("c1", "eth0") == stored
    (tmp_path / "results" / "net-c2-eth0").write_text('{"kind": ')
    assert records.load("c2", "eth0") is None
    assert records.attachments() == [stored]


def test_networks_with_a_common_prefix_do_not_see_each_others_attachments(tmp_path):
    short, long = cache.Cache(tmp_path, "net"), cache.Cache(tmp_path, "net-b")
    long.store(cache.CachedAttachment("c", "eth0"), plan())
    assert short.attachments() == []
    assert len(long.attachments()) == 1


@pytest.mark.parametrize(
    ("text", "pairs"),
    [("", {}), ("A=1;B=x=y", {"A": "1", "B": "x=y"}), ("A=1;", {"A": "1"})],
)
def test_cni_args_are_pairs(text, pairs):
    assert skel.CmdArgs(args=text).extra == pairs


@pytest.mark.parametrize("text", ["A", "=1", "A="])
def test_malformed_cni_args_are_refused(text):
    with pytest.raises(CNIError) as raised:
        _ = skel.CmdArgs(args=text).extra
    assert raised.value.code == errors.INVALID_ENVIRONMENT
