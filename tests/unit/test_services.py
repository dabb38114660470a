"""Several services on one host: the entries they become, what they may not share, and whose turn it is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from operations.facts.releases import LinkedReleases
from operations.plan.deployable import check_services
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import checked_hosts, settings_of, with_services
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.serving.garbage import Stored, garbage
from operations.plan.serving.rollout import Place, may_begin
from operations.release import link_script, switch_script
from operations.remote import host_files
from operations.scripts import host_script
from tests.unit.builders import DATA, verdict

TWO: dict[str, dict[str, Any]] = {
    "llama": {"model": "smollm2-135m", "gpu_ids": [0]},
    "gpt": {
        "model": "gpt2-medium",
        "gpu_ids": [1],
        "http_port": 8010,
        "grpc_port": 8011,
        "metrics_port": 8012,
    },
}


@pytest.fixture
def group_data(tmp_path: Path) -> Path:
    (tmp_path / "all.py").write_text(f"globals().update({ {**DATA, 'model': 'gpt2-medium'}!r})\n", "utf-8")
    return tmp_path


def entries(group_data: Path, services: object, **data: Any) -> list[tuple[str, dict[str, Any]]]:
    hosts = [("gpu-1", {"ssh_hostname": "10.0.0.1", **data, "services": services}), ("gpu-2", {})]
    return with_services(hosts, "oci", group_data)[0]


def settings(group_data: Path, services: object = TWO) -> dict[str, Settings]:
    return settings_of(entries(group_data, services), "oci", group_data)


def refusal(group_data: Path, services: object) -> PlanError:
    with pytest.raises(PlanError) as caught:
        found = settings(group_data, services)
        check_services("gpu-1", {name.partition("/")[2]: one for name, one in found.items() if one.services})
    assert "\n" not in str(caught.value)
    return caught.value


def test_host_with_services_is_an_entry_for_each(group_data: Path) -> None:
    hosts, groups = with_services(
        [("gpu-1", {"ssh_port": 2222, "services": TWO}), ("gpu-2", {})],
        "oci",
        group_data,
        {"bm_gpu4_8": ["gpu-1", "gpu-2"], "model_old": ["gpu-1", "gpu-2"]},
    )
    assert [name for name, _ in hosts] == ["gpu-1/llama", "gpu-1/gpt", "gpu-2"]
    assert all(data["ssh_hostname"] == "gpu-1" and data["ssh_port"] == 2222 for _, data in hosts[:2])
    assert groups == {
        "bm_gpu4_8": ["gpu-1/llama", "gpu-1/gpt", "gpu-2"],
        "model_old": ["gpu-2"],
        "model_smollm2_135m": ["gpu-1/llama"],
        "model_gpt2_medium": ["gpu-1/gpt"],
        "gpu-1": ["gpu-1/llama", "gpu-1/gpt"],
    }
    assert checked_hosts(hosts, "here") == hosts
    assert [machine_of(name) for name in ("gpu-1/llama", "gpu-2", "@ssh/gpu-1/llama")] == [
        "gpu-1",
        "gpu-2",
        "@ssh/gpu-1",
    ]


def test_services_may_stand_in_group_data(group_data: Path) -> None:
    (group_data / "oci.py").write_text(f"services = {TWO!r}\n", "utf-8")
    hosts, _ = with_services([("gpu-1", {})], "oci", group_data)
    found = settings_of(hosts, "oci", group_data)
    assert [(name, one.model) for name, one in found.items()] == [
        ("gpu-1/llama", "smollm2-135m"),
        ("gpu-1/gpt", "gpt2-medium"),
    ]


def test_host_with_one_service_is_as_before(group_data: Path) -> None:
    hosts: list[tuple[str, dict[str, Any]]] = [("gpu-1", {"model": "smollm2-135m"})]
    assert with_services(hosts, "oci", group_data) == (hosts, {})
    (one,) = settings_of(hosts, "oci", group_data).values()
    assert (one.state_root, one.to_data_root, one.beside) == (one.data_root, "", ())


def test_each_service_keeps_what_is_its_own_below_the_data_root(group_data: Path) -> None:
    found = settings(group_data, {**TWO, "gpt": {**TWO["gpt"], "at_data_root": True}})
    llama, gpt = found["gpu-1/llama"], found["gpu-1/gpt"]
    assert llama.state_root == f"{llama.data_root}/services/llama"
    assert gpt.state_root == gpt.data_root
    assert (llama.beside, gpt.beside) == (("gpt",), ("llama",))
    assert set(host_files.paths(gpt)) < set(host_files.watched(llama))


@pytest.mark.parametrize(
    ("services", "reference", "words"),
    [
        ("llama", "not-a-table", "a table [hosts.NAME.services.SERVICE]"),
        ({}, "not-a-table", "an empty table"),
        ({"llama": "smollm2-135m"}, "not-a-table", "services.llama"),
        ({"a/b": TWO["llama"]}, "not-a-service", "lower-case letters"),
        ({"Llama": TWO["llama"]}, "not-a-service", "Llama"),
        ({"llama": {**TWO["llama"], "docker_packages": {}}}, "setting-of-the-host", "docker_packages"),
        ({"llama": {**TWO["llama"], "modl": "x"}}, "setting-of-the-host", "did you mean model?"),
        (
            {"llama": TWO["llama"], "gpt": {**TWO["gpt"], "service_name": "llama"}},
            "service-twice",
            "unit llama",
        ),
        ({"llama": TWO["llama"], "llama-next": TWO["gpt"]}, "service-twice", "unit llama-next"),
        (
            {name: {**table, "at_data_root": True} for name, table in TWO.items()},
            "service-twice",
            "llama, gpt",
        ),
        ({**TWO, "gpt": {**TWO["gpt"], "gpu_ids": "all"}}, "gpu-shared", "such as gpu_ids = [0]"),
        ({**TWO, "gpt": {**TWO["gpt"], "gpu_ids": [1, 0]}}, "gpu-shared", "services.llama has GPU 0 too"),
        ({**TWO, "gpt": {"model": "gpt2-medium", "gpu_ids": [1]}}, "port-shared", "port 8000"),
        ({**TWO, "gpt": {**TWO["gpt"], "front": "haproxy"}}, "setting-of-the-host", "front"),
        ({**TWO, "docker": TWO["gpt"]}, "wrong-value", "service_name"),
    ],
)
def test_what_services_cannot_share_is_refused_in_one_line(
    group_data: Path, services: object, reference: str, words: str
) -> None:
    error = refusal(group_data, services)
    assert (error.reference, words in str(error)) == (reference, True), str(error)


@pytest.mark.parametrize("host_data", [{"at_data_root": True}, {}])
def test_services_with_one_directory_are_refused(group_data: Path, host_data: dict[str, Any]) -> None:
    found = settings_of(entries(group_data, TWO, **host_data), "oci", group_data)
    several = {name.partition("/")[2]: one for name, one in found.items() if one.services}
    if not host_data:
        check_services("gpu-1", several)
        return
    with pytest.raises(PlanError, match=r"services\.gpt\.at_data_root: found /var/lib/tritonhost"):
        check_services("gpu-1", several)


def test_ports_behind_a_front_are_the_services_own(group_data: Path) -> None:
    services = {**TWO, "llama": {**TWO["llama"], "http_port": 18010}}
    found = settings_of(entries(group_data, services, front="haproxy"), "oci", group_data)
    with pytest.raises(PlanError, match="port 18010"):
        check_services("gpu-1", {name.partition("/")[2]: one for name, one in found.items() if one.services})


def test_inventory_that_makes_no_entries_is_refused() -> None:
    with pytest.raises(PlanError, match="with_services"):
        from_host_data({**DATA, "model": "gpt2-medium", "services": TWO}, "gpu-1")


def test_services_of_a_host_are_never_changed_together() -> None:
    busy = [Place("gpu-1/a", False, "at work"), Place("gpu-1/b", False), Place("gpu-2/a", False)]
    assert not may_begin(busy, "gpu-1/b", 9)
    assert may_begin(busy, "gpu-2/a", 9)
    serving = [Place("gpu-1/a", True, "done"), Place("gpu-1/b", True, "at work"), Place("gpu-1/c", True)]
    assert not may_begin(serving, "gpu-1/c", 9)


def test_a_service_removes_only_its_own_releases() -> None:
    def made(name: str, service: str) -> Stored:
        return Stored(
            name, ord(name), verdict("proven then"), "m", "24.09", (("engine", name),), (), service=service
        )

    stored = [made("a", "gpt"), made("b", "llama"), made("c", "llama"), made("d", "llama"), made("e", "gone")]
    names = [f"{kind}/{name}" for kind in ("releases", "engines") for name in "abcde"]
    links = {"current": "d", "previous": "c"}
    directories, _ = garbage(stored, links, names, 2, beside=["gpt"], of="llama")
    assert directories == ["engines/b", "engines/e", "releases/b", "releases/e"]
    # what no release names may be what another service is making, or its gateway's image
    more = [*names, "weights/new", "tritonhost/gateway:k"]
    assert garbage(stored, links, more, 2, beside=["gpt"], of="llama") == (directories, [])
    # a service that the host has not any more does not count among the releases to keep
    assert "releases/e" in garbage(stored, links, names, 5, beside=["gpt"], of="llama")[0]
    assert garbage(stored, links, more, 2)[1] == ["tritonhost/gateway:k"]
    # what a service that the inventory does not name any more links to may still run
    directories, _ = garbage(stored, links, names, 2, linked=["e"], beside=["gpt"])
    assert directories == ["engines/b", "releases/b"]


def test_links_of_a_service_lead_to_the_shared_releases(group_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("one", "two"):
        (root / "releases" / name).mkdir(parents=True)
        (root / "releases" / name / "manifest.json").write_text("{}")
    (root / "verdicts").mkdir()
    one = settings(group_data)["gpu-1/llama"].model_copy(update={"data_root": str(root)})

    def run(script: str) -> None:
        subprocess.run(["sh", "-c", script], check=True)

    def judge(release: str, verdict: str) -> None:
        given = {"DATA_ROOT": one.data_root, "STATE_ROOT": one.state_root, "RELEASE": release}
        run(host_script("judge.sh", {**given, "VERDICT": verdict, "REASON": "x"}))

    run(switch_script(one, "one"))
    judge("one", "proven")
    run(switch_script(one, "two"))
    place = Path(one.state_root)
    assert (place / "current").resolve() == root / "releases/two"
    assert (place / "previous").resolve() == root / "releases/one"
    run(link_script(one, "next", "one"))
    assert (place / "next").resolve() == root / "releases/one"
    assert not (root / "current").exists()
    fact = LinkedReleases()
    listed = subprocess.run(["sh", "-c", fact.command(one.data_root)], capture_output=True, text=True)
    assert fact.process(listed.stdout.splitlines()) == ["one", "two"]
    judge("one", "withdrawn")
    assert not (place / "previous").is_symlink()
