"""The monitoring's images: a real Prometheus and Alertmanager, and the stand-in for Grafana, asked as a deploy asks."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from operations.plan.monitoring import yaml_text
from operations.plan.monitoring.site import BOARDS, Site, files
from tests.lab.standins import monitoring_images as images
from tests.lab.standins.chroot import CACHE, Container, free_port
from tests.unit.certificates import pair

pytestmark = pytest.mark.lab
GRAFANA = f"{images.GRAFANA_HOME}/bin/grafana"
RESET = (GRAFANA, "cli", "--homepath", images.GRAFANA_HOME, "admin", "reset-admin-password")
SECRET = "a long word"
SOURCE: dict[str, object] = {"name": "P", "type": "prometheus", "uid": "p", "url": "http://127.0.0.1:1"}


def as_user(user: int, group: int, *words: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *words]


@dataclass(frozen=True)
class Program:
    """A program of a container that answers."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    context: ssl.SSLContext | None = None

    def ask(
        self, path: str, password: str = SECRET, body: bytes | None = None, method: str = ""
    ) -> tuple[int, str]:
        """Status and content; without a password as nobody."""
        request = urllib.request.Request(f"{self.url}{path}", body, method=method or None)
        if password:
            request.add_header(
                "Authorization", f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"
            )
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def read(self, path: str, password: str = SECRET) -> Any:
        status, text = self.ask(path, password)
        assert status == 200, text
        return json.loads(text)

    def stop(self) -> int:
        """As a container engine does: the signal goes to the first process of the container."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        return self.process.wait(10)


@contextmanager
def running(
    container: Container, words: Sequence[str], port: int, ready: str, context: ssl.SSLContext | None = None
) -> Iterator[Program]:
    """A program, once it answers at a path."""
    log = container.work / f"log-{port}"
    with log.open("wb") as out:
        command = container.command(*words)
        process = subprocess.Popen(command, stdout=out, stderr=out, env=container.environment)
    program = Program(process, f"http{'s' if context else ''}://127.0.0.1:{port}", log, context)
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            assert process.poll() is None, log.read_text()
            try:
                if program.ask(ready, "")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text())
        yield program
    finally:
        process.kill()
        process.wait()


# Prometheus and Alertmanager


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Container:
    folder = tmp_path_factory.mktemp("prometheus")
    return Container(folder, images.prometheus_layers(CACHE), settings=images.PROMETHEUS_SETTINGS)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Container:
    folder = tmp_path_factory.mktemp("alertmanager")
    return Container(folder, images.alertmanager_layers(CACHE), settings=images.ALERTMANAGER_SETTINGS)


def started(settings: Mapping[str, Any], *more: str) -> list[str]:
    """As the image starts it, as the image's user."""
    return as_user(images.NOBODY, images.NOBODY, *settings["Entrypoint"], *settings["Cmd"], *more)


def test_prometheus_starts_as_nobody_with_the_images_file(prometheus: Container) -> None:
    version = prometheus.run("/bin/prometheus", "--version")
    assert f"version {images.PROMETHEUS_TAG.removeprefix('v')}" in version
    port = free_port()
    words = started(images.PROMETHEUS_SETTINGS, f"--web.listen-address=127.0.0.1:{port}")
    with running(prometheus, words, port, "/-/ready") as program:
        assert program.read("/api/v1/query?query=1")["status"] == "success"
        assert program.stop() == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [("scrape_configs: []\n", 0), ("scrape_configs:\n  - job: x\n", 1), ("rule_files: [x.yml]\n", 1)],
)
def test_promtool_checks_a_file(prometheus: Container, text: str, code: int) -> None:
    (prometheus.work / "prometheus.yml").write_text(text)
    done = prometheus.attempt("/bin/promtool", "check", "config", "/w/prometheus.yml")
    assert done.returncode == code, done.stdout + done.stderr


def test_alertmanager_starts_as_nobody_with_the_images_file(alertmanager: Container) -> None:
    version = alertmanager.run("/bin/alertmanager", "--version")
    assert f"version {images.ALERTMANAGER_TAG.removeprefix('v')}" in version
    port = free_port()
    words = started(
        images.ALERTMANAGER_SETTINGS, f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="
    )
    with running(alertmanager, words, port, "/-/ready") as program:
        assert program.read("/api/v2/status")["config"]["original"]
        assert program.stop() == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (files([], Site())["alertmanager.example.yml"], 0),
        (images.ALERTMANAGER_FILE.decode(), 0),
        ("route: {receiver: nobody}\nreceivers: []\n", 1),
    ],
)
def test_amtool_checks_a_file(alertmanager: Container, text: str, code: int) -> None:
    (alertmanager.work / "alertmanager.yml").write_text(text)
    done = alertmanager.attempt("/bin/amtool", "check-config", "/w/alertmanager.yml")
    assert done.returncode == code, done.stdout + done.stderr


# Grafana


class Place:
    """A data directory and a provisioning of its own in the container."""

    def __init__(self, container: Container, name: str) -> None:
        self.container = container
        self.inside, self.outside = f"/w/{name}", container.work / name
        for folder in ("data", "boards", "provisioning/datasources", "provisioning/dashboards"):
            (self.outside / folder).mkdir(parents=True)
        os.chown(self.outside / "data", images.GRAFANA_USER, 0)
        self.settings = {
            "GF_PATHS_DATA": f"{self.inside}/data",
            "GF_PATHS_PLUGINS": f"{self.inside}/data/plugins",
            "GF_PATHS_PROVISIONING": f"{self.inside}/provisioning",
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        }

    def write(self, name: str, text: str | bytes) -> str:
        """Where the file is in the container."""
        (self.outside / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"{self.inside}/{name}"

    def source(self, **changes: object) -> None:
        entry = {key: value for key, value in {**SOURCE, **changes}.items() if value is not None}
        self.write(
            "provisioning/datasources/one.yml", yaml_text.document({"apiVersion": 1, "datasources": [entry]})
        )

    def provider(self, **changes: object) -> None:
        entry = {"name": "b", "type": "file", "options": {"path": f"{self.inside}/boards"}, **changes}
        self.write(
            "provisioning/dashboards/one.yml", yaml_text.document({"apiVersion": 1, "providers": [entry]})
        )

    def words(self, *words: str, settings: Mapping[str, str], user: int = images.GRAFANA_USER) -> list[str]:
        given = [f"{name}={value}" for name, value in {**self.settings, **settings}.items()]
        return as_user(user, 0 if user == images.GRAFANA_USER else user, "env", *given, *words)

    @contextmanager
    def running(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        context: ssl.SSLContext | None = None,
        user: int = images.GRAFANA_USER,
    ) -> Iterator[Program]:
        port = free_port()
        given = {
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_SECURITY_ADMIN_PASSWORD": SECRET,
            **(settings or {}),
        }
        words = self.words("/run.sh", settings=given, user=user)
        with running(self.container, words, port, "/api/health", context) as program:
            yield program

    def ends(self, settings: Mapping[str, str] | None = None) -> str:
        """What it says when it ends at its start."""
        given = {"GF_SERVER_HTTP_PORT": str(free_port()), **(settings or {})}
        done = self.container.attempt(*self.words("/run.sh", settings=given))
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout + done.stderr

    def command(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.container.command(*self.words(*words, settings={})),
            input=given,
            capture_output=True,
            text=True,
            env=self.container.environment,
            check=False,
        )


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory) -> Container:
    folder = tmp_path_factory.mktemp("grafana")
    return Container(folder, images.grafana_layers(CACHE), settings=images.GRAFANA_SETTINGS)


@pytest.fixture
def place(grafana: Container, tmp_path: Path) -> Place:
    return Place(grafana, tmp_path.name)


def test_grafana_shows_the_files_that_tritonhost_writes(place: Place, prometheus: Container) -> None:
    port = free_port()
    words = started(images.PROMETHEUS_SETTINGS, f"--web.listen-address=127.0.0.1:{port}")
    with running(prometheus, words, port, "/-/ready"):
        written = files([], Site(prometheus=f"http://127.0.0.1:{port}"))
        boards = place.container.root / BOARDS.removeprefix("/")
        boards.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            kind, _, rest = name.removeprefix("grafana/").partition("/")
            if kind == "dashboards":
                (boards / rest).write_text(text)
            elif kind == "provisioning":
                place.write(f"provisioning/{rest}", text)
        with place.running() as program:
            assert "level=error" not in program.log.read_text()
            sources = program.read("/api/datasources")
            assert {source["uid"] for source in sources} == {
                "tritonhost-prometheus",
                "tritonhost-alertmanager",
            }
            assert all(source["readOnly"] for source in sources)
            health = program.read("/api/datasources/uid/tritonhost-prometheus/health")
            assert health["status"] == "OK"
            [found] = program.read("/api/search?type=dash-db")
            assert (found["uid"], found["title"], found["type"]) == ("tritonhost", "tritonhost", "dash-db")
            assert (
                program.read("/api/search?type=dash-folder") == program.read("/api/search?query=other") == []
            )
            board = program.read("/api/dashboards/uid/tritonhost")
            assert (
                board["meta"]["provisioned"] and board["meta"]["provisionedExternalId"] == "tritonhost.json"
            )
            expected = json.loads(written["grafana/dashboards/tritonhost.json"])
            assert {key: board["dashboard"][key] for key in expected} == expected
            proxy = "/api/datasources/proxy/uid/tritonhost-prometheus/api/v1/query"
            assert program.read(f"{proxy}?query=1%2B1")["data"]["result"][1] == "2"
            status, text = program.ask(proxy, body=b"query=2%2B1")
            assert status == 200 and json.loads(text)["data"]["result"][1] == "3"


def test_grafana_shows_little_without_a_password(place: Place) -> None:
    place.source()
    with place.running() as program:
        assert program.read("/api/health", "") == {
            "database": "ok",
            "version": images.GRAFANA_TAG,
            "commit": "stand-in",
        }
        status, text = program.ask("/metrics", "")
        assert status == 200 and f'version="{images.GRAFANA_TAG}"}} 1' in text
        assert program.ask("/login", "")[0] == program.ask("/", "")[0] == 200
        for path in ("org", "datasources", "search", "datasources/proxy/uid/p/api/v1/query", "nothing"):
            for password in ("", "admin", "x"):
                status, text = program.ask(f"/api/{path}", password)
                assert status == 401 and json.loads(text)["statusCode"] == 401, path
        assert program.read("/api/org")["name"] == "Main Org."
        for path in ("/api/nothing", "/nothing", "/api/dashboards/uid/x", "/api/datasources/uid/x/health"):
            status, text = program.ask(path)
            assert status == 404 and "message" in json.loads(text), path
        assert program.ask("/api/org", body=b"{}")[0] == 404
        # nobody listens at the port of the data source
        status, text = program.ask("/api/datasources/uid/p/health")
        assert status == 400 and json.loads(text)["status"] == "ERROR"
        assert program.ask("/api/datasources/proxy/uid/p/api/v1/query")[0] == 502
        assert program.ask("/api/datasources/proxy/uid/p/api/v1/admin/tsdb/snapshot", body=b"x")[0] == 403
        assert program.ask("/api/datasources/proxy/uid/p/api/v1/query", method="DELETE")[0] == 403


def test_grafana_lets_the_anonymous_in_where_it_may(place: Place) -> None:
    with place.running({"GF_AUTH_ANONYMOUS_ENABLED": "true"}) as program:
        assert program.read("/api/search", "") == []
        assert program.ask("/api/datasources", "")[0] == 403
        assert program.ask("/api/search", "wrong")[0] == 401
        assert program.read("/api/datasources") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "name is missing"),
        ({"type": None}, "type is missing"),
        ({"type": ""}, "type is missing"),
        ({"secureJsonData": {"basicAuthPassword": "x"}}, "does not know secureJsonData"),
        ({"url": "http://$HOST"}, "does not know: url"),
    ],
)
def test_grafana_ends_with_a_wrong_data_source(place: Place, changes: dict[str, object], said: str) -> None:
    place.source(**changes)
    text = place.ends()
    assert said in text and "level=error" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apiVersion: 2\n", "no apiVersion 1"),
        ("datasources: []\n", "no apiVersion 1"),
        ("# nothing\n", "no apiVersion 1"),
        ('apiVersion: 1\ndatasources:\n  - name: P\n    type: "prometheus"\n', "line 3"),
        ('apiVersion: 1\ndatasources:\n  - name: "P" # x\n', "line 3"),
        ('apiVersion: 1\ndatasources:\n  - name: "P"\n      type: "prometheus"\n', "line 4"),
        ('apiVersion: 1\ndatasources:\n  - name: "P"\n    name: "Q"\n', "already set"),
        ('apiVersion: 1\ndatasources:\n- name: "P"\n', "line 2"),
        ('apiVersion: 1\ndatasources:\n\t- name: "P"\n', "line 2"),
        ('apiVersion: 1\ndatasources: [{"name": "P"}]\n', "line 2"),
        ("apiVersion: 1\ndatasources: &a\n", "line 2"),
        ("apiVersion: 1\ndeleteDatasources: []\n", "does not know deleteDatasources"),
        ('apiVersion: 1\ndatasources: "x"\n', "no list of tables"),
    ],
)
def test_grafana_refuses_yaml_that_it_does_not_know(place: Place, text: str, said: str) -> None:
    place.write("provisioning/datasources/one.yaml", text)
    assert said in place.ends()


def test_grafana_refuses_two_data_sources_of_a_name(place: Place) -> None:
    place.source()
    (place.outside / "provisioning/datasources/two.yml").write_bytes(
        (place.outside / "provisioning/datasources/one.yml").read_bytes()
    )
    assert "is there twice" in place.ends()


@pytest.mark.parametrize("changes", [{"type": "git"}, {"options": {}}, {"name": ""}, {"unknown": True}])
def test_grafana_ends_with_a_wrong_provider(place: Place, changes: dict[str, object]) -> None:
    place.provider(**changes)
    assert "level=error" in place.ends()


def test_grafana_leaves_out_a_wrong_board(place: Place) -> None:
    place.provider(updateIntervalSeconds=1)
    for name, text in {
        "good.json": '{"title": "Good", "uid": "g"}',
        "cut.json": '{"title": "Cut"',
        "list.json": "[]",
        "nameless.json": '{"title": " "}',
        "twice.json": '{"title": "Twice", "uid": "g"}',
        "other.txt": "x",
    }.items():
        place.write(f"boards/{name}", text)
    with place.running() as program:
        assert [board["title"] for board in program.read("/api/search")] == ["Good"]
        said = [line for line in program.log.read_text().splitlines() if "level=error" in line]
        assert len(said) == 3
        for line, name in zip(said, ("cut", "list", "nameless"), strict=True):
            assert 'msg="failed to load dashboard from"' in line and f"/{name}.json" in line
        assert "the same UID is used more than once" in program.log.read_text()
        # a new one is found, and one that is cut now stays as it was
        place.write("boards/new.json", '{"title": "New"}')
        place.write("boards/good.json", '{"title": "Go')
        (place.outside / "boards/twice.json").unlink()
        time.sleep(1.2)
        assert [board["title"] for board in program.read("/api/search")] == ["Good", "New"]


def test_grafana_starts_without_provisioning(place: Place) -> None:
    with place.running({"GF_PATHS_PROVISIONING": f"{place.inside}/nowhere"}) as program:
        assert "can't read provisioning files" in program.log.read_text()
        assert program.read("/api/datasources") == []


def test_grafana_speaks_tls(place: Place) -> None:
    own = pair("localhost", addresses=["127.0.0.1"])
    tls = {
        "GF_SERVER_PROTOCOL": "https",
        "GF_SERVER_CERT_FILE": place.write("chain.pem", own.pem),
        "GF_SERVER_CERT_KEY": place.write("key.pem", own.key_pem()),
    }
    context = ssl.create_default_context(cadata=own.pem.decode())
    with place.running(tls, context=context) as program:
        assert program.read("/api/org")["id"] == 1
        assert "protocol=https" in program.log.read_text()
        # who does not speak it is told nothing, and holds up nobody
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{program.url.replace('https', 'http')}/api/health", timeout=10)
        assert program.read("/api/org")["id"] == 1
    other = place.write("other.pem", pair("other").key_pem())
    locked = place.write("locked.pem", own.key_pem(b"word"))
    for changes, said in (
        ({"GF_SERVER_CERT_FILE": ""}, "cert_file cannot be empty"),
        ({"GF_SERVER_CERT_KEY": f"{place.inside}/none.pem"}, "cannot find SSL cert_key"),
        ({"GF_SERVER_CERT_KEY": other}, "could not load SSL certificate"),
        ({"GF_SERVER_CERT_KEY": locked}, "could not load SSL certificate"),
        ({"GF_SERVER_PROTOCOL": "socket"}, "protocol socket"),
        ({"GF_SERVER_HTTP_PORT": "x"}, "invalid port"),
    ):
        assert said in place.ends({**tls, **changes})


def test_grafana_ends_where_the_port_is_taken(place: Place, grafana: Container, tmp_path: Path) -> None:
    with place.running() as program:
        port = program.url.rpartition(":")[2]
        other = Place(grafana, f"{tmp_path.name}-other")
        assert "failed to open listener" in other.ends({"GF_SERVER_HTTP_PORT": port})


def test_grafana_listens_on_all_addresses_by_default(place: Place) -> None:
    with place.running({"GF_SERVER_HTTP_ADDR": ""}) as program:
        assert program.read("/api/org")["id"] == 1
        assert 'msg="HTTP Server Listen" address=' in program.log.read_text()


def test_grafana_keeps_the_first_password(place: Place) -> None:
    with place.running() as program:
        assert program.ask("/api/org")[0] == 200
        assert SECRET not in program.log.read_text()
    text = (place.outside / "data/grafana.db").read_text()
    assert SECRET not in text and (place.outside / "data/grafana.db").stat().st_mode & 0o7777 == 0o640
    with place.running({"GF_SECURITY_ADMIN_PASSWORD": "another"}) as program:
        assert program.ask("/api/org", "another")[0] == 401
        assert program.ask("/api/org")[0] == 200


def test_grafana_reads_a_password_from_a_file(place: Place) -> None:
    path = place.write("password", f"{SECRET}\n")
    name = "GF_SECURITY_ADMIN_PASSWORD"
    with place.running({name: "", f"{name}__FILE": path}) as program:
        assert program.ask("/api/org")[0] == 200
    assert "are exclusive" in place.ends({name: "x", f"{name}__FILE": path})


def test_grafana_with_an_unreadable_file_has_the_default(place: Place) -> None:
    """As the real entrypoint goes on: the first password is then admin."""
    settings = {"GF_SECURITY_ADMIN_PASSWORD": "", "GF_SECURITY_ADMIN_PASSWORD__FILE": "/nowhere"}
    with place.running(settings) as program:
        assert program.ask("/api/org", "admin")[0] == 200


def test_grafana_cli_sets_the_password(place: Place) -> None:
    with place.running() as program:
        done = place.command(*RESET, "--password-from-stdin", given="new word\n")
        assert done.returncode == 0 and "changed successfully" in done.stdout, done.stderr
        # a server that runs takes it, and one that starts
        assert program.ask("/api/org", "new word")[0] == 200
        assert program.ask("/api/org")[0] == 401
    with place.running() as program:
        assert program.ask("/api/org", "new word")[0] == 200
    inside = f'cd {images.GRAFANA_HOME} && grafana cli admin reset-admin-password "$@"'
    done = place.command("sh", "-c", inside, "sh", "--password-from-stdin", given="in its home")
    assert done.returncode == 0, done.stderr
    with place.running() as program:
        assert program.ask("/api/org", "in its home")[0] == 200


def test_grafana_cli_sets_it_before_the_first_start(place: Place) -> None:
    assert place.command(*RESET, "--password-from-stdin", given="new word\n").returncode == 0
    with place.running() as program:
        assert program.ask("/api/org", "new word")[0] == 200


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        ((*RESET, "--password-from-stdin"), "abcd\n", "too short"),
        ((*RESET, "--password-from-stdin"), "", "can't read password"),
        (RESET, "x" * 9, "usage"),
        ((*RESET, "--password-from-file"), "", "usage"),
        ((GRAFANA, "cli", "admin", "reset-password"), "", "usage"),
        ((GRAFANA, "cli", "admin", "reset-admin-password", "--password-from-stdin"), "long word", "homepath"),
        ((GRAFANA, "serve"), "", "usage"),
        ((GRAFANA, "server", f"--homepath={images.GRAFANA_HOME}", "cfg:x=y"), "", "usage"),
    ],
)
def test_grafana_refuses_commands(place: Place, words: tuple[str, ...], given: str, said: str) -> None:
    done = place.command(*words, given=given)
    assert done.returncode == 1 and said in done.stderr
    assert not (place.outside / "data/grafana.db").exists()


def test_grafana_ends_where_it_cannot_write(place: Place) -> None:
    os.chown(place.outside / "data", 0, 0)
    # the entrypoint makes the directory of plugins
    assert "is not writable" in place.ends() and "mkdir" in place.ends()
    (place.outside / "data/plugins").mkdir()
    text = place.ends()
    assert "level=error" in text and "failed to connect to database" in text


def test_grafana_ends_with_a_broken_database(place: Place) -> None:
    place.write("data/grafana.db", "{")
    assert "unable to open database file" in place.ends()


def test_grafana_runs_as_any_user_and_writes_its_data_only(place: Place) -> None:
    os.chown(place.outside / "data", 4321, 4321)
    place.source()
    root = place.container.root
    # what is mounted there, or was before
    besides = ("w", "proc", "dev")

    def state() -> dict[Path, int]:
        found = [path for path in root.rglob("*") if path.relative_to(root).parts[0] not in besides]
        return {path: path.lstat().st_ctime_ns for path in found}

    before = state()
    with place.running(user=4321) as program:
        assert len(program.read("/api/datasources")) == 1
    assert state() == before
    assert sorted(path.name for path in (place.outside / "data").iterdir()) == ["grafana.db", "plugins"]


def test_grafana_ends_within_a_second_of_sigterm(place: Place) -> None:
    with place.running() as program:
        begin = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - begin < 1
        assert 'msg="Shutdown started"' in program.log.read_text()


def test_grafana_names_the_version_of_its_tag(grafana: Container) -> None:
    assert grafana.run(GRAFANA, "--version") == f"grafana version {images.GRAFANA_TAG}\n"
