import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import checked_hosts, settings_of, static_hosts, tables_from_toml
from operations.plan.inventory.oci import (
    Addresses,
    Instance,
    OciAccess,
    OciInventory,
    access_of,
    from_table,
    groups_of,
    groups_with_static,
    hosts_of,
    refuse_secrets,
    select,
    ssh_config,
)
from tests.unit.builders import DATA

COMPARTMENT = "ocid1.compartment.oc1..aaaagpus"
WHERE = "inventories/oci.toml"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----\n"


def wanted(**table: Any) -> OciInventory:
    return from_table({"compartments": [COMPARTMENT], **table}, WHERE)


def complaint(**table: Any) -> str:
    with pytest.raises(PlanError) as caught:
        wanted(**table)
    text = str(caught.value)
    assert text.startswith(WHERE)
    assert "\n" not in text
    return text


def instance(name: str, shape: str = "BM.GPU4.8", **more: Any) -> Instance:
    number = sum(map(ord, name))
    fields = {
        "ocid": f"ocid1.instance.oc1.iad.{number:06d}",
        "state": "RUNNING",
        "availability_domain": "Uocm:PHX-AD-1",
        **more,
    }
    return Instance(name=name, shape=shape, **fields)


def found(*instances: Instance) -> list[tuple[Instance, Addresses]]:
    return [(one, Addresses(f"10.0.0.{n}", f"203.0.113.{n}")) for n, one in enumerate(instances, start=1)]


# --- the table


def test_defaults_select_running_hosts_with_the_operator_s_key() -> None:
    table = wanted()
    assert (table.auth, table.profile, table.address) == ("config_file", "DEFAULT", "private")
    assert (table.lifecycle_state, table.include_subtree, table.bastion) == ("RUNNING", False, None)
    assert access_of(wanted(region="us-ashburn-1", shape="*")) == OciAccess(region="us-ashburn-1")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("regoin", "us-ashburn-1", "did you mean region?"),
        ("compartments", [], "compartments"),
        ("compartments", COMPARTMENT, "compartments"),
        ("compartments", ["gpus"], '[oci] compartments.0: found "gpus"'),
        ("compartments", ["ocid1.instance.oc1.iad.a"], "compartments.0"),
        ("include_subtree", "yes", "include_subtree"),
        ("include_subtree", 1, "include_subtree"),
        ("lifecycle_state", "running", "lifecycle_state"),
        ("freeform_tags", {"a": 1}, "freeform_tags.a"),
        ("freeform_tags", "a=1", "freeform_tags"),
        ("defined_tags", {"a": "b"}, "defined_tags.a"),
        ("auth", "instance-principal", "auth"),
        ("address", "10.0.0.1", "address"),
        ("region", "US Ashburn", "region"),
        ("shape", "BM.GPU4.9", "did you mean BM.GPU4.8? known: BM.GPU.B300.8"),
        ("shape", "BM.GPU.MI300X*", "known: BM.GPU.B300.8"),
        ("endpoint", "http://iaas.example.com", "endpoint"),
        ("endpoint", "https://user:pass@iaas.example.com", "endpoint"),
        ("endpoint", "https://iaas.example.com/path", "endpoint"),
        ("endpoint", "https://{servce}.example.com", "only {service} and {region}"),
        ("endpoint", "https://{service.example.com", "only {service} and {region}"),
        ("timeout_s", 0, "a whole number of seconds from 1 to 300"),
        ("timeout_s", True, "timeout_s"),
        ("timeout_s", "30", "timeout_s"),
        *[
            ("bastion", value, "bastion")
            for value in (
                "",
                "a b",
                "-oProxyCommand=reboot",
                "opc@a,opc@b",
                "a\nProxyCommand reboot",
                "a:0",
                "%h",
            )
        ],
    ],
)
def test_invalid_value_is_refused(key: str, value: Any, expected: str) -> None:
    text = complaint(**{key: value})
    assert key in text
    assert expected in text


def test_missing_compartments_are_named() -> None:
    with pytest.raises(PlanError, match=r"\[oci\] compartments: found nothing, expected a value"):
        from_table({}, WHERE)
    with pytest.raises(PlanError, match="compartment: found unknown key compartment, expected compartments"):
        from_table({"compartment": COMPARTMENT}, WHERE)
    with pytest.raises(PlanError, match=r"expected a table \[oci\]"):
        from_table([1], WHERE)


@pytest.mark.parametrize(
    "bastion",
    [
        "203.0.113.7",
        "opc@bastion.example.com:2222",
        "ocid1.bastionsession.oc1.iad.a@host.bastion.us.oci.oc.com",
    ],
)
def test_bastion_accepts_proxyjump_notation(bastion: str) -> None:
    assert wanted(bastion=bastion).bastion == bastion


# --- secrets


@pytest.mark.parametrize(
    "toml",
    [
        f"[oci]\nkey = '''{PRIVATE_KEY}'''\n",
        f"[hosts.gpu-1]\nssh_key = '''{PRIVATE_KEY}'''\n",
        f"[hosts.gpu-1.profile_overrides.server]\na = ['''{PRIVATE_KEY}''']\n",
        "[oci]\nprofile = 'hf_CANARYcanary01'\n",
        "[oci]\nhf_CANARYcanary01 = 1\n",
        "[oci.freeform_tags]\ntoken = 'hf_CANARYcanary01'\n",
        "[oci]\npass_phrase = 'CANARY'\n",
        "[oci]\nkey_content = 'CANARY'\n",
        "[oci]\nsecurity_token = 'CANARY'\n",
        "[hosts.hf_CANARYcanary01]\n",
    ],
)
def test_secret_is_refused_and_not_shown(tmp_path: Path, toml: str) -> None:
    path = tmp_path / "oci.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(PlanError, match="expected no secret in an inventory") as caught:
        tables_from_toml(path)
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ordinary_values_are_not_taken_as_secrets() -> None:
    refuse_secrets({"oci": {"profile": "p"}, "hosts": {"a": {"ssh_key": "~/.ssh/id"}}}, WHERE)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "oci.toml"
    path.write_bytes(b"\xef\xbb\xbf[hosts.gpu-1]\r\n")
    assert static_hosts(tables_from_toml(path), WHERE) == [("gpu-1", {})]


# --- filters


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({}, ["a100", "h100"]),
        ({"display_name": "a*"}, ["a100"]),
        ({"shape": "BM.GPU.H100.8"}, ["h100"]),
        ({"shape": "BM.GPU*"}, ["a100", "h100"]),
        ({"freeform_tags": {"stage": "live"}}, ["a100"]),
        ({"freeform_tags": {"stage": "live", "team": "x"}}, None),
        ({"defined_tags": {"Operations": {"CostCenter": "42"}}}, ["h100"]),
        ({"defined_tags": {"Operations": {"CostCenter": "43"}}}, None),
        ({"defined_tags": {"Elsewhere": {"CostCenter": "42"}}}, None),
        ({"lifecycle_state": "STOPPED"}, ["off"]),
    ],
)
def test_instance_becomes_a_host_if_every_filter_matches(
    table: dict[str, Any], names: list[str] | None
) -> None:
    instances = [
        instance("h100", "BM.GPU.H100.8", defined_tags={"Operations": {"CostCenter": 42}}),
        instance("a100", freeform_tags={"stage": "live"}),
        instance("off", state="STOPPED"),
        instance("jump", "VM.Standard.E4.Flex"),
    ]
    if names is None:
        with pytest.raises(PlanError, match="found no hosts among 4 instances"):
            select(instances, wanted(**table), WHERE)
    else:
        assert [one.name for one in select(instances, wanted(**table), WHERE).chosen] == names


def test_excluded_instances_are_listed_up_to_a_limit() -> None:
    off = [instance(f"gpu-{n}", state="STOPPED") for n in range(7)]
    with pytest.raises(PlanError) as caught:
        select(off, wanted(), WHERE)
    assert "left out by lifecycle_state RUNNING (STOPPED): gpu-0, gpu-1, gpu-2, gpu-3, gpu-4 and 2 more" in (
        str(caught.value)
    )


@pytest.mark.parametrize("shape", ["BM.GPU.MI300X.8", "BM.GPU.GB200.4", "BM.GPU.NEW.8"])
def test_unknown_gpu_shape_is_refused_unless_filtered_out(shape: str) -> None:
    with pytest.raises(PlanError, match=f"gpu-1: found shape {shape}, expected a shape whose GPUs are known"):
        select([instance("gpu-1", shape), instance("gpu-2")], wanted(), WHERE)
    assert (
        len(select([instance("gpu-1", shape), instance("gpu-2")], wanted(shape="BM.GPU4.8"), WHERE).chosen)
        == 1
    )


# --- hosts


def test_host_has_address_shape_and_model_of_its_tag() -> None:
    both = found(instance("a", freeform_tags={"model": "gpt2-medium"}), instance("b", "BM.GPU.H100.8"))
    assert hosts_of(both, wanted(), WHERE) == [
        ("a", {"ssh_hostname": "10.0.0.1", "shape": "BM.GPU4.8", "model": "gpt2-medium"}),
        ("b", {"ssh_hostname": "10.0.0.2", "shape": "BM.GPU.H100.8"}),
    ]
    assert hosts_of(both, wanted(address="public"), WHERE)[0][1]["ssh_hostname"] == "203.0.113.1"


def test_instance_without_the_chosen_address_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a: found no public IPv4 address.*oci\.address = \"private\""):
        hosts_of([(instance("a"), Addresses("10.0.0.1", None))], wanted(address="public"), WHERE)
    with pytest.raises(PlanError, match="a: found no private IPv4 address"):
        hosts_of([(instance("a"), Addresses(None, None))], wanted(), WHERE)


def test_result_is_a_valid_inventory(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(f"globals().update({DATA!r})", encoding="utf-8")
    both = found(instance("a", freeform_tags={"model": "gpt2-medium"}), instance("b"))
    settings = settings_of(checked_hosts(hosts_of(both, wanted(), WHERE), WHERE), "oci", tmp_path)
    assert (settings["a"].model, settings["a"].shape) == ("gpt2-medium", "BM.GPU4.8")


@pytest.mark.parametrize(
    ("display", "name"),
    [
        ("gpu-1", "gpu-1"),
        ("My GPU (1)", "My-GPU-1"),
        ("gpu_1.example", "gpu-1.example"),
        (" -x- ", "x"),
        ("a..b.", "a.b"),
        ("10.0.0.1", "10.0.0.1"),
        ("42", "i-42"),
        ("10.0.0.999", "i-10.0.0.999"),
    ],
)
def test_a_display_name_becomes_a_host_s_name(display: str, name: str) -> None:
    assert hosts_of(found(instance(display)), wanted(), WHERE)[0][0] == name


def test_equal_display_names_are_distinguished_by_ocid() -> None:
    pair = found(
        instance("gpu", ocid="ocid1.instance.oc1.iad.aaaaaa"), instance("gpu", ocid="ocid1.x.y.z.bbbbbb")
    )
    names = [name for name, _ in hosts_of(pair, wanted(), WHERE)]
    assert names == ["gpu-aaaaaa", "gpu-bbbbbb"]
    assert groups_of(pair)["bm_gpu4_8"] == names


@given(st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_every_display_name_gives_one_valid_host_name(displayed: list[str]) -> None:
    instances = [
        instance(name, ocid=f"ocid1.instance.oc1.iad.aaaa{n:06d}") for n, name in enumerate(displayed)
    ]
    hosts = hosts_of(found(*instances), wanted(), WHERE)
    assert len({name for name, _ in checked_hosts(hosts, WHERE)}) == len(displayed)
    for name, members in groups_of(found(*instances)).items():
        assert name.isidentifier()
        assert set(members) <= {host for host, _ in hosts}


# --- groups


def test_groups_are_by_availability_domain_shape_and_model() -> None:
    groups = groups_of(
        found(
            instance("a", freeform_tags={"model": "mixtral-8x7b"}),
            instance("b", "BM.GPU.A100-v2.8", availability_domain="Uocm:PHX-AD-3"),
            instance("c", availability_domain="elsewhere"),
        )
    )
    assert groups == {
        "ad_1": ["a"],
        "ad_3": ["b"],
        "bm_gpu4_8": ["a", "c"],
        "bm_gpu_a100_v2_8": ["b"],
        "model_mixtral_8x7b": ["a"],
    }
    # pyinfra lets a later group's data win: the more particular one
    assert list(groups) == ["ad_1", "ad_3", "bm_gpu4_8", "bm_gpu_a100_v2_8", "model_mixtral_8x7b"]


def test_group_data_rank_between_all_and_the_inventory_s_own(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(f"globals().update({DATA!r})\nsoak_s = 1\n", encoding="utf-8")
    (tmp_path / "ad_1.py").write_text("soak_s = 2\ndrain_s = 2\nkeep_releases = 5\n", encoding="utf-8")
    (tmp_path / "bm_gpu4_8.py").write_text("drain_s = 3\nkeep_releases = 6\n", encoding="utf-8")
    (tmp_path / "oci.py").write_text("keep_releases = 7\n", encoding="utf-8")
    groups = {"ad_1": ["a"], "bm_gpu4_8": ["a"]}
    settings = settings_of([("a", {}), ("b", {})], "oci", tmp_path, groups)
    assert (settings["a"].soak_s, settings["a"].drain_s, settings["a"].keep_releases) == (2, 3, 7)
    assert (settings["b"].soak_s, settings["b"].keep_releases) == (1, 7)
    (tmp_path / "ad_1.py").write_text("soak_ss = 2\n", encoding="utf-8")
    with pytest.raises(PlanError, match=r"/ad_1\.py: soak_ss: found unknown key soak_ss"):
        settings_of([("a", {})], "oci", tmp_path, groups)


# --- the bastion


def test_ssh_config_checks_the_bastion_key_and_includes_base() -> None:
    text = ssh_config("opc@203.0.113.7:2222", ["10.0.0.1", "10.0.0.2"], "/x/ssh_config")
    assert text.splitlines()[1:] == [
        "Include /x/ssh_config",
        "Host 203.0.113.7",
        "    StrictHostKeyChecking yes",
        "Host 10.0.0.1 10.0.0.2",
        "    ProxyJump opc@203.0.113.7:2222",
    ]


def test_the_example_of_the_inventory_file_is_accepted() -> None:
    text = (Path(__file__).resolve().parents[2] / "inventories/oci.py").read_text(encoding="utf-8")
    example = text[text.index("[hosts.gpu-1]") : text.index('"""\n\nimport')]
    tables = tomllib.loads(example)
    assert from_table(tables["oci"], WHERE).shape == "BM.GPU.A100*"
    assert checked_hosts(static_hosts(tables, WHERE), WHERE)


def test_static_hosts_join_groups_of_shape_and_model() -> None:
    found = {"ad_1": ["a"], "bm_gpu4_8": ["a"], "model_gpt2_medium": ["a"]}
    static: list[tuple[str, dict[str, Any]]] = [
        ("b", {"shape": "BM.GPU4.8", "model": "mixtral-8x7b"}),
        ("c", {"shape": "VM.GPU.A10.1"}),
        ("d", {"shape": 5}),
    ]
    groups = groups_with_static(found, static)
    # a later one wins: the shape over the availability domain, and the model over both
    assert list(groups) == ["ad_1", "bm_gpu4_8", "vm_gpu_a10_1", "model_gpt2_medium", "model_mixtral_8x7b"]
    assert groups == {
        "ad_1": ["a"],
        "bm_gpu4_8": ["a", "b"],
        "vm_gpu_a10_1": ["c"],
        "model_gpt2_medium": ["a"],
        "model_mixtral_8x7b": ["b"],
    }
    assert found["bm_gpu4_8"] == ["a"]
