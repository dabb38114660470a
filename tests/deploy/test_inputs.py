"""Inputs that must be refused, typed as a person types them: exit code 2, one line, and no connection opened.

The numbers are those of the requirements: M01 to M17 for inventories. Every host's address is that of a listener, which
counts who connects; the last test of a kind shows that it would have counted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.command_line import PROJECT, PYINFRA
from tests.deploy.test_deploy import ALONE, QUICK, preflight, pyinfra


class Listener:
    """A port of this machine, and how often somebody connected to it."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.connections.append(self.socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept() would keep the port open
        self.socket.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    ours = Listener()
    yield ours
    if ours.socket.fileno() >= 0:
        ours.close()


# of the default model's image and of the gateway's, without which a deploy is refused before a connection
DIGESTS = dict.fromkeys(
    ("nvidia/tritonserver:26.07-trtllm-python-py3", "library/nginx:1.30.7"), f"sha256:{'a' * 64}"
)


@pytest.fixture
def site(tmp_path: Path, listener: Listener) -> Path:
    """This project with an inventory `mine.py` of a site's own, which a test writes; its hosts are the listener."""
    for name in ("operations", "templates", "files", "tests", "config.py", "deploy.py"):
        (tmp_path / name).symlink_to(PROJECT / name)
    shutil.copytree(
        PROJECT / "inventories", tmp_path / "inventories", ignore=shutil.ignore_patterns("oci.toml")
    )
    (tmp_path / "inventories/group_data/mine.py").write_text(
        f"ssh_port = {listener.port}\nimage_digests = {DIGESTS!r}\n", encoding="utf-8"
    )
    return tmp_path


ADDRESS = {"ssh_hostname": "127.0.0.1"}
OTHER = {"ssh_hostname": "127.0.0.2"}


def mine(site: Path, text: str | bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A deploy with inventories/mine.py, whose content is `text`."""
    (site / "inventories/mine.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    return pyinfra("inventories/mine.py", "deploy.py", "-y", *arguments, cwd=site, **ALONE)


# What pyinfra itself says before it is asked to end
OF_PYINFRA = ("--> Loading ", "No host matches found for ", "Ignoring host group ")


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "Traceback" not in output
    assert "Connecting" not in output
    lines = [line.strip() for line in output.splitlines()]
    [line] = [
        line
        for line in lines
        if line and not line.startswith(OF_PYINFRA) and "neither an inventory" not in line
    ]
    assert line.startswith("tritonhost: ")
    return line


def one_host(**data: Any) -> str:
    return f"hosts = [('gpu-1', {ADDRESS | data!r})]\n"


CHECKED = """
from operations.plan.inventory.hosts import checked_hosts
from operations.intake.refusing import refusing
with refusing():
    hosts = checked_hosts({}, "inventories/mine.py")
"""


@pytest.mark.slow
@pytest.mark.requirement("R01")
def test_good_inventory_is_connected_to(site: Path, listener: Listener) -> None:
    # what makes the counts of zero below worth something
    (site / "inventories/mine.py").write_text(one_host(), encoding="utf-8")
    done = subprocess.Popen(
        [PYINFRA, "inventories/mine.py", "deploy.py", "-y"],
        cwd=site,
        env={**os.environ, **QUICK, **ALONE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 30
    while not listener.connections and time.monotonic() < until:
        time.sleep(0.05)
    assert listener.connections
    time.sleep(0.5)
    done.send_signal(signal.SIGINT)
    output, _ = done.communicate(timeout=30)
    # Ctrl-C: pyinfra's own code would be 0
    assert done.returncode == 130, output
    assert "interrupted; " in output
    assert "Traceback" not in output


@pytest.mark.requirement("M01", "R02")
@pytest.mark.parametrize(
    ("inventory", "expected"),
    [
        ("inventories/oc.py", "inventory not found: inventories/oc.py: found no such file"),
        ("nowhere/oci.py", "inventory not found: nowhere/oci.py"),
        ("mine.py", "inventory not found: mine.py"),
        ("no-such-host-or-module", "no-such-host-or-module: found no hosts"),
        ("inventories", "inventories: found something else, expected a file"),
        ("inventories/a.py,inventories/b.py", 'host #1 name: found "inventories/a.py", expected a host name'),
    ],
)
def test_m01_missing_inventory_is_refused(site: Path, inventory: str, expected: str) -> None:
    assert expected in refused(pyinfra(inventory, "deploy.py", "-y", cwd=site, **ALONE))


@pytest.mark.requirement(
    "M02", "M04", "M05", "M06", "M07", "M08", "M09", "M11", "M12", "M13", "M15", "M16", "M17", "R01"
)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # M02
        ("", "inventories/mine.py: found no hosts, expected a list of hosts"),
        ("hosts = []\n", "inventories/mine.py: found no hosts"),
        # M03, with line and column
        ("hosts = [\n  'gpu-1',\n  }\n", "inventories/mine.py:3:3: found closing parenthesis"),
        # M04, M05: pyinfra leaves them out without a word; an inventory that uses checked_hosts says which one
        ("hosts = '10.0.0.1'\n", "inventories/mine.py: found no hosts, expected a list of hosts"),
        ("hosts = [None]\n", "inventories/mine.py: found no hosts, expected a list of hosts"),
        (CHECKED.format("'10.0.0.1'"), 'found "10.0.0.1", expected a list of hosts'),
        (CHECKED.format("['gpu-1', None]"), "host #2: found None, expected a name or (name, data)"),
        (CHECKED.format("['gpu-1', 5]"), "host #2: found 5, expected a name or (name, data)"),
        (
            CHECKED.format("[('gpu-1', {}, 3)]"),
            "host #1: found ('gpu-1', {}, 3), expected a name or (name, data)",
        ),
        # M06
        (CHECKED.format("['gpu-1', 'gpu-1']"), "duplicate host gpu-1"),
        (f"hosts = [('a', {ADDRESS}), ('b', {ADDRESS})]\n", "host b: found duplicate host 127.0.0.1:"),
        # pyinfra merges entries of one name, and the last wins
        (
            f"hosts = [('gpu-1', {ADDRESS}), ('gpu-1', {OTHER})]\n",
            "inventories/mine.py: host gpu-1: found it twice, 127.0.0.1 in hosts and 127.0.0.2 in hosts, expected each"
            " host once; remove one entry",
        ),
        (
            f"hosts = [('gpu-1', {ADDRESS})]\na10 = [('gpu-1', {OTHER})]\n",
            "host gpu-1: found it twice, 127.0.0.1 in hosts and 127.0.0.2 in a10, expected each host once",
        ),
        (
            f"hosts = [('gpu-1', {ADDRESS})]\na10 = [('gpu-1', {ADDRESS | {'ssh_user': 'opc'}})]\n",
            "127.0.0.1 in hosts and 127.0.0.1 in a10, which differ in ssh_user, expected each host once",
        ),
        ("hosts = ['127.0.0.1', '127.0.0.1']\n", "host 127.0.0.1: found it twice"),
        # M07, M08
        (
            one_host(ssh_port="abc"),
            'host gpu-1 ssh_port: found "abc", expected a whole number from 1 to 65535',
        ),
        (one_host(ssh_port=22.5), "ssh_port: found 22.5, expected a whole number from 1 to 65535"),
        (one_host(ssh_port=99999), "ssh_port: found 99999, expected a whole number from 1 to 65535"),
        # M09
        (one_host(ssh_usr="opc"), "unknown key ssh_usr, expected a known key; did you mean ssh_user?"),
        # M11, M12
        (
            "hosts = ['-oProxyCommand=reboot']\n",
            'host #1 name: found "-oProxyCommand=reboot", expected a host name',
        ),
        (
            "hosts = [('gpu-1', {'ssh_hostname': '$(reboot)'})]\n",
            'host gpu-1 ssh_hostname: found "$(reboot)", expected a host',
        ),
        ("hosts = ['10.0.0.999']\n", 'found "10.0.0.999", expected a valid IPv4 address'),
        ("hosts = ['fe80::1:22']\n", 'found "fe80::1:22", expected a host name or an IPv4 address'),
        # M13
        (one_host(ssh_strict_host_key_checking="no"), "found no, expected yes; anything else is not allowed"),
        (one_host(ssh_strict_host_key_checking="accept-new"), "expected yes; anything else is not allowed"),
        # M15
        (one_host(ssh_password="CANARY-password"), "found a password, expected no secret in an inventory"),
        (one_host(summary="hf_CANARY0123456789"), "expected no secret in an inventory"),
        # M16
        ("hosts = ['gpu-1']\n".encode("utf-16"), "expected Python in the encoding UTF-8"),
        ("hosts = ['gpu-é']\n".encode("latin-1"), "expected Python in the encoding UTF-8"),
        (b"\xef\xbb\xbfhosts = ['gpu-1']\n", "a byte order mark, expected Python in the encoding UTF-8"),
        (b"hosts = ['gpu-1']\0\n", "inventories/mine.py"),
        # M17: a host that only a group names is a host of the inventory like any other, and a group holds no groups: so
        # there is nothing undefined, and no cycle. With a list `all` of one's own it would be otherwise.
        (f"all = [('gpu-1', {ADDRESS})]\na10 = ['gpu-2']\n", "all: found a list of that name, expected none"),
        (
            f"hosts = [('gpu-1', {ADDRESS})]\na10 = ['hosts']\n",
            "host hosts: found the name of a group, expected",
        ),
    ],
)
def test_bad_inventory_is_refused_in_one_line_before_connecting(
    site: Path, listener: Listener, text: str | bytes, expected: str
) -> None:
    line = refused(mine(site, text))
    assert expected in line
    assert "CANARY" not in line
    assert listener.connections == []


@pytest.mark.requirement("M03")
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("all.py", b"model = \n", "inventories/group_data/all.py:1:"),
        ("mine.py", b"model = 'm\xe9'\n", "group_data/mine.py: found byte 10 of another encoding"),
        ("oci.py", b"model = [\n", "inventories/group_data/oci.py:1:"),
    ],
)
def test_m03_bad_group_data_are_refused(site: Path, name: str, text: bytes, expected: str) -> None:
    (site / "inventories/group_data" / name).write_bytes(text)
    assert expected in refused(mine(site, one_host()))


def test_group_data_that_raise_are_refused_in_one_line(site: Path) -> None:
    (site / "inventories/group_data/oci.py").write_text("\nssh_user = opc\n", encoding="utf-8")
    done = pyinfra("inventories/oci.py", "deploy.py", "-y", cwd=site, OCI_HOSTS="gpu-1", **ALONE)
    assert "group_data/oci.py:2: found NameError: name 'opc' is not defined" in refused(done)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("ssh_port=99999", "ssh_port: found 99999"),
        ("start_timeout_s=10 minutes", '--data start_timeout_s: found "10 minutes"'),
        ("modle=x", "did you mean model?"),
        ("ssh_strict_host_key_checking=no", "expected yes"),
        ("note=hf_CANARY0123456789", "no secret in an inventory"),
    ],
)
def test_data_options_are_checked_before_connecting(
    site: Path, listener: Listener, option: str, expected: str
) -> None:
    line = refused(mine(site, one_host(), "--data", option))
    assert expected in line
    assert "CANARY" not in line
    assert listener.connections == []


def test_inventory_may_name_a_host_in_further_lists(site: Path) -> None:
    text = f"hosts = [('gpu-1', {ADDRESS})]\na10 = ['gpu-1']\nalso = hosts\n"
    (site / "inventories/mine.py").write_text(text, encoding="utf-8")
    done = pyinfra("inventories/mine.py", "debug-inventory", cwd=site, **ALONE)
    assert done.returncode == 0, done.stderr


@pytest.mark.requirement("M16")
def test_m16_windows_line_ends_are_fine(site: Path, listener: Listener) -> None:
    (site / "inventories/mine.py").write_bytes(b"# a comment\r\nhosts = ['gpu-1']\r\n")
    done = pyinfra("inventories/mine.py", "debug-inventory", cwd=site, **ALONE)
    assert done.returncode == 0, done.stderr


# --- --limit and --exclude

THREE = """
hosts = [(name, {'ssh_hostname': f'127.0.0.{n}'}) for n, name in enumerate(('gpu-1', 'gpu-2', 'big-1'), 1)]
big = ['big-1']
"""


@pytest.mark.requirement("R02")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--limit", "gpu-9"], "--limit gpu-9: found no hosts selected"),
        (["--limit", "gpu-1", "--limit", "gup-*"], "--limit gup-*: found no hosts selected"),
        # what somebody meant to leave out would be changed
        (["--exclude", "gup-1"], "--exclude gup-1: found no hosts selected"),
        (["--exclude", "*"], "--exclude *: found no hosts selected, expected at least one host"),
        (["--limit", "big", "--exclude", "big-*"], "--limit big --exclude big-*: found no hosts selected"),
        # a group of which only data are known
        (["--limit", "oci"], "--limit oci: found no hosts selected"),
    ],
)
def test_empty_selection_is_refused_with_hosts_and_groups(
    site: Path, listener: Listener, options: list[str], expected: str
) -> None:
    line = refused(mine(site, THREE, *options))
    assert expected in line
    assert "the hosts gpu-1, gpu-2, big-1; the groups big, hosts, mine" in line
    assert listener.connections == []


@pytest.mark.parametrize("option", ["--serial", "--no-wait"])
def test_serial_and_no_wait_are_refused_for_several_hosts(
    site: Path, listener: Listener, option: str
) -> None:
    line = refused(mine(site, THREE, option))
    assert f"{option}: found 3 hosts, expected one host, or neither --serial nor --no-wait" in line
    assert listener.connections == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--limit", "gpu-*"], ["gpu-1", "gpu-2"]),
        (["--limit", "big"], ["big-1"]),
        (["--limit", "mine", "--exclude", "gpu-2"], ["gpu-1", "big-1"]),
    ],
)
def test_selection_is_the_same_as_pyinfra_s(site: Path, options: list[str], names: list[str]) -> None:
    # a host's key that is bad is only complained of where the host is selected
    bad = THREE + "hosts = [(name, data | {'ssh_key': f'/no/key/of/{name}'}) for name, data in hosts]\n"
    line = refused(mine(site, bad, *options))
    assert f"{names[0]}: ssh_key /no/key/of/{names[0]}" in line


# --- M10: keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, phrase in (("plain", ""), ("locked", "a phrase")):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", name, "-f", folder / name], check=True
        )
    shutil.copy(folder / "plain", folder / "open")
    (folder / "open").chmod(0o644)
    (folder / "rubbish").write_text("rubbish\n", encoding="utf-8")
    (folder / "rubbish").chmod(0o600)
    return folder


@pytest.mark.slow
@pytest.mark.requirement("M10")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent", "found no such file, expected a private key"),
        ("", "found a directory, expected a private key"),
        ("open", "found mode 0644, expected a private key that only you can read, mode 0600; chmod 600"),
        ("plain.pub", "found a public key, expected the private key; leave .pub off"),
        ("rubbish", "found no private key that can be read, expected an Ed25519, ECDSA or RSA key"),
        (
            "locked",
            "found an encrypted key that ssh-agent does not hold, expected its passphrase in no file; ssh-add",
        ),
    ],
)
def test_m10_unusable_key_is_refused(
    site: Path, listener: Listener, keys: Path, name: str, expected: str
) -> None:
    assert f"ssh_key {keys / name}: {expected}" in refused(mine(site, one_host(ssh_key=str(keys / name))))
    assert listener.connections == []


class _Server(paramiko.ServerInterface):
    """Takes one public key, and nothing else."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        self.tried: list[str] = []

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.tried.append(key.get_base64())
        good = key.get_base64() == self.allowed
        return paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


class SshServer:
    """An SSH server of this machine that lets one key in and runs nothing."""

    def __init__(self, allowed: str = "") -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.server = _Server(allowed)
        self.listener = Listener()
        self.port = self.listener.port
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        served = 0
        while self.listener.socket.fileno() >= 0:
            if len(self.listener.connections) > served:
                transport = paramiko.Transport(self.listener.connections[served])
                transport.add_server_key(self.key)
                served += 1
                try:
                    transport.start_server(server=self.server)
                except (paramiko.SSHException, EOFError):
                    continue  # the client has left when it saw the key
            time.sleep(0.02)

    def known_hosts(self, folder: Path, key: paramiko.PKey | None = None) -> str:
        """A file that knows this server by its key, or by another."""
        key = key or self.key
        path = folder / "known_hosts"
        path.write_text(f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n", encoding="utf-8")
        return str(path)


@pytest.fixture
def agent(tmp_path: Path, keys: Path) -> Iterator[str]:
    """An ssh-agent that holds the key with a passphrase."""
    address = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while not Path(address).exists() and time.monotonic() < until:
        time.sleep(0.02)
    asking = tmp_path / "phrase"
    asking.write_text("#!/bin/sh\necho a phrase\n", encoding="utf-8")
    asking.chmod(0o700)
    phrase = {"SSH_ASKPASS": str(asking), "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": address}
    subprocess.run(["ssh-add", "-q", keys / "locked"], check=True, env={**os.environ, **phrase})
    yield address
    process.terminate()
    process.wait()


@pytest.mark.slow
@pytest.mark.requirement("M10")
def test_m10_encrypted_key_is_used_through_the_agent(
    site: Path, keys: Path, agent: str, tmp_path: Path
) -> None:
    public = (keys / "locked.pub").read_text(encoding="utf-8").split()[1]
    server = SshServer(public)
    data = {
        "ssh_key": str(keys / "locked"),
        "ssh_port": server.port,
        "ssh_known_hosts_file": server.known_hosts(tmp_path),
    }
    (site / "inventories/mine.py").write_text(one_host(**data), encoding="utf-8")
    variables = {**ALONE, "SSH_AUTH_SOCK": agent}
    done = pyinfra("inventories/mine.py", "exec", "-y", "--", "true", cwd=site, **variables)
    assert "[gpu-1] Connected" in done.stdout + done.stderr, done.stderr
    assert server.server.tried == [public], "this key, and it alone"


# --- the preflight's own command: what a deploy refuses before it connects, it refuses in the same words


GATEWAY = {
    "gateway": {
        "certificate": "/no/fullchain.pem",
        "private_key": "/no/privkey.pem",
        "api_keys": "/no/api-keys",
    },
    "bind_address": "10.0.0.11",
    "allowed_sources": ["10.0.0.0/16"],
}


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("hosts = []\n", [], "inventories/mine.py: found no hosts, expected a list of hosts"),
        ("hosts = [\n", [], "inventories/mine.py:1:"),
        ("hosts = ['-oProxyCommand=reboot']\n", [], 'found "-oProxyCommand=reboot", expected a host name'),
        (
            f"hosts = [('gpu-1', {ADDRESS}), ('gpu-1', {OTHER})]\n",
            [],
            "inventories/mine.py: host gpu-1: found it twice, 127.0.0.1 in hosts and 127.0.0.2 in hosts",
        ),
        (one_host(ssh_usr="opc"), [], "unknown key ssh_usr, expected a known key; did you mean ssh_user?"),
        (one_host(ssh_strict_host_key_checking="no"), [], "found no, expected yes"),
        (one_host(ssh_strict_host_key_checking=None), [], "ssh_strict_host_key_checking: found"),
        (one_host(model="no-such-model"), [], "model: found no-such-model, expected a profile"),
        (one_host(**GATEWAY), [], "gateway.certificate: /no/fullchain.pem: found no such file"),
        (
            one_host(ssh_key="{keys}/open"),
            [],
            "found mode 0644, expected a private key that only you can read",
        ),
        (one_host(ssh_key="{keys}/locked"), [], "found an encrypted key that ssh-agent does not hold"),
        (THREE, ["--limit", "gup-*"], "--limit gup-*: found no hosts selected"),
        (THREE, ["--group-data", "no/folder"], "--group-data no/folder: found no such folder"),
        (THREE, ["--group-data", "empty"], "--group-data empty: found no Python file"),
        (THREE, ["--group-data", "empty/notes.txt"], "--group-data empty/notes.txt: found no Python file"),
        (one_host(), ["--group-data", "bad"], "bad/mine.py:1:"),
        (one_host(), ["--group-data", "good", "--group-data", "odd"], "soak_s: found -1, expected"),
    ],
)
def test_preflight_refuses_with_the_same_line_as_a_deploy(
    site: Path, listener: Listener, keys: Path, text: str, options: list[str], expected: str
) -> None:
    for folder, data in (("bad", "model = \n"), ("good", "soak_s = 7\n"), ("odd", "soak_s = -1\n")):
        (site / folder).mkdir()
        (site / folder / "mine.py").write_text(data, encoding="utf-8")
    (site / "empty").mkdir()
    (site / "empty" / "notes.txt").write_text("model = 'x'\n", encoding="utf-8")
    line = refused(mine(site, text.replace("{keys}", str(keys)), *options))
    assert expected in line
    assert refused(preflight("inventories/mine.py", *options, cwd=site, **ALONE)) == line
    assert listener.connections == []


def test_preflight_refuses_a_raising_inventory_in_one_line(site: Path) -> None:
    for folder in (site / "inventories", site / "inventories/group_data"):
        (folder / "mine.py").write_text("hosts = [1 / 0]\n", encoding="utf-8")
        line = refused(preflight("inventories/mine.py", cwd=site, **ALONE))
        assert "ZeroDivisionError: division by zero" in line
        (folder / "mine.py").write_text("hosts = ['gpu-1']\n", encoding="utf-8")


def test_preflight_operation_refuses_what_a_deploy_refuses(site: Path) -> None:
    for text in (one_host(**GATEWAY), one_host(model="no-such-model")):
        line = refused(mine(site, text))
        done = pyinfra("inventories/mine.py", "operations.preflight.report", "-y", cwd=site, **ALONE)
        assert refused(done) == line


def test_preflight_group_data_override_like_pyinfra_s(
    site: Path, listener: Listener, tmp_path: Path, keys: Path
) -> None:
    further = tmp_path / "further"
    further.mkdir()
    server = SshServer()
    (further / "mine.py").write_text(f"ssh_port = {server.port}\n", encoding="utf-8")
    (site / "inventories/mine.py").write_text(one_host(ssh_key=str(keys / "plain")), encoding="utf-8")
    options = ("--group-data", str(further), "--data", "ssh_connect_retries=0")
    done = preflight("inventories/mine.py", *options, cwd=site, **ALONE)
    assert done.returncode == 5, done.stdout + done.stderr
    assert server.listener.connections and not listener.connections


# --- hosts that cannot be reached


def table(output: str) -> dict[str, str]:
    """host -> status, of the run's last table."""
    lines = output[output.index("--> Hosts:") :].splitlines()[2:]
    rows = [line.split(maxsplit=1) for line in lines if line.startswith("    ")]
    return {row[0]: row[1] for row in rows}


def of_preflight(site: Path) -> str:
    """The same host's status as the preflight's own command has it."""
    done = preflight("inventories/mine.py", "--json", cwd=site, **ALONE)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    host = json.loads(done.stdout)["hosts"]["gpu-1"]
    return f"{host['status']}: {host['problem']}"


def fingerprint(key: paramiko.PKey, tmp_path: Path) -> str:
    """What ssh-keygen says of it."""
    path = tmp_path / "key.pub"
    path.write_text(f"{key.get_name()} {key.get_base64()}\n", encoding="utf-8")
    said = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


@pytest.mark.slow
@pytest.mark.requirement("R04")
def test_unknown_host_key_is_refused_with_its_fingerprint(site: Path, keys: Path, tmp_path: Path) -> None:
    server = SshServer()
    (tmp_path / "empty").write_text("", encoding="utf-8")
    data = {"ssh_key": str(keys / "plain"), "ssh_port": server.port}
    text = one_host(**data, ssh_known_hosts_file=str(tmp_path / "empty"))
    done = mine(site, text)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in output
    said = (
        f"host key: found ECDSA {fingerprint(server.key, tmp_path)}, expected one that {tmp_path}/empty knows"
    )
    assert said in output
    assert table(output)["gpu-1"].startswith("unreachable: host key: found ECDSA SHA256:")
    assert table(output)["gpu-1"] == of_preflight(site)
    assert (tmp_path / "empty").read_text(encoding="utf-8") == "", "never accepted by itself"
    assert server.server.tried == []

    another = paramiko.ECDSAKey.generate()
    done = mine(site, one_host(**data, ssh_known_hosts_file=server.known_hosts(tmp_path, another)))
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert f"found ECDSA {fingerprint(server.key, tmp_path)}" in output
    assert f"expected ECDSA {fingerprint(another, tmp_path)}: the host was reinstalled or replaced" in output
    assert f"ssh-keygen -R [127.0.0.1]:{server.port} -f {tmp_path}/known_hosts" in output
    assert "unreachable: host key" in table(output)["gpu-1"]
    assert table(output)["gpu-1"] == of_preflight(site)
    assert server.server.tried == []


def test_unreached_hosts_are_all_named_in_the_table(site: Path, listener: Listener, keys: Path) -> None:
    listener.close()
    text = (
        THREE
        + f"hosts = [(name, data | {{'ssh_key': {str(keys / 'plain')!r}, 'ssh_connect_retries': 0}}) for name, data in hosts]\n"
    )
    done = mine(site, text, "--exclude", "gpu-2")
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in output
    statuses = table(output)
    assert list(statuses) == ["gpu-1", "gpu-2", "big-1"]
    assert statuses["gpu-1"].startswith("unreachable: Could not connect")
    assert statuses["big-1"].startswith("unreachable: Could not connect")
    assert statuses["gpu-2"] == "left out by --limit or --exclude"


@pytest.mark.slow
def test_monitoring_server_without_its_password_is_refused(site: Path, listener: Listener) -> None:
    """Nothing of any host is changed for an inventory whose files are not there."""
    own = {"admin_password": "no/such/file"}
    watching = f"hosts = [('watch-1', {ADDRESS | {'monitoring_server': own}!r})]\n"
    line = refused(mine(site, watching))
    assert "watch-1" in line and "monitoring_server.admin_password" in line and "no/such/file" in line
    assert listener.connections == []
