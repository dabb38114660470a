"""The database's image: a real PostgreSQL with pgvector, and an entrypoint that behaves like the real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from operations.plan.artifacts import commands
from tests.lab.settings import REPOSITORY
from tests.lab.standins import postgres_image
from tests.lab.standins.chroot import CACHE, Container, free_port

pytestmark = pytest.mark.lab

ROLE = (REPOSITORY / "files/database/002_search_role.sql").read_text("utf-8")
VECTORS = """
CREATE EXTENSION vector;
CREATE TABLE things (id int PRIMARY KEY, place vector(3));
INSERT INTO things SELECT n, ARRAY[n, n % 7, 1]::vector FROM generate_series(1, 500) n;
CREATE INDEX ON things USING hnsw (place vector_l2_ops);
SET enable_seqscan = off;
SET hnsw.iterative_scan = relaxed_order;
SELECT id FROM things ORDER BY place <-> '[42, 0, 1]' LIMIT 1;
"""


class Database:
    """A container of the image on its own port, and its log."""

    def __init__(self, container: Container, log: Path, *words: str, **variables: str) -> None:
        self.container, self.log, self.port = container, log, free_port()
        environment = [f"{name}={value}" for name, value in variables.items()]
        command = ["env", *environment, *postgres_image.SETTINGS["Entrypoint"], *words]
        command += ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                container.command(*command), stdout=out, stderr=out, env=container.environment
            )

    def sql(self, text: str, password: str = "", user: str = "shop", name: str = "shop") -> str:
        """Run psql over TCP with a password, unlike the container's users."""
        words = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", name, "-qtAX"]
        done = self.container.attempt(
            "env", f"PGPASSWORD={password}", *words, "-v", "ON_ERROR_STOP=1", "-c", text
        )
        return done.stdout if done.returncode == 0 else done.stderr

    def wait(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            ready = self.container.attempt("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGINT)  # the image's STOPSIGNAL
        return self.process.wait(30)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    layers = postgres_image.layers(CACHE)
    return Container(tmp_path_factory.mktemp("postgres"), layers, settings=postgres_image.SETTINGS)


@pytest.fixture
def data(container: Container) -> Iterator[Path]:
    """An empty data directory, like a new volume."""
    folder = container.root / postgres_image.DATA
    yield folder
    shutil.rmtree(folder)
    folder.mkdir()


def test_database_keeps_vectors_and_requires_the_password(
    container: Container, data: Path, tmp_path: Path
) -> None:
    (container.work / "password").write_text("open sesame\n")
    first = Database(
        container,
        tmp_path / "first.log",
        "postgres",
        POSTGRES_PASSWORD_FILE="/w/password",
        POSTGRES_USER="shop",
    )
    try:
        first.wait()
        assert first.sql(VECTORS, "open sesame") == "42\n"
        assert first.sql("SHOW server_version", "open sesame") == f"{postgres_image.VERSION}\n"
        assert "hnsw" in first.sql("SELECT amname FROM pg_am WHERE amname = 'hnsw'", "open sesame")
        # Like the real one it trusts loopback, the only address of this test: without those lines, the other rules apply.
        rules = data / "pg_hba.conf"
        lines = rules.read_text().splitlines()
        assert lines[-1] == "host all all all scram-sha-256"
        rules.write_text("\n".join([*(line for line in lines if "127.0.0.1" not in line), ""]))
        assert first.sql("SELECT pg_reload_conf()") == "t\n"
        wait_until(lambda: "password authentication failed" in first.sql("SELECT 1", "open barley"))
        assert first.sql("SELECT 1", "open sesame") == "1\n"
        assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (postgres_image.USER, 0o700)
        # A user of the container gets access over the socket, which clients find by default.
        local = ["psql", "-p", str(first.port), "-U", "shop", "-tAc", "SELECT current_database()"]
        assert container.run(*local) == "shop\n"
        assert "init process complete; ready for start up" in first.log.read_text()
        assert first.stop() == 0
    finally:
        first.process.kill()
        first.process.wait()

    again = Database(container, tmp_path / "again.log", "-c", "work_mem=8MB")
    try:
        again.wait()
        assert again.sql("SELECT count(*) FROM things", "open sesame") == "500\n"
        assert again.sql("SHOW work_mem", "open sesame") == "8MB\n"
        assert "Skipping initialization" in again.log.read_text()
        assert again.stop() == 0
    finally:
        again.process.kill()
        again.process.wait()


def test_database_is_not_initialized_without_a_password(
    container: Container, data: Path, tmp_path: Path
) -> None:
    refused = Database(container, tmp_path / "refused.log", "postgres")
    assert refused.process.wait(30) == 1
    assert "superuser password is not specified" in refused.log.read_text()
    assert list(data.iterdir()) == []


def test_database_with_trust_needs_no_password(container: Container, data: Path, tmp_path: Path) -> None:
    database = Database(
        container, tmp_path / "log", "postgres", POSTGRES_HOST_AUTH_METHOD="trust", POSTGRES_DB="other"
    )
    try:
        database.wait()
        assert database.sql("SELECT current_database()", user="postgres", name="other") == "other\n"
    finally:
        database.process.kill()
        database.process.wait()


class Served(Database):
    """The database as its unit runs it; clients use the socket."""

    def __init__(self, container: Container, log: Path, *words: str) -> None:
        (container.work / "hba").write_text("".join(f"{line}\n" for line in commands.HBA))
        socket = ("-c", f"unix_socket_directories={commands.POSTGRES_SOCKET}")
        environment = {"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_DB": "tritonhost"}
        super().__init__(container, log, "postgres", *socket, *words, **environment)

    def asked(self, uid: int, user: str, sql: str = "SELECT 1", name: str = "tritonhost") -> str:
        words = [
            "psql",
            "-h",
            commands.POSTGRES_SOCKET,
            "-p",
            str(self.port),
            "-U",
            user,
            "-d",
            name,
            "-qtAX",
        ]
        who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        done = self.container.attempt(*who, *words, "-v", "ON_ERROR_STOP=1", "-c", sql)
        return done.stdout.strip() if done.returncode == 0 else done.stderr


GUARDED = ("-c", "hba_file=/w/hba")


def test_only_the_database_s_own_user_administers_it(
    container: Container, data: Path, tmp_path: Path
) -> None:
    database = Served(container, tmp_path / "log", *GUARDED)
    try:
        # no user may log in there, but the server answers
        database.wait()
        own = postgres_image.USER
        tables = "CREATE TABLE documents (id int); CREATE TABLE embeddings (id int); "
        assert database.asked(own, "postgres", tables + ROLE) == ""
        for uid in (60600, 0):
            assert "Peer authentication failed" in database.asked(uid, "postgres")
            assert "Peer authentication failed" in database.asked(uid, "postgres", name="postgres")
            assert "no pg_hba.conf entry" in database.asked(uid, "search", name="postgres")
            assert database.asked(uid, "search", "SELECT count(*) FROM documents") == "0"
        assert "permission denied" in database.asked(60600, "search", "DELETE FROM documents")
        assert "no pg_hba.conf entry" in database.sql("SELECT 1", user="postgres", name="tritonhost")
        assert "no pg_hba.conf entry" in database.sql("SELECT 1", user="search", name="tritonhost")
    finally:
        database.process.kill()
        database.process.wait()


def test_database_of_an_earlier_version_is_kept_and_guarded(
    container: Container, data: Path, tmp_path: Path
) -> None:
    before = Served(container, tmp_path / "before.log")
    try:
        before.wait()
        assert before.asked(60600, "postgres", "CREATE TABLE documents AS SELECT 7 AS id") == ""
        assert before.stop() == 0
    finally:
        before.process.kill()
        before.process.wait()
    now = Served(container, tmp_path / "now.log", *GUARDED)
    try:
        now.wait()
        assert "Peer authentication failed" in now.asked(60600, "postgres", "DROP TABLE documents")
        assert now.asked(postgres_image.USER, "postgres", "SELECT id FROM documents") == "7"
    finally:
        now.process.kill()
        now.process.wait()


def test_entrypoint_runs_other_commands_unchanged(container: Container) -> None:
    entrypoint = postgres_image.SETTINGS["Entrypoint"]
    assert "PostgreSQL) 16" in container.run(*entrypoint, "postgres", "--version")
    assert container.run(*entrypoint, "id", "-un") == "root\n"
