"""A monitoring server: what its programs may, who reaches them, and that they watch every host of the inventory."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any
from urllib.parse import quote

import pytest

from operations.intake import monitoring_secrets
from operations.plan.exposure.host_program import script_path, unit_path
from operations.plan.monitoring import board, server
from operations.plan.monitoring.rules import rules
from operations.plan.monitoring.server import MonitoringPlan, Secrets
from operations.plan.monitoring.watched import Watched
from operations.remote import host_files, monitoring_files
from operations.remote.rendering import HostFile

SCRAPED_SECONDS = 60  # two intervals, and a start


@pytest.fixture(scope="module")
def secrets(wanted: MonitoringPlan) -> Secrets:
    return monitoring_secrets.load(wanted.own, "this host")


@pytest.fixture(scope="module")
def wanted(settings: Any, host: Any, os_major: str, watched_entries: list[Watched]) -> MonitoringPlan:
    """What the host should be: the plan of the inventory's data."""
    confined = settings.selinux == "auto" and host.file("/sys/fs/selinux/enforce").exists
    given = monitoring_secrets.load(settings.monitoring_server, "this host")
    return server.planned(settings, os_major, confined, watched_entries, given)


@pytest.fixture(scope="module")
def files(wanted: MonitoringPlan) -> dict[str, HostFile]:
    return monitoring_files.files(wanted)


class Asked:
    """The three programs' interfaces, asked on the host itself."""

    def __init__(self, host: Any, wanted: MonitoringPlan, secrets: Secrets) -> None:
        self.host, self.wanted, self.secrets = host, wanted, secrets
        self.urls = {program.service: program.url.removesuffix(program.page) for program in wanted.programs}

    def prometheus(self, path: str) -> Any:
        return json.loads(self._get(self.urls[server.PROMETHEUS] + path))["data"]

    def alertmanager(self, path: str) -> Any:
        return json.loads(self._get(self.urls[server.ALERTMANAGER] + path))

    def grafana(self, path: str) -> Any:
        """As its administrator; the password is on no command line."""
        configuration = f'user = "{server.ADMINISTRATOR}:{self.secrets.password}"\n'
        url = shlex.quote(self.urls[server.GRAFANA] + path)
        done = self.host.run(
            f"printf %s {shlex.quote(configuration)} | curl --config - --silent --insecure --max-time 20 {url}"
        )
        return json.loads(done.stdout)

    def _get(self, url: str) -> str:
        return str(self.host.check_output(f"curl --silent --fail --max-time 20 {shlex.quote(url)}"))


@pytest.fixture(scope="module")
def asked(host: Any, wanted: MonitoringPlan, secrets: Secrets) -> Asked:
    return Asked(host, wanted, secrets)


def test_programs_run_from_their_images_and_at_boot(
    host: Any, wanted: MonitoringPlan, files: dict[str, HostFile]
) -> None:
    for program in wanted.programs:
        for path in (unit_path(program.service), script_path(program.service)):
            file = host.file(path)
            assert file.sha256sum == host_files.digest(files[path].text), path
            assert (file.uid, file.mode & 0o022) == (0, 0), path
        unit = host.service(f"{program.service}.service")
        assert unit.is_enabled
        assert unit.is_running
        runs = host.docker(program.service).inspect()
        assert runs["Config"]["Labels"]["tritonhost.exporter"] == program.key
        assert runs["Image"] == host.file(program.image_record).content_string.strip()


def test_containers_of_the_programs_have_no_rights(host: Any, wanted: MonitoringPlan) -> None:
    for program, (name, user) in zip(wanted.programs, server.users().items(), strict=True):
        runs = host.docker(program.service).inspect()
        found = runs["HostConfig"]
        assert runs["Config"]["User"] == f"{user}:{user}"
        assert found["ReadonlyRootfs"]
        assert not found["Privileged"]
        assert found["CapDrop"] == ["ALL"]
        assert any("no-new-privileges" in option for option in found["SecurityOpt"])
        writable = [mount["Source"] for mount in runs["Mounts"] if mount["RW"]]
        assert writable == [f"{wanted.data_root}/{name}"]
        kept = host.file(f"{wanted.data_root}/{name}")
        assert (kept.uid, kept.mode & 0o077) == (user, 0)


def test_programs_listen_where_the_inventory_says(host: Any, wanted: MonitoringPlan) -> None:
    for program in wanted.programs:
        command = f"ss --listening --tcp --numeric --no-header 'sport = :{program.port}'"
        listening = [line.split()[3] for line in host.check_output(command).splitlines()]
        assert listening == [f"{program.address}:{program.port}"]


def test_configuration_is_planned_and_its_secrets_closed(host: Any, wanted: MonitoringPlan) -> None:
    assert host.file(wanted.current).linked_to.endswith(f"/{wanted.key}")
    found = host.check_output(f"cd {wanted.current}/ && find . -type f").split()
    assert {name.removeprefix("./") for name in found} == set(wanted.read)
    for name, expected in wanted.read.items():
        file = host.file(f"{wanted.current}/{name}")
        assert file.sha256sum == host_files.digest(expected.text), name
        assert (file.uid, file.mode) == (expected.owner, expected.mode), name


def test_prometheus_reaches_every_target(asked: Asked, watched_entries: list[Watched]) -> None:
    expected = {target.address for entry in watched_entries for target in entry.targets}
    end = time.monotonic() + SCRAPED_SECONDS
    while True:
        active = asked.prometheus("/api/v1/targets?state=active")["activeTargets"]
        up = {target["labels"]["instance"] for target in active if target["health"] == "up"}
        if up >= expected or time.monotonic() > end:
            break
        time.sleep(2)
    problems = {target["scrapeUrl"]: target["lastError"] for target in active if target["health"] != "up"}
    assert up == expected, problems


def test_prometheus_has_every_rule_and_knows_alertmanager(asked: Asked) -> None:
    groups = asked.prometheus("/api/v1/rules")["groups"]
    found = {rule["name"] for group in groups for rule in group["rules"]}
    wanted: Any = rules("x")
    assert found == {
        rule.get("alert") or rule["record"] for group in wanted["groups"] for rule in group["rules"]
    }
    broken = {
        rule["name"]: rule["lastError"]
        for group in groups
        for rule in group["rules"]
        if rule.get("lastError")
    }
    assert broken == {}
    assert len(asked.prometheus("/api/v1/alertmanagers")["activeAlertmanagers"]) == 1


def test_alertmanager_has_the_inventory_s_receivers(asked: Asked, wanted: MonitoringPlan) -> None:
    status = asked.alertmanager("/api/v2/status")
    assert status["cluster"]["status"] == "disabled"
    assert "receivers:" in status["config"]["original"]


def test_grafana_shows_the_board_to_its_administrator_alone(asked: Asked, host: Any) -> None:
    assert asked.grafana(f"/api/dashboards/uid/{board.UID}")["dashboard"]["title"] == "tritonhost"
    assert asked.grafana("/api/datasources/uid/tritonhost-prometheus/health")["status"] == "OK"
    query = quote("count(up)", safe="")
    answer = asked.grafana(f"/api/datasources/proxy/uid/tritonhost-prometheus/api/v1/query?query={query}")
    assert answer["status"] == "success"
    assert answer["data"]["result"]
    url = f"{asked.urls[server.GRAFANA]}/api/datasources"
    command = f"curl --silent --insecure --max-time 20 --output /dev/null --write-out '%{{http_code}}' {url}"
    assert host.check_output(command) == "401"
    assert host.check_output(f"{command} --user admin:admin") == "401"


def test_guard_of_grafana_is_loaded_and_at_boot(
    host: Any, wanted: MonitoringPlan, files: dict[str, HostFile]
) -> None:
    guard = wanted.guard
    assert host.file(guard.rules_path).sha256sum == host_files.digest(files[guard.rules_path].text)
    assert host.service(guard.unit).is_enabled
    listed = host.check_output(f"nft list table inet {guard.table}")
    if wanted.own.published:
        assert f"tcp dport {wanted.own.port} jump watched" in listed
        for network in wanted.guard.watchers:
            assert network.removesuffix("/32") in listed


def test_docker_and_its_packages_are_at_their_versions(host: Any, wanted: MonitoringPlan) -> None:
    for name, version in wanted.packages.items():
        query = "%{EPOCHNUM}:%{VERSION}-%{RELEASE}"
        found = host.check_output(f"rpm --query --queryformat '{query}' {shlex.quote(name)}")
        assert version is None or found == version or found.partition(":")[2] == version, name
    assert host.service("docker.service").is_running
    assert host.service("docker.service").is_enabled
