"""The pages about OCI say what the code does: the table of shapes, the examples, the keys and the failure lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from operations.plan.catalog.shapes import SHAPES, Shape
from operations.plan.inventory.hosts import checked_hosts, static_hosts
from operations.plan.inventory.oci import OciInventory, from_table
from operations.plan.inventory.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/how-to/oci.md").read_text(encoding="utf-8")
# what [oci] may say, its groups and its failure lines
INVENTORY = (PROJECT / "docs/how-to/oci-inventory.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE + INVENTORY, re.DOTALL)
SOURCES = "".join(
    (PROJECT / name).read_text(encoding="utf-8")
    for name in (
        "operations/intake/oci_session.py",
        "operations/intake/oci_instances.py",
        "operations/intake/secrets.py",
        "operations/plan/inventory/oci.py",
        "operations/plan/inventory/hosts.py",
    )
)


def row(shape: Shape) -> str:
    disks = f"{shape.local_nvme.count}, {shape.local_nvme.total_tb} TB" if shape.local_nvme.count else "none"
    cells = [
        shape.name,
        f"{shape.gpu_count} \N{MULTIPLICATION SIGN} {shape.gpu}, {shape.gpu_memory_gib} GB",
        shape.compute_capability,
        f"{shape.memory_gib} GB",
        str(shape.ocpus),
        disks,
        "yes" if shape.nvswitch else "no",
    ]
    return f"| {' | '.join(cells)} |"


def test_table_of_shapes_matches_the_code() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (BM|VM)\.", line)]
    assert rows == [row(shape) for shape in SHAPES.values()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_accepted(example: str) -> None:
    tables = tomllib.loads(example)
    assert from_table(tables["oci"], "the page").compartments
    for _, data in checked_hosts([*static_hosts(tables, "the page"), "x"], "the page"):
        assert set(data) <= {"ssh_hostname", *Settings.model_fields}


def test_page_has_two_examples() -> None:
    assert len(EXAMPLES) == 3


def test_every_key_of_the_table_is_described() -> None:
    section = INVENTORY[INVENTORY.index("| key of `[oci]`") : INVENTORY.index("An unknown key is refused")]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    described = {key for cell in cells[1:] for key in re.findall(r"`([a-z_]+)`", cell)}
    assert described == set(OciInventory.model_fields)


def test_policies_match_those_in_the_errors() -> None:
    printed = re.findall(r"Allow group GROUP to ([a-z]+ [a-z-]+) in (compartment|tenancy)", SOURCES)
    assert {what for what, _ in printed} == {
        "read instances",
        "inspect vnic-attachments",
        "inspect vnics",
        "inspect compartments",
        "read secret-bundles",
    }
    for what, where in printed:
        assert f"    Allow group GROUP to {what} in {where}" in PAGE


def test_failure_lines_of_the_page_exist_in_the_code() -> None:
    table = INVENTORY[INVENTORY.index("| line holds") :]
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    words = [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]
    assert len(words) > 12
    for word in words:
        # as it stands in a message of the code: without values, and without the words that PlanError puts between
        plain = re.sub(r"HTTP .*", "HTTP {error.status}", word)
        plain = plain.replace("expected ", "").replace("no public", "no {wanted.address}")
        for part in re.split(r"…|0644|: found|: ", plain):
            assert part.strip() in SOURCES, word


def part(first: str, last: str, page: str = PAGE) -> str:
    return page[page.index(first) : page.index(last)]


@pytest.mark.parametrize(
    "statement",
    [
        "Allow group GROUP to manage instance-agent-command-family in compartment COMPARTMENT",
        "Allow group GROUP to read instance-agent-command-execution-family in compartment COMPARTMENT",
        "Allow dynamic-group HOSTS to use instance-agent-command-execution-family in compartment COMPARTMENT "
        "where request.instance.id = target.instance.id",
    ],
)
def test_oci_page_names_run_command_s_permissions(statement: str) -> None:
    assert f"    {statement}\n" in part("## 6.", "## 7.")


def test_oci_page_waits_for_the_console_history() -> None:
    capture = next(line for line in PAGE.splitlines() if "console-history capture" in line)
    assert "--wait-for-state SUCCEEDED" in capture
    assert "--query data.id --raw-output" in capture


def test_oci_page_opens_oracle_services_but_not_link_local() -> None:
    rows = [line for line in part("## 2.", "## 3.").splitlines() if line.startswith("| out |")]
    assert [row for row in rows if "Services in Oracle Services Network" in row and "TCP 443" in row]
    # security rules are not applied to link-local addresses
    assert not [row for row in rows if "169.254" in row]


@pytest.mark.slow
def test_oci_page_says_how_to_reach_a_dedicated_region() -> None:
    section = part("## A dedicated region", "## Failure lines", INVENTORY)
    [text] = re.findall(r"export OCI_REGION_METADATA='(.*)'", section)
    region = json.loads(text)["regionIdentifier"]
    script = f"""
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from oci.core import ComputeClient
from oci.identity import IdentityClient
from oci.secrets import SecretsClient

key = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
config = {{"user": "ocid1.user.oc99..a", "tenancy": "ocid1.tenancy.oc99..a", "region": {region!r}}}
config |= {{"key_content": key.decode(), "fingerprint": ":".join(["00"] * 16)}}
for kind in (ComputeClient, IdentityClient, SecretsClient):
    print(kind(config).base_client.endpoint)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OCI_REGION_METADATA": text},
        capture_output=True,
        text=True,
        check=True,
    )
    urls = done.stdout.split()
    assert len(urls) == 3
    for url in urls:
        # the library fills its own options in when it asks
        shown = (
            re.sub(r"/[0-9]{8}$|\{[^}]*\}", "", url)
            .replace(region, "REGION")
            .replace("example.com", "DOMAIN")
        )
        assert f"`{shown}`" in section
