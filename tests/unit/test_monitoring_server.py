"""A monitoring server in the plan: settings, what its programs read and run, the rows of what differs, and its two scripts."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.intake import monitoring_secrets
from operations.plan.artifacts.keys import digest
from operations.plan.difference_rows import Difference
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import settings_of, with_services
from operations.plan.inventory.monitoring_server_settings import (
    ALERTMANAGER_IMAGE,
    GRAFANA_IMAGE,
    PROMETHEUS_IMAGE,
)
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.inventory.without_model import KEPT
from operations.plan.monitoring import server as plan
from operations.plan.monitoring.server import MonitoringPlan, Secrets
from operations.plan.monitoring.server_difference import difference
from operations.plan.monitoring.watched import Watched, watched
from operations.plan.observed.observed import GuardRules, Observed
from operations.plan.profile.profiles import load_profile
from operations.remote import monitoring_files
from operations.scripts import host_script
from tests.unit.builders import DATA, DIGEST, UNIT
from tests.unit.certificates import pair
from tests.unit.stubs import Stubs

DIGESTS = dict.fromkeys((PROMETHEUS_IMAGE, ALERTMANAGER_IMAGE, GRAFANA_IMAGE), DIGEST)
NETWORK: dict[str, Any] = {
    "bind": "10.0.9.5",
    "sources": ["10.0.0.0/24", "10.0.0.7/32"],
    "certificate": "grafana.crt",
    "private_key": "grafana.key",
}
SECRETS = Secrets("a-long-password", "certificate", "private key", gateway_key="key", gateway_ca="root")


def settings(table: dict[str, Any] | None = None, **changed: Any) -> Settings:
    data = {**DATA, "image_digests": DIGESTS, "monitoring_server": {"admin_password": "a", **(table or {})}}
    return from_host_data({**data, **changed}, "watch-1")


def entry(**changed: Any) -> Watched:
    """A host that serves and is watched."""
    data = {
        **DATA,
        "bind_address": "10.0.0.1",
        "allowed_sources": ["10.0.0.0/8"],
        "monitoring": {},
        **changed,
    }
    found = from_host_data(data, "gpu-1")
    return watched("gpu-1", found, load_profile(found.model, {}), "10.0.0.1")


def planned(
    table: dict[str, Any] | None = None,
    secrets: Secrets = SECRETS,
    selinux: bool = False,
    entries: tuple[Watched, ...] = (),
) -> MonitoringPlan:
    return plan.planned(settings(table), "9", selinux, entries or (entry(),), secrets)


# Settings


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"bind": "10.0.9.5", "sources": ["10.0.0.0/24"]}, "a certificate and its private_key"),
        ({**NETWORK, "sources": []}, "who may reach Grafana on 10.0.9.5"),
        ({**NETWORK, "sources": ["0.0.0.0/0"]}, "without expose=True"),
        ({"certificate": "a"}, "both certificate and private_key"),
        ({"port": 9090}, "a port of its own"),
        ({"port": 80}, "root alone may listen on"),
        ({"data_root": "/etc/x"}, "on a disk that is kept"),
        ({"data_root": "/var/lib/../x"}, "at least two levels"),
        ({"bind": "watch-1"}, "an IPv4 address of the host"),
        ({"grafana_image": "grafana/grafana:latest"}, "an image of grafana as name:version"),
        ({"prometheus_image": "registry.example/prom/prometheus"}, "an image of prometheus as name:version"),
        ({"retention_days": 0}, "1 to 3650"),
        ({"admin_password": "-----BEGIN X-----"}, "the path of a file of this machine"),
        ({"gateway_key": "k" * 40}, "the path of a file of this machine"),
        ({"password": "a"}, "unknown key"),
    ],
    ids=str,
)
def test_server_that_cannot_be_meant_is_refused(table: dict[str, Any], found: str) -> None:
    with pytest.raises(PlanError) as error:
        settings(table)
    assert found in str(error.value) and str(error.value).startswith("watch-1: monitoring_server")
    assert "BEGIN" not in str(error.value) and "kkkk" not in str(error.value)


def test_what_all_py_says_of_servers_is_not_for_it() -> None:
    """A group's file that all hosts read has the gateway, the door and the services of the others."""
    of_others: dict[str, Any] = {
        "gateway": {"wrong": 1},
        "door": {},
        "services": {"a": {}},
        "gpu_ids": [7],
        "monitoring": {},
    }
    found = settings(**of_others)
    assert (found.gateway, found.door, found.services, found.monitoring) == (None, None, {}, None)
    assert set(Settings.model_fields) >= KEPT
    with pytest.raises(PlanError, match="unknown key"):
        settings(gatway={})


def test_server_is_in_a_group_and_never_split_into_services(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(
        "services = {'a': {'model': 'gpt2-medium'}, 'b': {'model': 'gpt2-medium'}}\n"
    )
    (tmp_path / "monitoring.py").write_text("retention = 1\n")
    hosts = [("gpu-1", {}), ("watch-1", {"monitoring_server": {"admin_password": "a"}})]
    made, groups = with_services(hosts, "oci", tmp_path)
    assert [name for name, _ in made] == ["gpu-1/a", "gpu-1/b", "watch-1"]
    assert groups["monitoring"] == ["watch-1"]
    # the group's own file is read for it
    with pytest.raises(PlanError, match="retention"):
        settings_of([made[2]], "oci", tmp_path, groups)
    assert "monitoring" not in with_services(hosts[:1], "oci", tmp_path)[1]


# Secrets


def write(folder: Path, name: str, text: str, mode: int = 0o600) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    made = pair()
    table = {
        "admin_password": write(tmp_path, "password", "a-long-password\n"),
        "certificate": write(tmp_path, "crt", made.pem.decode(), 0o644),
        "private_key": write(tmp_path, "key", made.key_pem().decode()),
        "gateway_key": write(tmp_path, "scraper", "the-key\n"),
        "gateway_ca": write(tmp_path, "ca", "root\n", 0o644),
        "receivers": write(tmp_path, "receivers", "route: {}\n"),
    }
    own = settings(table).monitoring_server
    assert own
    found = monitoring_secrets.load(own, "watch-1")
    assert (found.password, found.gateway_key, found.receivers) == (
        "a-long-password",
        "the-key",
        "route: {}\n",
    )
    assert found.certificate == made.pem.decode()
    assert "a-long-password" not in repr(found) and "the-key" not in repr(found)


@pytest.mark.parametrize(
    ("name", "text", "mode", "said"),
    [
        ("admin_password", "short\n", 0o600, "at least 12 characters"),
        ("admin_password", "two words of it\n", 0o600, "without spaces"),
        ("admin_password", "a-long-password\n", 0o644, "mode 0600"),
        ("gateway_key", "prometheus the-key\n", 0o600, "without the name of who has it"),
        ("gateway_key", "\n", 0o600, "one line with a key alone"),
        ("receivers", "route: {}\n", 0o640, "mode 0600"),
    ],
)
def test_file_that_is_not_meant_is_refused_without_its_text(
    tmp_path: Path, name: str, text: str, mode: int, said: str
) -> None:
    good = write(tmp_path, "good", "a-long-password\n")
    own = settings({"admin_password": good, name: write(tmp_path, "bad", text, mode)}).monitoring_server
    assert own
    with pytest.raises(PlanError) as error:
        monitoring_secrets.load(own, "watch-1")
    assert said in str(error.value) and "watch-1: monitoring_server." in str(error.value)
    assert text.strip() == "" or text.strip() not in str(error.value)


# What is planned


def test_prometheus_and_alertmanager_are_on_the_loopback_alone() -> None:
    for table in (None, NETWORK):
        prometheus, alertmanager, grafana = planned(table).programs
        assert (prometheus.address, alertmanager.address) == ("127.0.0.1", "127.0.0.1")
        assert grafana.address == (NETWORK["bind"] if table else "127.0.0.1")
        assert "--web.listen-address=127.0.0.1:9090" in prometheus.run
        assert "--web.listen-address=127.0.0.1:9093" in alertmanager.run


def test_containers_have_no_rights_and_write_to_one_directory() -> None:
    for program, (directory, user) in zip(planned(selinux=True).programs, plan.users().items(), strict=True):
        words = " ".join(program.run)
        assert f"--user {user}:{user}" in words and "--cap-drop ALL" in words and "--read-only" in words
        volumes = [word for word in program.run if word.startswith("/var/lib/tritonhost-monitoring/")]
        assert [word.endswith(":rw,z") for word in volumes] == [False, True], volumes
        assert volumes[1].startswith(f"/var/lib/tritonhost-monitoring/{directory}:")


def test_no_secret_is_on_a_command_line_or_read_by_others() -> None:
    made = planned(NETWORK)
    words = " ".join(" ".join(program.run) for program in made.programs)
    texts = " ".join(file.text for file in monitoring_files.files(made).values())
    for secret in ("a-long-password", "private key", "=key"):
        assert secret not in words and secret not in texts and secret not in repr(made)
    owners = {name: file.owner for name, file in made.read.items() if file.owner}
    assert owners == {
        "alertmanager.yml": plan.ALERTMANAGER_USER,
        "secrets/grafana-password": plan.GRAFANA_USER,
        "secrets/grafana.crt": plan.GRAFANA_USER,
        "secrets/grafana.key": plan.GRAFANA_USER,
        "secrets/key": plan.PROMETHEUS_USER,
        "secrets/ca.pem": plan.PROMETHEUS_USER,
    }
    assert {made.read[name].mode for name in owners} == {0o400}


def test_archive_has_every_file_and_is_the_same_each_time() -> None:
    made = planned(NETWORK)
    text = made.archive()
    assert text == planned(NETWORK).archive()
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as tar:
        found = {entry.name: entry for entry in tar if entry.isfile()}
        assert {entry.mode for entry in tar if entry.isdir()} == {0o755}
    assert found.keys() == made.read.keys()
    for name, file in made.read.items():
        assert (found[name].uid, found[name].mode, found[name].mtime) == (file.owner, file.mode, 0), name


def test_every_file_is_among_those_that_are_looked_at() -> None:
    behind = {"gateway": {"certificate": "a", "private_key": "b", "api_keys": "c"}, "door": {}}
    made = planned({**NETWORK, "gateway_key": "a", "gateway_ca": "b"}, entries=(entry(**behind),))
    assert set(made.read) <= set(plan.read_names())
    assert set(plan.etc_paths()) <= set(monitoring_files.files(made))


def test_host_behind_a_gateway_needs_a_key_of_it() -> None:
    behind = entry(gateway={"certificate": "a", "private_key": "b", "api_keys": "c"})
    for table in ({}, {"gateway_key": "a"}):
        with pytest.raises(PlanError, match="gpu-1 is behind a gateway"):
            planned(table, entries=(behind,))
    assert planned({"gateway_key": "a", "gateway_ca": "b"}, entries=(behind,))


def test_without_receivers_nobody_is_told_and_the_run_says_so() -> None:
    made = planned()
    assert any("set receivers" in warning for warning in made.warnings)
    assert "webhook" not in made.read["alertmanager.yml"].text
    told = planned(secrets=replace(SECRETS, receivers="route: {}\n"))
    assert told.read["alertmanager.yml"].text == "route: {}\n"
    assert not any("receivers" in warning for warning in told.warnings)


def test_only_what_a_program_reads_at_its_start_starts_it_again() -> None:
    before, after = planned(NETWORK), planned(NETWORK, entries=(entry(model="gpt2-medium"),))
    assert before.key != after.key
    assert [one.key for one in before.programs] == [one.key for one in after.programs]
    changed = planned(NETWORK, replace(SECRETS, certificate="another"))
    same = [one.key == other.key for one, other in zip(before.programs, changed.programs, strict=True)]
    assert same == [True, True, False]
    # a password is set while Grafana runs
    password = planned(NETWORK, replace(SECRETS, password="another-password"))
    assert [one.key for one in before.programs] == [one.key for one in password.programs]
    # and is no part of a name that everybody reads, but a row of its own
    assert password.key == before.key
    assert [row.what for row in rows(password, converged(before))] == [
        f"configuration, {plan.PASSWORD_FILE}",
        "Grafana's administrator",
    ]


def test_packages_have_nothing_of_nvidia() -> None:
    made = planned()
    assert not [name for name in made.packages if "nvidia" in name]
    assert made.packages["docker-ce"] == "3:28.5.2-1.el9"
    assert set(made.locks) == {"docker-ce", "containerd.io", "runc", "podman", "buildah"}


# What differs


def converged(made: MonitoringPlan) -> Observed:
    files = monitoring_files.expected(made)
    inside = {f"{made.current}/{name}": digest(file.text) for name, file in made.read.items()}
    proven = digest(f"{digest(made.read[plan.PASSWORD_FILE].text)}\n")
    inside[plan.administered(made.data_root)] = proven
    from operations.plan.machine.packages import DOCKER_KEY
    from operations.plan.machine.version_locks import with_locks

    rules = next(file.digest for file in files if file.path == made.guard.rules_path)
    return Observed(
        packages={name: (version or "1-1",) for name, version in made.packages.items()},
        version_locks=tuple(with_locks((), made.locks)),
        file_digests={**{file.path: file.digest for file in files}, **inside, DOCKER_KEY: "7" * 64},
        daemon_json=json.dumps(made.docker_settings),
        units={f"{name}.service": UNIT for name in ("docker", "monitoring-guard", *plan.SERVICES)},
        images={image.tag: f"id-{image.key}" for image in made.images},
        image_records={image.key: f"id-{image.key}" for image in made.images},
        guard=GuardRules(rules),
        current=made.key,
        exporters={program.service: program.key for program in made.programs},
    )


def rows(made: MonitoringPlan, observed: Observed) -> list[Difference]:
    return difference(made, observed, monitoring_files.expected(made))


def without(values: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_host_that_is_as_planned_has_no_difference() -> None:
    for table in (None, NETWORK):
        made = planned(table)
        assert rows(made, converged(made)) == []


CHANGED: tuple[tuple[str, Callable[[MonitoringPlan, Observed], dict[str, Any]], str], ...] = (
    ("package", lambda made, on: {"packages": without(on.packages, "docker-ce")}, "docker-ce"),
    ("lock", lambda made, on: {"version_locks": ()}, "versionlock.list"),
    ("runc", lambda made, on: {"packages": {**on.packages, "runc": ("1",)}}, "runc"),
    (
        "password that Grafana may not have",
        lambda made, on: {"file_digests": without(on.file_digests, plan.administered(made.data_root))},
        "Grafana's administrator",
    ),
    ("docker", lambda made, on: {"units": without(on.units, "docker.service")}, "docker.service"),
    ("image", lambda made, on: {"images": {}}, "image"),
    ("guard", lambda made, on: {"guard": GuardRules("", True)}, "nftables table"),
    ("configuration", lambda made, on: {"current": "another"}, "configuration"),
    (
        "a file of it",
        lambda made, on: {"file_digests": without(on.file_digests, f"{made.current}/targets/node.json")},
        "configuration, targets/node.json",
    ),
    (
        "unit's file",
        lambda made, on: {"file_digests": without(on.file_digests, "/etc/monitoring-grafana.sh")},
        "/etc/monitoring-grafana.sh",
    ),
    (
        "unit",
        lambda made, on: {"units": without(on.units, "monitoring-grafana.service")},
        "monitoring-grafana",
    ),
    (
        "reload",
        lambda made, on: {
            "units": {**on.units, "monitoring-prometheus.service": {**UNIT, "NeedDaemonReload": "yes"}}
        },
        "monitoring-prometheus.service",
    ),
    (
        "container",
        lambda made, on: {"exporters": {**on.exporters, plan.PROMETHEUS: "another"}},
        "container monitoring-prometheus",
    ),
)


@pytest.mark.parametrize(
    ("changed", "what"), [case[1:] for case in CHANGED], ids=[case[0] for case in CHANGED]
)
def test_each_thing_that_is_not_as_planned_is_a_row(
    changed: Callable[[MonitoringPlan, Observed], dict[str, Any]], what: str
) -> None:
    made = planned(NETWORK)
    found = rows(made, replace(converged(made), **changed(made, converged(made))))
    assert found and any(what in f"{row.what} {row.stage}" for row in found), found
    assert not any("a-long-password" in f"{row}" or digest("a-long-password") in f"{row}" for row in found)


def test_guard_lets_only_the_declared_networks_reach_grafana() -> None:
    made = planned(NETWORK)
    text = monitoring_files.files(made)[made.guard.rules_path].text
    assert "tcp dport { 3000 } jump watched" in text and "ip saddr { 10.0.0.0/24 } accept" in text
    alone = planned()
    assert "jump watched" not in monitoring_files.files(alone)[alone.guard.rules_path].text


# The scripts


class Host:
    """A host whose docker is a stub; `takes` says whether a program takes what it is told to read."""

    def __init__(self, folder: Path, running: bool = True) -> None:
        self.root, self.stubs = folder / "root", Stubs(folder / "bin")
        self.keys: dict[str, str] = {}
        self.root.mkdir()
        self.record = folder / "image"
        self.record.write_text("sha256:made\n")
        self.stubs.add("docker", f"case $1 in inspect) echo {str(running).lower()} ;; esac")
        self.takes(True)

    def takes(self, does: bool) -> None:
        said = "\n".join(
            f"{name}_config_last_reload_success{word}"
            for name in ("prometheus", "alertmanager")
            for word in ("ful 1", "_timestamp_seconds 4e9")
        )
        refused = "\n".join(
            f"{name}_config_last_reload_successful 0" for name in ("prometheus", "alertmanager")
        )
        self.stubs.add("curl", f"cat <<'EOF'\n{said if does else refused}\nEOF")

    def read(self, text: str, key: str) -> Any:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo("prometheus.yml")
            entry.size, entry.uid, entry.gid = len(text), os.getuid(), os.getgid()
            tar.addfile(entry, io.BytesIO(text.encode()))
        sent = base64.encodebytes(packed.getvalue()).decode()
        return self.run(sent, key, hashlib.sha256(sent.encode()).hexdigest())

    def run(self, sent: str, key: str, checksum: str) -> Any:
        variables = {
            **{"ROOT": str(self.root), "KEY": key, "SHA256": checksum, "MOUNT": "/m", "LABEL": ""},
            "ALERTS_FILE": "alertmanager.yml",
        }
        for name in ("PROMETHEUS", "ALERTMANAGER"):
            own = {"": name.lower(), "_IMAGE": str(self.record), "_USER": "1", "_URL": f"http://{name}"}
            own["_KEY"] = "key"
            (self.root / f"run-{name.lower()}").write_text(self.keys.get(name, "key"))
            variables |= {f"{name}{word}": value for word, value in own.items()}
        script = host_script("monitoring_config.sh", variables)
        for found, place in (
            ("/run/monitoring-config.sent", f"{self.root}/sent"),
            ("/run/$1", f"{self.root}/run-$1"),
        ):
            assert found in script
            script = script.replace(found, place)
        return self.stubs.run(script, stdin=sent)

    @property
    def current(self) -> str:
        return (self.root / "config/current/prometheus.yml").read_text()

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.root / "config").iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_configuration_is_checked_before_it_is_read(host: Host) -> None:
    done = host.read("one", "a")
    assert (done.returncode, done.stderr, host.current) == (0, "", "one")
    calls = host.stubs.calls
    checked = [number for number, call in enumerate(calls) if "promtool" in call or "amtool" in call]
    told = [number for number, call in enumerate(calls) if "kill --signal HUP" in call]
    assert len(checked) == len(told) == 2 and max(checked) < min(told)
    assert not (host.root / "sent").exists()


def test_configuration_that_is_refused_replaces_nothing(host: Host) -> None:
    host.read("one", "a")
    host.stubs.add(
        "docker",
        "case $1 in run) echo 'FAILED: parsing YAML file: what'; exit 1 ;; inspect) echo true ;; esac",
    )
    done = host.read("two", "b")
    assert done.returncode == 65
    assert done.stderr == (
        "monitoring: configuration: promtool says: FAILED: parsing YAML file: what; what the programs read was left as it is\n"
    )
    assert (host.current, host.kept) == ("one", ["a", "current"])


def test_configuration_that_a_program_does_not_take_goes_back(host: Host) -> None:
    host.read("one", "a")
    host.takes(False)
    done = host.read("two", "b")
    assert done.returncode == 1
    assert "prometheus did not take the new configuration; the configuration before it is back" in done.stderr
    assert host.current == "one"


def test_configuration_changed_by_hand_is_replaced_or_goes_back(host: Host) -> None:
    host.read("one", "a")
    (host.root / "config/a/prometheus.yml").write_text("by hand")
    assert host.read("one", "a").returncode == 0
    assert (host.current, host.kept) == ("one", ["a", "current"])
    (host.root / "config/a/prometheus.yml").write_text("by hand")
    host.takes(False)
    assert host.read("one", "a").returncode == 1
    assert host.current == "by hand"


def test_last_configuration_is_kept_and_older_ones_go(host: Host) -> None:
    for text in ("one", "two", "three"):
        assert host.read(text, text).returncode == 0
    assert (host.current, host.kept) == ("three", ["current", "three", "two"])


def test_programs_that_do_not_run_yet_are_told_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, running=False)
    assert host.read("one", "a").returncode == 0
    assert not [call for call in host.stubs.calls if "HUP" in call]


def test_program_that_will_be_started_again_is_not_told(host: Host) -> None:
    """One of another image may not understand the file, and one that moves to another port does not answer there yet."""
    host.keys = {"ALERTMANAGER": "another"}
    assert host.read("one", "a").returncode == 0
    told = [call for call in host.stubs.calls if "HUP" in call]
    assert len(told) == 1 and "prometheus" in told[0]


def test_checker_that_says_nothing_of_a_fault_is_quoted(host: Host) -> None:
    host.stubs.add("docker", "case $1 in run) echo 'pull access denied'; exit 125 ;; esac")
    assert "promtool says: pull access denied;" in host.read("two", "b").stderr


def test_text_that_was_cut_on_its_way_is_refused(host: Host) -> None:
    done = host.run("YWJj", "a", "0" * 64)
    assert done.returncode == 65 and "found another text than was sent" in done.stderr
    assert not (host.root / "config/current").exists()


def password(stubs: Stubs, folder: Path) -> Any:
    (folder / "password").write_text('a"b\\c-long')
    variables = {
        **{"NAME": "monitoring-grafana", "USER_NAME": "admin", "URL": "http://127.0.0.1:3000"},
        **{"PASSWORD_FILE": str(folder / "password"), "RECORD": str(folder / "administered")},
    }
    return stubs.run(host_script("grafana_password.sh", variables), FOLDER=str(folder))


def test_password_is_set_where_grafana_has_another(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path / "bin")
    stubs.add("curl", 'cat >"$FOLDER/asked"; [ -e "$FOLDER/set" ] && printf 200 || printf 401')
    stubs.add("docker", 'cat >"$FOLDER/set"')
    assert password(stubs, tmp_path).returncode == 0
    assert (tmp_path / "set").read_text() == 'a"b\\c-long'
    assert (tmp_path / "administered").read_text() == digest('a"b\\c-long') + "\n"
    assert (tmp_path / "administered").stat().st_mode & 0o777 == 0o600
    # curl's own quoting
    assert (tmp_path / "asked").read_text() == 'user = "admin:a\\"b\\\\c-long"\n'
    assert not any('a"b' in call for call in stubs.calls)
    before = len([call for call in stubs.calls if call.startswith("docker")])
    password(stubs, tmp_path)
    assert len([call for call in stubs.calls if call.startswith("docker")]) == before == 1


def test_grafana_that_answers_otherwise_is_an_error(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path / "bin")
    stubs.add("curl", "cat >/dev/null; printf 502")
    done = password(stubs, tmp_path)
    assert done.returncode == 1 and "found the answer 502" in done.stderr
    assert not (tmp_path / "administered").exists()
