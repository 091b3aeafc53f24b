"""The rules of structured-merge-diff (v6) on Kubernetes' own types: repeated keys, order, nesting, versions, what clients send."""

import json

import pytest

from minikube_raw.api import apply, fieldset, managed_fields, scheme, structured
from minikube_raw.api.managed_fields import APPLY, UPDATE, Manager
from minikube_raw.api.schema import struct
from minikube_raw.api.status import StatusError

_DEPLOYMENT, _CONFIG_MAP = struct(scheme.DEPLOYMENT.definition), struct(scheme.CONFIG_MAP.definition)


class Live:
    """An object several managers write, without defaults or validation."""

    def __init__(self, shape, api_version, kind):
        self.shape, self.api_version, self.kind = shape, api_version, kind
        self.obj = None

    def config(self, fields):
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": "x"}, **fields}

    def apply(self, manager, fields, *, force=False, time="2020-01-01T00:00:00Z"):
        who = Manager(manager, APPLY, self.api_version)
        self.obj = apply.apply(self.shape, self.obj, self.config(fields), who, time, force=force).obj

    def update(self, manager, fields, *, owners=None, subresource="", time="2020-01-01T00:00:00Z"):
        new, who = self.config(fields), Manager(manager, UPDATE, self.api_version, subresource)
        if owners is not None:
            new["metadata"] = {**new["metadata"], "managedFields": owners}
        made = managed_fields.update(self.shape, self.obj, new, who, time)
        self.obj = {**new, "metadata": {"name": "x", **({"managedFields": made} if made else {})}}

    def conflicts(self, manager, fields):
        with pytest.raises(StatusError) as refused:
            self.apply(manager, fields)
        assert refused.value.code == 409
        return [cause.field for cause in refused.value.details.causes]

    @property
    def entries(self):
        return (self.obj or {}).get("metadata", {}).get("managedFields", [])

    @property
    def owners(self):
        return {entry["manager"]: set(fieldset.paths(entry["fieldsV1"])) for entry in self.entries}


@pytest.fixture
def deployment():
    return Live(_DEPLOYMENT, "apps/v1", "Deployment")


@pytest.fixture
def config_map():
    return Live(_CONFIG_MAP, "v1", "ConfigMap")


# --- repeated keys: validation lets env repeat a name ---


def env(*pairs):
    items = [{"name": name, "value": value} for name, value in pairs]
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": items}]}}}}


def env_of(obj):
    return [
        (item["name"], item.get("value")) for item in obj["spec"]["template"]["spec"]["containers"][0].get("env", [])
    ]


_ENV = '.spec.template.spec.containers[name="c"].env'
_A, _B = f'{_ENV}[name="a"]', f'{_ENV}[name="b"]'


def variables(live, manager):
    return {path for path in live.owners.get(manager, ()) if path.startswith((_A, _B))}


@pytest.mark.parametrize(
    ("before", "after", "one", "two"),
    [
        pytest.param(
            [("a", "1"), ("a", "2"), ("b", "3")],
            [("a", "1"), ("a", "3"), ("b", "3")],
            {_B, f"{_B}.name", f"{_B}.value"},
            {_A},
            id="changing one of them takes all of them",
        ),
        pytest.param(
            [("a", "1"), ("a", "2")],
            [("a", "1"), ("a", "2"), ("b", "3")],
            {_A},
            {_B, f"{_B}.name", f"{_B}.value"},
            id="they are one leaf, and others beside them change nothing",
        ),
        pytest.param(
            [("a", "1"), ("b", "3")],
            [("a", "1"), ("a", "2"), ("b", "3")],
            {_B, f"{_B}.name", f"{_B}.value"},
            {_A},
            id="repeating a key takes it",
        ),
        pytest.param(
            [("a", "1"), ("a", "2")],
            [("a", "1")],
            set(),
            {_A, f"{_A}.name", f"{_A}.value"},
            id="leaving one of them takes it with its fields",
        ),
        pytest.param([("a", "1"), ("a", "2")], [], set(), set(), id="removed, nobody owns them"),
    ],
)
def test_items_with_one_key_change_hands_as_a_whole(deployment, before, after, one, two):
    deployment.update("one", env(*before))
    deployment.update("two", env(*after))
    assert (variables(deployment, "one"), variables(deployment, "two")) == (one, two)


def test_an_applied_item_replaces_all_that_have_its_key_and_leaves_the_others(deployment):
    deployment.update("updater", env(("a", "1"), ("a", "2"), ("b", "3")))
    assert deployment.conflicts("applier", env(("a", "2"))) == [_A]
    deployment.apply("applier", env(("a", "3")), force=True)
    assert env_of(deployment.obj) == [("a", "3"), ("b", "3")]


def test_an_applier_that_no_longer_mentions_a_key_others_repeated_leaves_it(deployment):
    deployment.apply("applier", env(("a", "1"), ("b", "3")))
    deployment.update("updater", env(("a", "1"), ("a", "2"), ("b", "3")))
    deployment.apply("applier", env(("b", "3")))
    assert env_of(deployment.obj) == [("a", "1"), ("a", "2"), ("b", "3")]
    assert variables(deployment, "updater") == {_A}


# --- order ---


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        ("abc", "ab", "abc"),
        ("ab", "abc", "abc"),
        ("a", "b", "ab"),
        ("b", "abc", "abc"),
        ("abc", "cab", "cab"),
        ("abc", "ca", "bca"),
        ("xayb", "ba", "xyba"),
        ("abc", "", "abc"),
    ],
)
def test_the_configuration_orders_its_items_and_others_keep_their_places(live, config, merged):
    for items in (list, lambda names: [{"uid": name} for name in names]):
        field = "finalizers" if items is list else "ownerReferences"
        old, new = ({"metadata": {field: items(names)}} for names in (live, config))
        assert structured.merge(_CONFIG_MAP, old, new)["metadata"][field] == items(merged)


def test_fields_are_written_in_the_order_of_what_their_keys_say(deployment):
    ports = [{"containerPort": number, "protocol": protocol} for number in (443, 80) for protocol in ("UDP", "TCP")]
    containers = [{"name": "c", "ports": ports}]
    deployment.apply("m", {"spec": {"template": {"spec": {"containers": containers}}}})
    written = deployment.entries[0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert list(written) == [".", "f:name", "f:ports"]
    assert [json.loads(key[2:])["containerPort"] for key in written["f:ports"]] == [80, 80, 443, 443]


def test_conflicts_name_a_levels_own_fields_before_what_is_below_others(deployment):
    deployment.apply("one", {"spec": {"minReadySeconds": 1, "strategy": {"type": "Recreate"}, "paused": True}})
    wanted = {"spec": {"minReadySeconds": 2, "strategy": {"type": "RollingUpdate"}, "paused": False}}
    assert deployment.conflicts("two", wanted) == [".spec.minReadySeconds", ".spec.paused", ".spec.strategy.type"]


# --- what nobody applies any more ---


def volume_mounts(*paths):
    return [{"mountPath": path, "name": "v"} for path in paths]


def pods(*containers):
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def containers_of(obj):
    found = ((obj.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or []
    return {item["name"]: [mount["mountPath"] for mount in item.get("volumeMounts", [])] for item in found}


def test_an_item_another_applier_shares_loses_only_what_the_first_alone_applied(deployment):
    deployment.apply("one", pods({"name": "a"}, {"name": "b", "volumeMounts": volume_mounts("/c")}))
    deployment.apply("two", pods({"name": "b", "volumeMounts": volume_mounts("/d")}))
    deployment.apply("one", pods({"name": "a"}))
    assert containers_of(deployment.obj) == {"a": [], "b": ["/d"]}


def test_what_a_controller_added_to_an_item_stays_with_an_applier_of_the_item(deployment):
    deployment.apply("one", pods({"name": "a"}, {"name": "b", "volumeMounts": volume_mounts("/c")}))
    deployment.apply("two", pods({"name": "b", "volumeMounts": volume_mounts("/d")}))
    deployment.update("controller", pods({"name": "a"}, {"name": "b", "volumeMounts": volume_mounts("/c", "/d", "/e")}))
    deployment.apply("one", pods({"name": "a"}))
    assert containers_of(deployment.obj) == {"a": [], "b": ["/d", "/e"]}


def test_an_item_its_only_applier_drops_takes_along_what_a_controller_added_to_it(deployment):
    deployment.apply("one", pods({"name": "a"}, {"name": "b", "volumeMounts": volume_mounts("/c")}))
    deployment.update("controller", pods({"name": "a"}, {"name": "b", "volumeMounts": volume_mounts("/c", "/d")}))
    deployment.apply("one", pods({"name": "a"}))
    assert containers_of(deployment.obj) == {"a": []}
    assert "controller" not in deployment.owners


def rolling(**fields):
    return {"spec": {"strategy": {"rollingUpdate": fields}}}


@pytest.mark.parametrize(
    ("taken", "last", "left"),
    [
        pytest.param(None, {}, None, id="alone, all of it goes"),
        pytest.param({"maxSurge": 1, "maxUnavailable": 2}, {}, {"maxUnavailable": 2}, id="others' fields stay"),
        pytest.param({"maxSurge": 1, "maxUnavailable": 2}, rolling(), {"maxUnavailable": 2}, id="an empty struct"),
        pytest.param({"maxSurge": 5}, {}, {"maxSurge": 5}, id="a field somebody took stays"),
    ],
)
def test_fields_of_a_struct_go_when_their_last_owner_drops_them(deployment, taken, last, left):
    deployment.apply("m", rolling(maxSurge=1))
    if taken is not None:
        deployment.update("controller", rolling(**taken))
    deployment.apply("m", last)
    assert deployment.obj["spec"]["strategy"].get("rollingUpdate") == left


# --- versions and migration ---


def entry(manager, operation, fields, version="apps/v1"):
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": version,
        "time": "2020-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }


_REPLICAS = {"f:spec": {"f:replicas": {}}}


def test_an_applier_is_the_same_manager_in_every_version(deployment):
    deployment.update("client", {"spec": {"replicas": 3}}, owners=[entry("m", APPLY, _REPLICAS, "apps/v1beta2")])
    deployment.apply("m", {"spec": {"paused": True}})
    mine = [found for found in deployment.entries if found["manager"] == "m"]
    assert [(found["apiVersion"], found["fieldsV1"]) for found in mine] == [("apps/v1", {"f:spec": {"f:paused": {}}})]


def test_an_entry_of_another_version_still_owns_its_fields(deployment):
    deployment.update("before", {"spec": {"replicas": 3}})
    deployment.update("client", {"spec": {"replicas": 3}}, owners=[entry("old", UPDATE, _REPLICAS, "apps/v1beta2")])
    assert deployment.conflicts("m", {"spec": {"replicas": 4}}) == [".spec.replicas"]
    deployment.update("new", {"spec": {"replicas": 5}})
    assert set(deployment.owners) == {"new"}


def test_kubectls_migration_hands_what_it_updated_to_its_applier(config_map):
    # csaupgrade.UpgradeManagedFieldsPatch replaces metadata.managedFields by a JSON patch.
    config_map.update("kubectl-client-side-apply", {"data": {"a": "1", "b": "1"}})
    config_map.update("controller", {"data": {"a": "1", "b": "1", "c": "1"}})
    upgraded = [
        {**found, "manager": "kubectl", "operation": APPLY} if "kubectl" in found["manager"] else found
        for found in config_map.entries
    ]
    config_map.update("kubectl", {"data": {"a": "1", "b": "1", "c": "1"}}, owners=upgraded)
    assert config_map.owners == {"kubectl": {".data", ".data.a", ".data.b"}, "controller": {".data.c"}}
    config_map.apply("kubectl", {"data": {"a": "2"}})
    assert config_map.obj["data"] == {"a": "2", "c": "1"}


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def test_kubectl_does_not_take_over_what_somebody_changed_since_it_applied(config_map):
    last = json.dumps(config_map.config({"data": {"a": "1", "b": "1"}}))
    metadata = {"name": "x", "annotations": {_LAST_APPLIED: last}}
    made = {"metadata": metadata, "data": {"a": "1", "b": "1"}}
    config_map.update("kubectl-client-side-apply", made)
    config_map.obj["metadata"]["annotations"] = metadata["annotations"]
    owners = config_map.entries
    config_map.update("other", {"data": {"a": "9", "b": "1"}}, owners=owners)
    config_map.obj["metadata"]["annotations"] = metadata["annotations"]
    assert config_map.conflicts("kubectl", {"data": {"a": "2", "b": "2"}}) == [".data.a"]


# --- what clients send ---


@pytest.mark.parametrize(
    "owners",
    [
        [{"manager": "m", "operation": "Nope", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [entry("m", UPDATE, {"f:data": {}}, version="")],
        [{**entry("m", UPDATE, {"f:data": {}}), "fieldsType": "FieldsV2"}],
        [entry("m", UPDATE, {"f:data": 3})],
        [entry("m", UPDATE, {"data": {}})],
        [entry("m", UPDATE, {"k:{": {}})],
        [entry("m", UPDATE, {"k:[1]": {}})],
        [entry("m", UPDATE, {"i:x": {}})],
        [entry("m", UPDATE, {"": {}})],
    ],
)
def test_owners_a_client_made_up_badly_are_not_believed(config_map, owners):
    config_map.update("first", {"data": {"a": "1"}})
    config_map.update("second", {"data": {"a": "1", "b": "1"}}, owners=owners)
    assert config_map.owners == {"first": {".data", ".data.a"}, "second": {".data.b"}}


def test_sets_a_client_sends_are_spelled_as_ours(deployment):
    ports = {'k:{"protocol": "TCP",  "containerPort": 80}': {".": {}, "f:name": {}}}
    sent = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{ "name":"c" }': {"f:ports": ports}}}}}}
    containers = [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "w"}]}]
    deployment.update("first", pods(*containers))
    deployment.update("m", pods(*containers), owners=[entry("m", UPDATE, sent)])
    port = '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]'
    assert deployment.owners == {"m": {port, f"{port}.name"}}


@pytest.mark.parametrize("nothing", [[], [{}]])
def test_a_client_may_have_all_owners_forgotten_but_not_through_a_subresource(config_map, nothing):
    config_map.update("first", {"data": {"a": "1"}})
    config_map.update("second", {"data": {"a": "1"}}, owners=nothing, subresource="status")
    assert config_map.owners == {"first": {".data", ".data.a"}}
    config_map.update("second", {"data": {"a": "2"}}, owners=nothing)
    assert config_map.owners == {}
    config_map.update("third", {"data": {"a": "3"}})
    assert config_map.owners == {}, "an update does not begin what nobody tracks"
    config_map.apply("m", {"data": {"b": "1"}})
    assert config_map.owners == {"before-first-apply": {".data", ".data.a"}, "m": {".data.b"}}


# --- times and numbers of entries ---


def test_only_a_write_that_takes_something_renews_its_managers_time(config_map):
    config_map.update("first", {"data": {"a": "1", "b": "1"}}, time="2020-01-01T00:00:01Z")
    config_map.update("first", {"data": {"a": "1"}}, time="2020-01-01T00:00:02Z")
    assert [found["time"] for found in config_map.entries] == ["2020-01-01T00:00:01Z"]
    config_map.apply("m", {"data": {"a": "1"}}, time="2020-01-01T00:00:03Z")
    assert "time" not in config_map.entries[0], "it shares what was there and changed nothing"
    config_map.apply("m", {"data": {"a": "1", "c": "1"}}, time="2020-01-01T00:00:04Z")
    config_map.apply("m", {"data": {"a": "1", "c": "1"}}, time="2020-01-01T00:00:05Z")
    assert config_map.entries[0]["time"] == "2020-01-01T00:00:04Z"


def test_writes_within_one_second_by_more_managers_than_are_kept_never_lose_a_field(config_map):
    for number in range(30):
        config_map.update(f"m{number:02}", {"data": {f"k{other}": "v" for other in range(number + 1)}})
        owned = set().union(*config_map.owners.values())
        assert owned == {".data", *(f".data.k{other}" for other in range(number + 1))}
        assert len(config_map.entries) <= managed_fields.MAX_UPDATE_MANAGERS


def test_appliers_are_never_merged(config_map):
    for number in range(12):
        config_map.apply(f"m{number:02}", {"data": {f"k{number}": "v"}})
    assert len(config_map.entries) == 12


_KEYLESS = ".secrets: element 0: associative list with keys has an element that omits all key fields"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"secrets": [{"namespace": "n"}]},
            f'{_KEYLESS} ["name"] (and doesn\'t have default values for any key fields)',
        ),
        (
            {"metadata": {"name": "x", "finalizers": [None]}},
            ".metadata.finalizers: element 0: associative list without keys has an element that's an explicit null",
        ),
    ],
)
def test_an_item_without_identity_is_refused(fields, text):
    account = Live(struct(scheme.SERVICE_ACCOUNT.definition), "v1", "ServiceAccount")
    with pytest.raises(StatusError) as refused:
        account.apply("m", fields)
    assert refused.value.message == f"failed to create typed patch object (/x; /v1, Kind=ServiceAccount): {text}"
