"""What a person gets to read who makes a mistake: the whole line and the exit code, one mistake a row.

Each line names the file and the key in the words of that file, the value as it was typed, what is allowed with an example,
and what to do. None shows a type's name, a regular expression, a whole table or a traceback.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from operations import inputs
from operations.bundle.__main__ import main as bundle
from operations.intake import ssh_keys
from operations.intake.refusing import refusing
from operations.plan.__main__ import main
from operations.plan.deployable import check_deployable
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import (
    VARIABLE,
    checked_hosts,
    hosts_from_text,
    origins_of,
    settings_of,
    static_hosts,
    tables_from_toml,
    unread_group_files,
)
from operations.plan.inventory.oci import OciInventory, from_table, groups_with_static
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import KINDS, load_profile, profile_in
from operations.plan.wording import Form, described, place_of

PROJECT = Path(__file__).resolve().parents[2]
TODAY = date(2026, 11, 30)
WHERE = "inventories/oci.toml"
NAME = "gpt2-medium"
IMAGE = "nvidia/tritonserver:26.07-trtllm-python-py3"
DIGESTS = f'image_digests = {{"{IMAGE}" = "sha256:{"a" * 64}"}}\n'
HOST = '[hosts.gpu-1]\naddress = "10.0.0.11"\n'
GPU_1 = f"{WHERE}: [hosts.gpu-1] "
SOURCES = 'allowed_sources = ["10.0.0.0/16"]\n'
GATEWAY = 'gateway = {certificate = "a.pem", private_key = "b.pem", api_keys = "c"'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own inventories, without an inventory of TOML, in a directory of their own."""
    ignored = shutil.ignore_patterns("oci.toml", "__pycache__", "lab.py")
    shutil.copytree(PROJECT / "inventories", tmp_path / "inventories", ignore=ignored)
    (tmp_path / "deploy.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line_of(act: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal, which ended the program with exit code 2."""
    with pytest.raises(SystemExit) as ended, refusing():
        act()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tritonhost: ")
    return line.removeprefix("tritonhost: ")


def deployed(site: Path, text: str) -> None:
    """inventories/oci.toml, checked as inventories/oci.py and a deploy check it."""
    path = site / "inventories/oci.toml"
    path.write_text(text, encoding="utf-8")
    tables = tables_from_toml(path)
    static = static_hosts(tables, WHERE)
    if "oci" in tables:
        from_table(tables["oci"], WHERE)
    origins = origins_of([name for name, _ in static], WHERE)
    hosts = checked_hosts(static, WHERE, origins)
    groups = groups_with_static({}, static)
    found = settings_of(hosts, "oci", site / "inventories/group_data", groups, origins)
    for name, settings in found.items():
        check_deployable(name, settings, TODAY)


def test_an_inventory_without_a_mistake_is_taken(site: Path) -> None:
    # what makes each refusal below worth something
    deployed(site, HOST + DIGESTS)


INTEGER, PORT = "a whole number of seconds from 10 to 7200", "a whole number from 1024 to 65535"
FINGERPRINT = (
    "a fingerprint of 40 hexadecimal digits, in capitals and without spaces, as gpg --show-keys prints it"
)
COMMIT = "a commit of 40 hexadecimal digits in lower case, as git ls-remote prints it"
DIGEST = (
    "a digest: sha256: and 64 hexadecimal digits in lower case, as docker buildx imagetools inspect prints it"
)
RPM = "a version and release of an rpm package, with its epoch if it has one, such as 3:29.9.0-1.el{os_major}"
URL = (
    "a URL with https://, http:// or file://, without user and password, such as https://mirror.example/path"
)
OLD = 'model = "smollm2-135m"\n'  # Triton 24.09 with TensorRT-LLM 0.13.0

# lines of [hosts.gpu-1] -> the message behind the place
KEYS: list[tuple[str, str]] = [
    # ux.md's own
    ('modle = "x"', "modle: found unknown key modle, expected a known key; did you mean model?"),
    ('http_port = "8000"', f'http_port: found "8000", expected {PORT}; write 8000 without quotes'),
    ('gpu_ids = "0,1"', 'gpu_ids: found "0,1", expected "all", or a list of GPU indices such as [0, 1]'),
    (
        f'image_digests = {{"{IMAGE}" = "sha256:abc"}}',
        f'image_digests.{IMAGE}: found "sha256:abc", expected {DIGEST}',
    ),
    (
        f'image_digests = {{"nvcr.io/{IMAGE}" = "sha256:{"a" * 64}"}}',
        f'image_digests.nvcr.io/{IMAGE}: found "nvcr.io/{IMAGE}", expected an image as name:tag without registry and digest, '
        "such as nvidia/tritonserver:24.09-py3",
    ),
    (
        'waivers = [{component = "triton", version = "24.09", reason = "why this host may run it", until = "31.01.2027"}]',
        'waivers.0.until: found "31.01.2027", expected a date as YYYY-MM-DD in quotes, such as "2027-01-31"',
    ),
    (
        'bind_address = "0.0.0.0"',
        'bind_address: found "0.0.0.0", expected 127.0.0.1 or a private address; refusing the public bind 0.0.0.0 without '
        "expose=True",
    ),
    # whole numbers
    ("http_port = 80", f"http_port: found 80, expected {PORT}"),
    ("http_port = 70000", f"http_port: found 70000, expected {PORT}"),
    ("http_port = 8000.0", f"http_port: found 8000.0, expected {PORT}"),
    ("grpc_port = true", f"grpc_port: found true, expected {PORT}"),
    ("metrics_port = []", f"metrics_port: found [], expected {PORT}"),
    ('start_timeout_s = "10 minutes"', f'start_timeout_s: found "10 minutes", expected {INTEGER}'),
    (
        'start_timeout_s = "600"',
        f'start_timeout_s: found "600", expected {INTEGER}; write 600 without quotes',
    ),
    ("start_timeout_s = 5", f"start_timeout_s: found 5, expected {INTEGER}"),
    ("soak_s = -1", "soak_s: found -1, expected a whole number of seconds from 0 to 3600"),
    ("max_unavailable = 0", "max_unavailable: found 0, expected a whole number of hosts from 1 to 1000"),
    (
        "keep_releases = 1",
        "keep_releases: found 1, expected a whole number of releases, one of them to roll back to, from 2 to 50",
    ),
    (
        'ssh_port = "22"',
        'ssh_port: found "22", expected a whole number from 1 to 65535; write 22 without quotes',
    ),
    ("gpu_ids = [-1]", "gpu_ids.0: found -1, expected a whole number from 0 to 1023"),
    (
        'gpu_ids = ["0"]',
        'gpu_ids.0: found "0", expected a whole number from 0 to 1023; write 0 without quotes',
    ),
    ("gpu_ids = [0, 0]", "gpu_ids: found [0, 0], expected at least one GPU index, each named once"),
    (
        'gpu_ids = "al"',
        'gpu_ids: found "al", expected "all", or a list of GPU indices such as [0, 1]; did you mean "all"?',
    ),
    # other numbers
    (
        'latency_factor = "3"',
        'latency_factor: found "3", expected a number from 1 to 1000; write 3 without quotes',
    ),
    ("latency_factor = 0.5", "latency_factor: found 0.5, expected a number from 1 to 1000"),
    # true and false
    ('expose = "yes"', 'expose: found "yes", expected true or false, without quotes'),
    (
        'version_lock = "false"',
        'version_lock: found "false", expected true or false, without quotes; write false without quotes',
    ),
    ("retry_failed = 1", "retry_failed: found 1, expected true or false, without quotes"),
    # one of some words
    (
        'front = "haproxi"',
        'front: found "haproxi", expected one of "none", "haproxy"; did you mean "haproxy"?',
    ),
    (
        'local_disks = "raid5"',
        'local_disks: found "raid5", expected one of "none", "raid0", "raid10"; did you mean "raid0"?',
    ),
    ("selinux = true", 'selinux: found true, expected one of "auto", "off"'),
    # text
    ("model = 24", "model: found 24, expected text in quotes; put it in quotes"),
    ('model = ""', "model: found nothing, expected text in quotes"),
    (
        'data_root = "var/lib/tritonhost"',
        'data_root: found "var/lib/tritonhost", expected an absolute path of letters, digits and . _ - /, such as '
        "/var/lib/tritonhost",
    ),
    (
        'data_root = "/tmp/tritonhost"',
        'data_root: found "/tmp/tritonhost", expected a directory outside /tmp, on a disk that is kept, such as '
        "/var/lib/tritonhost",
    ),
    (
        'service_name = "Triton"',
        'service_name: found "Triton", expected the name of a systemd unit: lower-case letters, digits and -, 32 at most, '
        "such as triton",
    ),
    (
        'server_user = "root"',
        'server_user: found "root", expected numbers as uid:gid, and not root\'s uid 0, such as 60600:60600',
    ),
    ('hub_endpoint = "huggingface.co"', f'hub_endpoint: found "huggingface.co", expected {URL}'),
    (
        'image_registry = "https://nvcr.io"',
        'image_registry: found "https://nvcr.io", expected the name of a registry, with its port if it has one and without '
        "https://, such as nvcr.io",
    ),
    (
        'docker_gpg_fingerprint = "060A 61C5"',
        f'docker_gpg_fingerprint: found "060A 61C5", expected {FINGERPRINT}',
    ),
    ('backend_commits = {"v1.0.0" = "main"}', f'backend_commits.v1.0.0: found "main", expected {COMMIT}'),
    (
        'docker_packages = {docker-ce = "latest"}',
        f'docker_packages.docker-ce: found "latest", expected {RPM}',
    ),
    # lists and tables
    (
        'egress = "10.0.0.0/16"',
        'egress: found "10.0.0.0/16", expected a list in [ ], each an IPv4 network such as 10.0.0.0/16',
    ),
    (
        'allowed_sources = ["10.0.0.5/8"]',
        'allowed_sources.0: found "10.0.0.5/8", expected an IPv4 network such as 10.0.0.0/16, or one address such as '
        "10.0.0.5/32",
    ),
    (
        'git_mirrors = "https://mirror.example"',
        'git_mirrors: found "https://mirror.example", expected a table',
    ),
    (
        'waivers = {component = "triton"}',
        "waivers: found a table with component, expected a list in [ ], each a table",
    ),
    (
        'waivers = [{component = "tritn", version = "24.09", reason = "why this host may run it", until = "2027-01-31"}]',
        'waivers.0.component: found "tritn", expected one of "triton", "tensorrt-llm", "tensorrt", "docker-ce", '
        '"containerd.io", "nvidia-container-toolkit", "nginx", "driver"; did you mean "triton"?',
    ),
    (
        'waivers = [{component = "triton", version = "24.09", reason = "…", until = "2027-01-31"}]',
        'waivers.0.reason: found "…", expected text of 12 to 400 characters, in quotes',
    ),
    (
        'waivers = [{component = "triton", version = 24.09, reason = "why this host may run it", until = "2027-01-31"}]',
        'waivers.0.version: found 24.09, expected the version that is waived, in quotes, such as "24.09"; put it in quotes',
    ),
    (
        'waivers = [{component = "triton", version = "24.09", until = "2027-01-31"}]',
        "waivers.0.reason: found nothing, expected a value; add waivers.0.reason to [hosts.gpu-1]",
    ),
    (
        "waivers = [{until = 2027-01-31}]",
        "hosts.gpu-1.waivers.0.until: found 2027-01-31, expected text, a number, true or false, a list or a table; put it in quotes",
    ),
    (
        f"{GATEWAY}, port = 443}}",
        "gateway.port: found 443, expected a whole number from 1024 to 65535, and not one that root alone may listen on",
    ),
    (
        f'{GATEWAY}, port = "8443"}}',
        'gateway.port: found "8443", expected a whole number from 1024 to 65535, and not one that root alone may listen on; write 8443 without quotes',
    ),
    (
        f'{GATEWAY}, cert = "x"}}',
        "gateway.cert: found unknown key cert, expected a known key; known: api_keys, certificate, image, port, private_key, proxies",
    ),
    (
        'gateway = {certificate = "a.pem", private_key = "b.pem"}',
        "gateway.api_keys: found nothing, expected a value; add gateway.api_keys to [hosts.gpu-1]",
    ),
    ('gateway = "a.pem"', 'gateway: found "a.pem", expected a table'),
    (
        f'{GATEWAY}, image = "library/nginx:latest"}}',
        'gateway.image: found "library/nginx:latest", expected a version of nginx\'s stable branch, whose second number is '
        "even, such as 1.30.7",
    ),
    (
        "http_port = 8001\ngrpc_port = 8001",
        "grpc_port: found 8001, expected three different ports, and http_port and grpc_port are both 8001",
    ),
    (
        'nvidia_container_toolkit_repository_url = "https://mirror.example/rpm"\n'
        'nvidia_container_toolkit_channel = "experimental"',
        'nvidia_container_toolkit_repository_url: found "https://mirror.example/rpm", expected a URL with {channel} in it, '
        'because nvidia_container_toolkit_channel is "experimental"',
    ),
    # misspelt keys
    ("ssh_usr = 'opc'", "ssh_usr: found unknown key ssh_usr, expected a known key; did you mean ssh_user?"),
    (
        "HTTP_PORT = 8000",
        "HTTP_PORT: found unknown key HTTP_PORT, expected a known key; did you mean http_port?",
    ),
    # secrets
    (
        "ssh_password = 'hunter2'",
        "ssh_password: found a password, expected no secret in an inventory; use ssh_key",
    ),
    (
        "ssh_strict_host_key_checking = 'no'",
        "ssh_strict_host_key_checking: found no, expected yes; anything else is not allowed: add the host's key to known_hosts",
    ),
    # addresses
    (
        '[hosts.gpu-2]\naddress = "10.0.0.999"',
        '[hosts.gpu-2] address: found "10.0.0.999", expected a valid IPv4 address',
    ),
    ("[hosts.gpu-2]\naddress = 5", "[hosts.gpu-2] address: found 5, expected a host name or an IPv4 address"),
    (
        '[hosts.gpu-2]\naddress = "10.0.0.11"',
        "[hosts.gpu-2]: found duplicate host 10.0.0.11:22, which gpu-1 has too, expected each host once",
    ),
    (
        '[hosts.gpu-2]\nadress = "10.0.0.12"',
        "[hosts.gpu-2] adress: found unknown key adress, expected a known key; did you mean address?",
    ),
]


@pytest.mark.parametrize(("text", "message"), KEYS, ids=[text.splitlines()[-1][:60] for text, _ in KEYS])
def test_a_mistake_in_a_host_s_table(
    site: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    line = line_of(lambda: deployed(site, f"{HOST}{text}\n"), capsys)
    place = f"{WHERE}: " if message.startswith(("[hosts.", "hosts.")) else GPU_1
    assert line == f"{place}{message}"


SHAPES = "did you mean VM.GPU.A10.1? known: BM.GPU.B300.8, BM.GPU.B200.8"

# a whole inventories/oci.toml -> the message behind the file's name
FILES: list[tuple[str, str]] = [
    # TOML itself
    (
        "[hosts.gpu-1]\nexpose = True\n",
        ": found Invalid value (at line 2, column 10), expected a TOML file in UTF-8; write true, in lower case",
    ),
    (
        "[hosts.gpu-1]\nshape = None\n",
        ": found Invalid value (at line 2, column 9), expected a TOML file in UTF-8; leave the key out: TOML has no None",
    ),
    (
        "[hosts.gpu-1]\nmodel = gpt2-medium\n",
        ": found Invalid value (at line 2, column 9), expected a TOML file in UTF-8; put text in quotes",
    ),
    (
        "[hosts.gpu-1]\naddress = 10.0.0.11\n",
        ": found Expected newline or end of document after a statement (at line 2, column 15), expected a TOML file in UTF-8; put text in quotes",
    ),
    (
        "[hosts.gpu-1]\nhttp_port: 8000\n",
        ": found Expected '=' after a key in a key/value pair (at line 2, column 10), expected a TOML file in UTF-8; write KEY = VALUE",
    ),
    (
        "[hosts.gpu-1\n",
        ": found Expected ']' at the end of a table declaration (at line 1, column 13), expected a TOML file in UTF-8",
    ),
    (
        "[hosts.gpu-1]\n[hosts.gpu-1]\n",
        ": found Cannot declare ('hosts', 'gpu-1') twice (at line 2, column 13), expected a TOML file in UTF-8",
    ),
    # its tables
    ("", ": found no hosts, expected at least one host; name a host in the inventory"),
    (
        "[host.gpu-1]\n",
        ": host: found unknown key host, expected one of the tables hosts, oci, provision; did you mean hosts?",
    ),
    ('hosts = ["gpu-1"]\n', ': hosts: found ["gpu-1"], expected a table [hosts.NAME] for each host'),
    (
        '[hosts]\ngpu-1 = "10.0.0.11"\n',
        ": hosts: found a table with gpu-1, expected a table [hosts.NAME] for each host",
    ),
    ('[hosts."gpu 1"]\n', ': host #1 name: found "gpu 1", expected a host name or an IPv4 address'),
    ('oci = "yes"\n', ': oci: found "yes", expected a table [oci]'),
    (
        "[oci]\ncompartments = []\n",
        ": [oci] compartments: found [], expected a list in [ ] with at least 1 entry, each the OCID of a compartment or of the tenancy, such as ocid1.compartment.oc1..aaaa",
    ),
    (
        '[oci]\ncompartments = ["gpus"]\n',
        ': [oci] compartments.0: found "gpus", expected the OCID of a compartment or of the tenancy, such as ocid1.compartment.oc1..aaaa',
    ),
    ("[oci]\n", ": [oci] compartments: found nothing, expected a value; add compartments to [oci]"),
    (
        '[oci]\ncompartment = "ocid1.compartment.oc1..a"\n',
        ': [oci] compartment: found unknown key compartment, expected compartments; write compartments = ["ocid1…"]',
    ),
]
COMPARTMENT = '[oci]\ncompartments = ["ocid1.compartment.oc1..aaaa"]\n'
FILES += [
    (COMPARTMENT + text, f": [oci] {message}")
    for text, message in (
        ("regoin = 'x'\n", "regoin: found unknown key regoin, expected a known key; did you mean region?"),
        ("availability_domain = 'AD-2'\n", "availability_domain: found unknown key availability_domain, expected a known key; known: address, auth, "),
        ("include_subtree = 'yes'\n", 'include_subtree: found "yes", expected true or false, without quotes'),
        ("timeout_s = '30'\n", 'timeout_s: found "30", expected a whole number; write 30 without quotes'),
        ("timeout_s = 0\n", "timeout_s: found 0, expected a whole number of seconds from 1 to 300"),
        ("address = 'privat'\n", 'address: found "privat", expected one of "private", "public"; did you mean "private"?'),
        ("lifecycle_state = 'running'\n", 'lifecycle_state: found "running", expected one of "MOVING", "PROVISIONING", '),
        ("bastion = 'a@b@c'\n", 'bastion: found "a@b@c", expected one jump host as USER@HOST or USER@HOST:PORT, such as opc@bastion.example'),
        ("endpoint = 'http://oci.example'\n", 'endpoint: found "http://oci.example", expected a URL with https:// and no path, such as https://{service}.{region}.oraclecloud.com'),
        ("region = 'Frankfurt'\n", 'region: found "Frankfurt", expected a region by its identifier, such as eu-frankfurt-1'),
        ("shape = 'vm.gpu.a10.1'\n", f'shape: found "vm.gpu.a10.1", expected an OCI shape with NVIDIA GPUs; {SHAPES}'),
        ("freeform_tags = ['model']\n", 'freeform_tags: found ["model"], expected a table'),
    )
]  # fmt: skip
FILES += [
    (f'{HOST}shape = "vm.gpu.a10.1"\n', f': [hosts.gpu-1] shape: found "vm.gpu.a10.1", expected an OCI shape with NVIDIA GPUs; {SHAPES}'),
    (f'{HOST}note = "hf_CANARY0123456789"\n', ": hosts.gpu-1.note: found a value that looks like a Hugging Face token (not shown), expected no secret in an inventory; export HF_TOKEN instead"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FILES, ids=[" ".join(text.split())[-60:] for text, _ in FILES])
def test_a_mistake_in_the_inventory_s_file(
    site: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    line = line_of(lambda: deployed(site, text), capsys)
    assert line.startswith(f"{WHERE}{message}")
    # those that go on list what is known
    assert line == f"{WHERE}{message}" or "known: " in line or "one of " in line


# what a deploy refuses of a host before it connects: lines of [hosts.gpu-1] -> the message behind the host's name
DEPLOYED: list[tuple[str, str]] = [
    ('bind_address = "10.0.0.11"', 'allowed_sources: found [], expected networks such as ["10.0.0.0/16"], who may reach bind_address 10.0.0.11'),
    ('model = "gpt2-medum"', "model: found gpt2-medum, expected a profile in inventories/models; did you mean gpt2-medium?"),
    ("", f"image_digests['{IMAGE}']: found nothing, expected the image's sha256 digest; run tritonhost lock, which asks nvcr.io (in a checkout: python -m operations.lock_inventory INVENTORY)"),
    (f"{DIGESTS}http_port = 8001", "http_port, grpc_port, metrics_port: found 8001, 8001, 8002, expected three different ports"),
    (f"{DIGESTS}front = 'haproxy'\nhttp_port = 50000", "http_port, grpc_port, metrics_port: found 50000, 8001, 8002, expected ports up to 45535 with a front, whose servers use those 10000 and 20000 higher"),
    (f'{DIGESTS}bind_address = "10.0.0.11"\n{SOURCES}{GATEWAY}, port = 8000}}', "gateway.port: found 8000, expected a port that no server has; move it, or http_port and its like"),
    (f'{DIGESTS}bind_address = "10.0.0.11"\n{SOURCES}{GATEWAY}}}', "image_digests['library/nginx:1.30.7']: found nothing, expected the image's sha256 digest; run tritonhost lock, which asks docker.io (in a checkout: python -m operations.lock_inventory INVENTORY)"),
    (f'{DIGESTS}docker_packages = {{docker-ce = "3:29.9.0-1.el9", "containerd.io" = "1.7.29-1.el9"}}', "docker_packages: containerd.io: found 1.7.29 beside docker-ce 29.9.0, expected 2.1.5 or later, which docker-ce requires from 29 on; pin both"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"), DEPLOYED, ids=[t.splitlines()[-1][:60] if t else "-" for t, _ in DEPLOYED]
)
def test_a_mistake_that_is_known_before_a_connection(
    site: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert line_of(lambda: deployed(site, f"{HOST}{text}\n"), capsys) == f"gpu-1: {message}"


def waiver(component: str, version: str, until: str = "2027-01-31") -> str:
    return f'{{component = "{component}", version = "{version}", reason = "why this host may run it", until = "{until}"}}'


@pytest.mark.parametrize(
    ("waivers", "parts"),
    [
        # every version that is too low, in one message
        (
            [],
            [
                "gpu-1: versions: found triton 24.09, tensorrt-llm 0.13.0, expected triton at least 26.07 (NVIDIA 5875 of ",
                ", tensorrt-llm at least 1.2.1 (NVIDIA 5805 of ",
                f"; upgrade them; or accept them for a while: waivers = [{waiver('triton', '24.09', 'YYYY-MM-DD')}, ",
                "] under [hosts.NAME]",
            ],
        ),
        # a waiver that does not match is named
        (
            [waiver("triton", "2.50.0"), waiver("tensorrt-llm", "0.13.0")],
            [
                "gpu-1: triton version: found 24.09, expected at least 26.07 (",
                "; a waiver for triton 2.50.0 does not match; upgrade it; or accept it for a while: waivers = [",
            ],
        ),
        (
            [waiver("triton", "24.09", "2026-01-31"), waiver("tensorrt-llm", "0.13.0")],
            [
                "gpu-1: waivers: triton 24.09: found a waiver that ended on 2026-01-31, expected at least 26.07 (",
                "; upgrade it, or renew the waiver with its reason",
            ],
        ),
        (
            [waiver("triton", "24.09", "2026-01-31")],
            [
                "versions: found triton 24.09 (a waiver that ended on 2026-01-31), tensorrt-llm 0.13.0, expected "
            ],
        ),
    ],
)
def test_a_mistake_in_waivers(
    site: Path, capsys: pytest.CaptureFixture[str], waivers: list[str], parts: list[str]
) -> None:
    line = line_of(lambda: deployed(site, f"{HOST}{OLD}waivers = [{', '.join(waivers)}]\n"), capsys)
    assert line.startswith(parts[0]) or parts[0] in line
    for part in parts:
        assert part in line
    assert line.count("waivers = [") <= 1


def test_the_waiver_that_a_message_offers_is_taken(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = line_of(lambda: deployed(site, f"{HOST}{OLD}"), capsys)
    [offered] = re.findall(r"waivers = \[.*\]", line)
    with pytest.raises(PlanError, match="image_digests"):
        deployed(
            site,
            f"{HOST}{OLD}{offered.replace('YYYY-MM-DD', '2027-01-31').removesuffix(' under [hosts.NAME]')}\n",
        )


# group data: file, text -> the whole message
GROUPS: list[tuple[str, str, str]] = [
    ("oci.py", 'modle = "x"\n', "inventories/group_data/oci.py: modle: found unknown key modle, expected a known key; did you mean model?"),
    ("oci.py", "ssh_port = '22'\n", 'inventories/group_data/oci.py: ssh_port: found "22", expected a whole number from 1 to 65535; write 22 without quotes'),
    ("vm_gpu_a10_1.py", "soak_s = '30'\n", 'inventories/group_data/vm_gpu_a10_1.py: soak_s: found "30", expected a whole number of seconds from 0 to 3600; write 30 without quotes'),
    ("model_gpt2_medium.py", "expose = 'yes'\n", 'inventories/group_data/model_gpt2_medium.py: expose: found "yes", expected true or false, without quotes'),
    ("oci.py", "ssh_user = opc\n", "group_data/oci.py:1: found NameError: name 'opc' is not defined, expected Python that runs"),
    ("oci.py", "\nmodel = \n", "group_data/oci.py:2:9: found invalid syntax, expected Python; see that line"),
    ("oci.py", "docker_daemon_settings = {'hosts': ['tcp://0.0.0.0']}\n", "inventories/group_data/oci.py: docker_daemon_settings: hosts: found ['tcp://0.0.0.0'], expected no sockets here; docker's own unit says -H, and docker does not start with both; add a drop-in to docker.service"),
    ("oci.py", "profile_overrides = {'server': {1: 2}}\n", "inventories/group_data/oci.py: profile_overrides.server: found 1, expected a table whose keys are text"),
    ("oci.py", "gateway = {'certificate': '-----BEGIN'}\n", "inventories/group_data/oci.py: gateway.certificate: found something else (not shown), expected the path of a file of this machine"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text", "message"), GROUPS, ids=[f"{f} {t.strip()}"[:60] for f, t, _ in GROUPS]
)
def test_a_mistake_in_group_data_names_the_file(
    site: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, message: str
) -> None:
    (site / "inventories/group_data" / file).write_text(text, encoding="utf-8")
    # a host that is named one by one is in the groups of its shape and its model
    hosts = f'{HOST}shape = "VM.GPU.A10.1"\nmodel = "{NAME}"\n{DIGESTS}'
    assert line_of(lambda: deployed(site, hosts), capsys) == message


def test_a_group_file_that_no_group_reads_is_named(site: Path) -> None:
    folder = site / "inventories/group_data"
    (folder / "ad2.py").write_text("", encoding="utf-8")
    assert unread_group_files(folder, ["ad_1", "ad_2", "oci"], ["oci", "lab"]) == [
        "inventories/group_data/ad2.py: found a group ad2 without hosts, expected a group of this inventory: ad_1, ad_2, all, "
        "oci; did you mean ad_2.py? nothing reads this file"
    ]
    assert unread_group_files(folder, ["ad2", "oci"], ["lab"]) == []


# the profile's own file: tables over gpt2-medium, as profile_overrides -> the message
OVERRIDES: list[tuple[dict[str, Any], str]] = [
    ({"engin": {}}, "engin: found unknown key engin, expected a known key; did you mean engine?"),
    ({"checkpoint": {"dtype": "fp16"}}, 'checkpoint.dtype: found "fp16", expected one of "float16", "bfloat16", "float32"'),
    ({"checkpoint": {"tensor_parallel": "2"}}, 'checkpoint.tensor_parallel: found "2", expected a whole number from 1 to 64; write 2 without quotes'),
    ({"weights": {"revision": "main"}}, 'weights.revision: found "main", expected a 40-hex commit'),
    ({"image": {"release": "24.9"}}, 'image.release: found "24.9", expected a release YY.MM of the support matrix; did you mean '),
    ({"weights": {"gated": "no"}}, 'weights.gated: found "no", expected true or false, without quotes'),
    ({"weights": {"include": "*.bin"}}, 'weights.include: found "*.bin", expected a list in [ ] with at least 1 entry, each text in quotes'),
    ({"weights": {"include": ["*.bin"]}}, 'weights.include: found "*.bin", expected patterns of safetensors, tokenizer and configuration files, no pickles; allow_pickle = true accepts them'),
    ({"server": {"load_models": ["ensembel"]}}, 'server.load_models.0: found "ensembel", expected one of the repository\'s models (preprocessing, postprocessing, tensorrt_llm, ensemble, tensorrt_llm_bls)'),
    ({"server": {"http_port": 8001}}, "server.grpc_port: found 8001, expected three different ports, and http_port and grpc_port are both 8001"),
    ({"server": {"arguments": "--log-verbose=1"}}, 'server.arguments: found "--log-verbose=1", expected a list in [ ], each an option of tritonserver as "--name=value", such as "--log-verbose=1"'),
    ({"golden": {"prompt": "x"}}, "golden: found a table with prompt, expected a list in [ ] with at least 1 entry, each a table"),
    ({"image": {"release": 24.1}}, 'image.release: found 24.1, expected a release in quotes, such as "24.10": without them it is the number 24.1; put it in quotes'),
    ({"hardware": {"shape": "VM.GPU.A10.1", "gpu": "NVIDIA A10", "count": 2}}, "hardware.count: found 2, expected at most 1, which VM.GPU.A10.1 has"),
]  # fmt: skip


@pytest.mark.parametrize(("tables", "message"), OVERRIDES, ids=[str(t)[:60] for t, _ in OVERRIDES])
def test_a_mistake_in_profile_overrides(
    capsys: pytest.CaptureFixture[str], tables: dict[str, Any], message: str
) -> None:
    line = line_of(lambda: load_profile(NAME, tables), capsys)
    place = f"inventories/models/{NAME}.toml: "
    shown = line.removeprefix("profile_overrides of ").removeprefix(place)
    assert shown == message or (message.endswith("did you mean ") and shown.startswith(message))
    of_the_file = message.startswith(("server.load_models.0", "server.grpc_port"))
    assert line.startswith("inventories") == of_the_file


# a profile's file -> the message
PROFILES: list[tuple[str, str]] = [
    ("", "my.toml: kind: found nothing, expected one of engine, llmapi, plan"),
    ('kind = "engin"\n', 'my.toml: kind: found "engin", expected one of engine, llmapi, plan'),
    ('kind = "engine"\n', "my.toml: summary: found nothing, expected a value; add summary to my.toml"),
    ('kind = "engine"\n[weights]\nrevison = "x"\n', "my.toml: weights.revison: found unknown key revison, expected a known key; did you mean revision?"),
    ('kind = "plan"\n[encoders.vison]\n', 'my.toml: encoders.vison: found "vison", expected one of "vision", "text"; did you mean "vision"?'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), PROFILES)
def test_a_mistake_in_a_profile_s_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    if "encoders" in text:
        text = (PROJECT / "inventories/models/clip-search.toml").read_text("utf-8")
        path.write_text(text.replace("[encoders.vision", "[encoders.vison"), encoding="utf-8")
    assert line_of(lambda: profile_in(path, "my.toml"), capsys) == message


USAGE = "expected the inventory first, then deploy.py; such as: pyinfra inventories/oci.py deploy.py"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"inventory": "deploy.py", "operations": ["inventories/oci.py"]},
            f"arguments deploy.py inventories/oci.py: found the inventory inventories/oci.py as a deploy file, {USAGE}",
        ),
        (
            {"inventory": "deploy.py", "operations": ["exec", "--", "true"]},
            f"argument deploy.py: found a deploy file as the inventory, {USAGE}",
        ),
        (
            {"inventory": "inventories/oci.toml", "operations": ["deploy.py"]},
            "argument inventories/oci.toml: found a TOML file, expected the Python file that reads it; such as: pyinfra "
            "inventories/oci.py deploy.py",
        ),
        (
            {"inventory": "inventories/oci.py", "operations": ["deploy.py"], "data": ["model"]},
            '--data: found "model", expected KEY=VALUE; such as --data model=gpt2-medium, without spaces around =',
        ),
        (
            {"inventory": "inventories/oci.py", "operations": ["deploy.py"], "data": ["a=1", "=x"]},
            '--data: found "=x", expected KEY=VALUE; such as --data model=gpt2-medium, without spaces around =',
        ),
        (
            {"inventory": "inventories/oc.py", "operations": ["deploy.py"]},
            "inventory not found: inventories/oc.py: found no such file, expected an inventory; did you mean "
            "inventories/oci.py?",
        ),
        (
            {"inventory": "inventories/oci.py", "operations": ["deploy.py"], "group_data": ["more"]},
            "--group-data more: found no such folder, expected one with group data; correct the path: pyinfra would go on "
            "without its data",
        ),
    ],
)
def test_a_mistake_on_the_command_line(
    site: Path, capsys: pytest.CaptureFixture[str], given: dict[str, Any], message: str
) -> None:
    def checked() -> None:
        inputs.check_arguments(given)
        inputs.check_files(given)

    assert line_of(checked, capsys) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "OCI_HOSTS: found no hosts, expected at least one host; name a host in the inventory"),
        ("gpu-1=", "OCI_HOSTS: host gpu-1 address: found nothing, expected a host name or an IPv4 address; write OCI_HOSTS=NAME=ADDRESS,NAME=ADDRESS"),
        ("gpu-1=10.0.0.1;gpu-2=10.0.0.2", 'OCI_HOSTS: host gpu-1 address: found "10.0.0.1;gpu-2=10.0.0.2", expected a host name or an IPv4 address; write OCI_HOSTS=NAME=ADDRESS,NAME=ADDRESS'),
        ("gpu-1=10.0.0.1,gpu-1=10.0.0.2", "OCI_HOSTS: host gpu-1: found duplicate host gpu-1, expected each host once"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_variable(capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    assert line_of(lambda: checked_hosts(hosts_from_text(text), VARIABLE), capsys) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "gpt2-medium"], "gpt2-medium: found no such file, expected the path of a profile; did you mean inventories/models/gpt2-medium.toml?"),
        (["check", "gpt2-medum.toml"], "gpt2-medum.toml: found no such file, expected the path of a profile; did you mean inventories/models/gpt2-medium.toml?"),
        (["explain", "gpt2-medum"], "model: found gpt2-medum, expected a profile in inventories/models; did you mean gpt2-medium?"),
        (["explain", "smollm2-135m", "--gpus", "NVIDIA A10:65"], "--gpus: found NVIDIA A10:65, expected NAME:COUNT; names: "),
        (["explain", "gpt2-medium", "--gpus", "A10:1"], "--gpus: found A10:1, expected NAME:COUNT; names: "),
    ],
)  # fmt: skip
def test_a_mistake_of_the_plan_s_command(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"tritonhost: {message}") and len(printed.err.splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inventories/oc.py", "inventories/oc.py: found no such file, expected the Python file of an inventory; such as inventories/oci.py"),
        ("inventories/models/gpt2-medium.toml", "inventories/models/gpt2-medium.toml: found a file of another kind, expected the Python file of an inventory; such as inventories/oci.py"),
    ],
)  # fmt: skip
def test_a_mistake_of_the_bundle_s_command(
    site: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    words = ["make", name, "--output", "out", "--url", "http://10.0.0.9:8080"]
    assert bundle(words) == 2
    assert capsys.readouterr().err == f"tritonhost: {message}\n"


def test_a_private_key_that_others_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    key.write_text("x", encoding="utf-8")
    key.chmod(0o644)
    line = line_of(lambda: ssh_keys.is_encrypted(key, "ssh_key key", "gpu-1"), capsys)
    expected = "expected a private key that only you can read, mode 0600"
    assert line == f"gpu-1: ssh_key key: found mode 0644, {expected}; chmod 600 {key}"


def test_a_mistake_is_json_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gpt2-medum", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == {
        "reference": "unknown-model",
        "host": "",
        "where": "",
        "key": "model",
        "found": "gpt2-medum",
        "expected": "a profile in inventories/models",
        "then": "did you mean gpt2-medium?",
    }


# --- words for every type


def types_in(model: type[BaseModel], seen: set[Any]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Every type inside a model, down to texts and numbers, with what is said beside it."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        waiting = [(field.annotation, tuple(field.metadata))]
        while waiting:
            annotation, beside = waiting.pop()
            if get_origin(annotation) is Annotated:
                inner, *more = get_args(annotation)
                flat = [
                    m for each in more for m in (each.metadata if isinstance(each, FieldInfo) else [each])
                ]
                waiting.append((inner, (*beside, *flat)))
                continue
            yield f"{model.__name__}.{name}", annotation, beside
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from types_in(annotation, seen)
            elif get_origin(annotation) is not Literal:
                waiting += [(part, ()) for part in get_args(annotation) if part not in (type(None), ...)]


def test_each_pattern_has_words_and_no_type_is_without() -> None:
    seen: set[Any] = set()
    count = 0
    for model in (Settings, OciInventory, *KINDS.values()):
        for name, annotation, beside in types_in(model, seen):
            if any(getattr(each, "pattern", None) for each in beside):
                count += 1
                assert any(isinstance(each, Form) for each in beside), name
            text = described(annotation, beside)
            assert not re.search(r"[\^\\]|constrained|pydantic|<class|typing", text), (name, text)
    assert count > 15


@pytest.mark.parametrize(
    ("loc", "path"),
    [
        (("gpu_ids", "list[constrained-int]", 0), ("gpu_ids", 0)),
        (("gpu_ids", "literal['all']"), ("gpu_ids",)),
        (("image_digests", "nvcr.io/x", "[key]"), ("image_digests", "nvcr.io/x")),
    ],
)
def test_a_key_is_named_without_names_of_types(loc: tuple[Any, ...], path: tuple[Any, ...]) -> None:
    assert place_of(Settings, loc).path == path
