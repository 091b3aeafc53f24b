from __future__ import annotations

import ipaddress
import multiprocessing
import os
import shutil
import signal
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netplugins import errors, host_local, host_local_index, skel
from netplugins.errors import CNIError
from netplugins.host_local_index import OwnerIndex
from netplugins.host_local_store import Store
from netplugins.ranges import candidates, parse_sets


def arguments(tmp_path, container_id="c1", ifname="eth0", *, extra="", **config):
    ipam = {"type": "host-local", "dataDir": str(tmp_path)} | config.pop("ipam", {"subnet": "10.1.0.0/29"})
    return skel.CmdArgs(
        container_id, ifname=ifname, args=extra, config={"cniVersion": "1.1.0", "name": "net", "ipam": ipam} | config
    )


def add(args) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in skel.call(host_local, "ADD", args)["ips"]]


def delete(args) -> None:
    skel.call(host_local, "DEL", args)


def test_a_full_range_is_all_but_network_gateway_and_broadcast(tmp_path):
    assert [add(arguments(tmp_path, f"c{n}"))[0] for n in range(5)] == [f"10.1.0.{n}" for n in range(2, 7)]
    with pytest.raises(CNIError, match=r"no IP addresses available in range set: 10\.1\.0\.1-10\.1\.0\.6") as raised:
        add(arguments(tmp_path, "another"))
    assert raised.value.code == errors.TRY_AGAIN_LATER


def test_a_freed_address_comes_back_only_after_the_others(tmp_path):
    add(arguments(tmp_path, "a"))
    delete(arguments(tmp_path, "a"))
    assert [add(arguments(tmp_path, f"c{n}"))[0][-1] for n in range(5)] == ["3", "4", "5", "6", "2"]


def test_records_are_laid_out_as_the_reference_does(tmp_path):
    add(arguments(tmp_path, "abc"))
    assert (tmp_path / "net/10.1.0.2").read_bytes() == b"abc\r\neth0"
    assert (tmp_path / "net/last_reserved_ip.0").read_text() == "10.1.0.2"
    assert (tmp_path / "net/lock").exists()


@pytest.mark.parametrize("record", [b"old", b"old\n", b"old\r\neth0", b"old\neth0\n"])
def test_records_of_every_age_are_released(tmp_path, record):
    add(arguments(tmp_path, "other"))
    (tmp_path / "net/10.1.0.5").write_bytes(record)
    delete(arguments(tmp_path, "old"))
    assert not (tmp_path / "net/10.1.0.5").exists()
    assert (tmp_path / "net/10.1.0.2").exists()


def test_a_record_cut_off_by_a_crash_does_not_lose_its_address(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/10.1.0.2").touch()
    (tmp_path / "net/last_reserved_ip.0").write_text("garbage")
    assert add(arguments(tmp_path)) == ["10.1.0.2"]
    assert (tmp_path / "net/10.1.0.2").read_bytes() == b"c1\r\neth0"


def test_another_interface_of_one_container_gets_its_own_address_and_the_same_is_refused(tmp_path):
    assert add(arguments(tmp_path, "a")) != add(arguments(tmp_path, "a", "net1"))
    with pytest.raises(CNIError) as raised:
        add(arguments(tmp_path, "a"))
    assert raised.value.code == errors.ALREADY_ATTACHED
    delete(arguments(tmp_path, "a"))
    assert add(arguments(tmp_path, "a"))


def test_what_another_plugin_changed_among_the_records_is_seen(tmp_path):
    add(arguments(tmp_path, "ours"))
    delete(arguments(tmp_path, "never"))  # has looked through the records, and knows them now
    (tmp_path / "net/10.1.0.2").unlink()
    (tmp_path / "net/10.1.0.2").write_bytes(b"theirs\r\neth0")

    with pytest.raises(CNIError, match=r"10\.1\.0\.2 already allocated to theirs"):
        add(arguments(tmp_path, "theirs"))
    delete(arguments(tmp_path, "theirs"))
    assert not (tmp_path / "net/10.1.0.2").exists()
    assert add(arguments(tmp_path, "ours")) == ["10.1.0.3"]


def test_a_record_that_names_a_path_is_no_path(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/10.1.0.2").write_bytes(b"../../../outside\r\neth0")
    delete(arguments(tmp_path, "never"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owners", "net"]


def test_nothing_tells_of_an_attachment_that_is_gone(tmp_path):
    for name in ("a", "b"):
        add(arguments(tmp_path, name))
    delete(arguments(tmp_path, "a"))
    assert [path.name.partition(":")[0] for path in (tmp_path / ".owners/net").iterdir()] == ["b"]
    delete(arguments(tmp_path, "b"))
    assert list((tmp_path / ".owners/net").iterdir()) == []


@pytest.fixture
def read_records(monkeypatch):
    """Names of the files that were read among the records, in order."""
    names: list[str] = []
    read = Store._read

    def noting(store, name):
        names.append(name)
        return read(store, name)

    monkeypatch.setattr(Store, "_read", noting)
    return names


def test_nobody_elses_record_is_read_however_many_there_are(tmp_path, read_records):
    for n in range(4):
        add(arguments(tmp_path, f"c{n}"))
    read_records.clear()
    held = add(arguments(tmp_path, "late"))
    delete(arguments(tmp_path, "c1"))
    assert set(read_records) <= {"last_reserved_ip.0", "10.1.0.3", *held}


def bring_records_back(directory):
    """As from a copy with all its times."""
    shutil.copytree(directory / "net", directory / "copy")
    shutil.rmtree(directory / "net")
    (directory / "copy").rename(directory / "net")


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "net/10.1.0.6").write_bytes(b"theirs\r\neth0"),
        lambda directory: (directory / ".owners/net/a:eth0").unlink(),
        lambda directory: shutil.rmtree(directory / ".owners"),
        bring_records_back,
    ],
    ids=["a record more", "a link less", "no links", "records brought back"],
)
def test_any_change_beside_ours_has_all_records_read_once(tmp_path, read_records, change):
    add(arguments(tmp_path, "a"))
    change(tmp_path)
    for expected in (True, False):
        read_records.clear()
        delete(arguments(tmp_path, "never"))
        assert ("10.1.0.2" in read_records) == expected
    delete(arguments(tmp_path, "a"))
    assert not (tmp_path / "net/10.1.0.2").exists()


def test_a_crash_between_record_and_link_loses_no_address(tmp_path, monkeypatch):
    add(arguments(tmp_path, "before"))
    with monkeypatch.context() as crash:
        crash.setattr(OwnerIndex, "add", lambda *_: os._exit(0))
        process = multiprocessing.get_context("fork").Process(target=add, args=(arguments(tmp_path, "a"),))
        process.start()
        process.join()
    assert (tmp_path / "net/10.1.0.3").exists()
    delete(arguments(tmp_path, "a"))
    assert not (tmp_path / "net/10.1.0.3").exists()


def test_links_of_an_earlier_boot_are_not_believed(tmp_path, read_records, monkeypatch):
    add(arguments(tmp_path, "a"))
    monkeypatch.setattr(host_local_index, "_mark", lambda _inode: 1)
    read_records.clear()
    delete(arguments(tmp_path, "never"))
    assert "10.1.0.2" in read_records


def test_a_link_that_a_record_contradicts_frees_nothing(tmp_path):
    add(arguments(tmp_path, "a"))
    (tmp_path / "net/10.1.0.2").write_bytes(b"b\r\neth0")  # in place: what a power cut may leave
    delete(arguments(tmp_path, "a"))
    assert (tmp_path / "net/10.1.0.2").exists()


def test_no_link_is_needed_to_find_what_an_attachment_holds(tmp_path):
    (tmp_path / ".owners").write_text("in the way")
    held = add(arguments(tmp_path, "a"))
    with pytest.raises(CNIError, match="already allocated"):
        add(arguments(tmp_path, "a"))
    delete(arguments(tmp_path, "a"))
    assert not (tmp_path / "net" / held[0]).exists()


def test_del_of_the_unknown_succeeds(tmp_path):
    delete(arguments(tmp_path, "never"))


@pytest.mark.parametrize(
    "source",
    [
        {"runtimeConfig": {"ips": ["10.1.0.4/29"]}},
        {"args": {"cni": {"ips": ["10.1.0.4"]}}},
        {"extra": "IgnoreUnknown=1;IP=10.1.0.4"},
    ],
    ids=["runtimeConfig", "args", "CNI_ARGS"],
)
def test_a_requested_address_is_given_or_refused(tmp_path, source):
    assert add(arguments(tmp_path, "a", **source)) == ["10.1.0.4"]
    with pytest.raises(CNIError, match=r"requested IP 10\.1\.0\.4 is not available"):
        add(arguments(tmp_path, "b", **source))


@pytest.mark.parametrize(
    ("wish", "says"), [("10.1.0.1", "gateway"), ("10.9.9.9", "failed to allocate all requested"), ("x", "invalid")]
)
def test_a_wish_that_cannot_be_met_leaves_no_record(tmp_path, wish, says):
    with pytest.raises(CNIError, match=says):
        add(arguments(tmp_path, runtimeConfig={"ips": [wish]}))
    assert not list(tmp_path.glob("net/10.*"))


def test_every_set_gives_an_address_and_an_exhausted_one_frees_the_others(tmp_path):
    both = {"ipam": {"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/126"}]]}}
    assert add(arguments(tmp_path, "a", **both)) == ["10.1.0.2", "fd00::2"]
    add(arguments(tmp_path, "b", **both))
    with pytest.raises(CNIError, match="fd00::"):
        add(arguments(tmp_path, "c", **both))
    assert not (tmp_path / "net/10.1.0.4").exists()


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.1.0.1/24"},
        {"subnet": "10.1.0.0/31"},
        {"subnet": "10.1.0.0/32"},
        {"subnet": "fd00::/127"},
        {"subnet": "nonsense"},
        {"ranges": [[]]},
        {"ranges": []},
        {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.3"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/28"}]]},
        {"ranges": [["10.1.0.0/24"]]},
        {"ranges": 5},
    ],
    ids=str,
)
def test_ranges_that_cannot_be_are_refused(tmp_path, ipam):
    with pytest.raises(CNIError) as raised:
        add(arguments(tmp_path, ipam=ipam))
    assert raised.value.code == errors.INVALID_CONFIG


def test_resolv_conf_becomes_dns(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("# c\n;c\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nsearch a b\ndomain d\noptions ndots:5\n\nbad\n")
    result = skel.call(host_local, "ADD", arguments(tmp_path, ipam={"subnet": "10.1.0.0/24", "resolvConf": str(path)}))
    assert result["dns"] == {
        "nameservers": ["1.1.1.1", "2.2.2.2"],
        "search": ["a", "b"],
        "domain": "d",
        "options": ["ndots:5"],
    }
    with pytest.raises(CNIError) as raised:
        add(arguments(tmp_path, "b", ipam={"subnet": "10.1.0.0/24", "resolvConf": str(tmp_path / "none")}))
    assert raised.value.code == errors.IO_FAILURE


def test_gc_frees_what_is_not_valid_and_does_nothing_without_a_list(tmp_path):
    kept, gone = add(arguments(tmp_path, "kept"))[0], add(arguments(tmp_path, "gone"))[0]
    skel.call(host_local, "GC", arguments(tmp_path))
    assert (tmp_path / "net" / gone).exists()
    valid = {"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]}
    for _ in range(2):
        skel.call(host_local, "GC", arguments(tmp_path, **valid))
    assert (tmp_path / "net" / kept).exists()
    assert not (tmp_path / "net" / gone).exists()


@given(
    start=st.integers(1, 40), length=st.integers(0, 21), gateway=st.integers(1, 62), last=st.none() | st.integers(0, 63)
)
@settings(max_examples=200, deadline=None)
def test_candidates_are_each_address_once_never_the_gateway_and_begin_after_the_last(start, length, gateway, last):
    base = ipaddress.ip_address("10.1.0.0")
    entry = {
        "subnet": "10.1.0.0/26",
        "rangeStart": str(base + start),
        "rangeEnd": str(base + start + length),
        "gateway": str(base + gateway),
    }
    (entries,) = parse_sets({"ranges": [[entry]]}, [], "1.1.0")
    wanted = [base + n for n in range(start, start + length + 1) if n != gateway]
    found = [address for address, _ in candidates(entries, None if last is None else base + last)]
    assert sorted(found) == wanted
    assert len(set(found)) == len(found)
    after = [
        address for address in wanted if last is not None and start <= last <= start + length and address > base + last
    ]
    assert found[: len(after)] == after


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
@settings(max_examples=40, deadline=None)
def test_no_history_of_adds_and_dels_gives_one_address_twice(tmp_path_factory, history):
    tmp_path, held = tmp_path_factory.mktemp("ipam"), {}
    for adding, number in history:
        args = arguments(tmp_path, f"c{number}")
        if not adding:
            delete(args)
            held.pop(number, None)
        elif number in held or len(held) == 5:
            with pytest.raises(CNIError):
                add(args)
        else:
            held[number] = add(args)[0]
        assert len(set(held.values())) == len(held)
        assert sorted(held.values()) == sorted(n for n in os.listdir(tmp_path / "net") if n[0].isdigit())


def _attach_many(tmp_path, worker, count, results):
    for number in range(count):
        args = arguments(tmp_path, f"w{worker}-{number}", ipam={"subnet": "10.1.0.0/22"})
        results.put((f"w{worker}-{number}", add(args)[0]))


def test_processes_at_once_share_no_address_and_a_killed_one_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [context.Process(target=_attach_many, args=(tmp_path, n, 25, results)) for n in range(6)]
    victim = context.Process(target=_attach_many, args=(tmp_path, "victim", 1000, context.SimpleQueue()))
    for process in (*workers, victim):
        process.start()
    given = [results.get() for _ in range(6 * 25)]
    os.kill(victim.pid, signal.SIGKILL)
    for process in (*workers, victim):
        process.join()
    assert max(Counter(address for _, address in given).values()) == 1
    assert all((tmp_path / "net" / address).read_text().split()[0] == owner for owner, address in given)
    assert add(arguments(tmp_path, "after", ipam={"subnet": "10.1.0.0/22"}))
