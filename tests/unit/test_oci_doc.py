"""docs/oci.md says what the code does: its table of shapes, its examples, its keys and its failure lines."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from operations.plan.inventory import checked_hosts, static_hosts
from operations.plan.oci_inventory import OciInventory, from_table
from operations.plan.settings import Settings
from operations.plan.shapes import SHAPES, Shape

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs/oci.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SOURCES = "".join(
    (PROJECT / name).read_text(encoding="utf-8")
    for name in (
        "operations/oci_session.py",
        "operations/oci_instances.py",
        "operations/secrets.py",
        "operations/plan/oci_inventory.py",
        "operations/plan/inventory.py",
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


def test_the_table_of_shapes_is_the_code_s() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (BM|VM)\.", line)]
    assert rows == [row(shape) for shape in SHAPES.values()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_accepted(example: str) -> None:
    tables = tomllib.loads(example)
    assert from_table(tables["oci"], "the page").compartments
    for _, data in checked_hosts([*static_hosts(tables, "the page"), "x"], "the page"):
        assert set(data) <= {"ssh_hostname", *Settings.model_fields}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


def test_every_key_of_the_table_is_described() -> None:
    section = PAGE[PAGE.index("| key of `[oci]`") : PAGE.index("An unknown key is refused")]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    described = {key for cell in cells[1:] for key in re.findall(r"`([a-z_]+)`", cell)}
    assert described == set(OciInventory.model_fields)


def test_the_policies_are_those_the_errors_print() -> None:
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


def test_what_a_failure_line_holds_stands_in_the_code() -> None:
    table = PAGE[PAGE.index("| line holds") : PAGE.index("## What was not run")]
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    words = [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]
    assert len(words) > 12
    for word in words:
        # as it stands in a message of the code: without values, and without the words that PlanError puts between
        plain = re.sub(r"HTTP .*", "HTTP {error.status}", word)
        plain = plain.replace("expected ", "").replace("no public", "no {wanted.address}")
        for part in re.split(r"…|0644|: found|: ", plain):
            assert part.strip() in SOURCES, word
