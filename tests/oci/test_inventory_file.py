"""inventories/oci.py as pyinfra reads it: hosts and groups really arrive, and a static inventory does not pay for OCI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import PROJECT, PYINFRA, run
from tests.deploy.test_deploy import variables
from tests.oci.conftest import Controller
from tests.oci.service import COMPARTMENT, Tenancy


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This project with inventories of its own."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("operations", "templates", "files", "tests", "deploy.py", "config.py"):
        (root / name).symlink_to(PROJECT / name)
    ignored = shutil.ignore_patterns("__pycache__", "oci.toml", "oci_ssh_config")
    shutil.copytree(PROJECT / "inventories", root / "inventories", ignore=ignored)
    return root


def pyinfra(
    project: Path, *arguments: str, answers: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return run([PYINFRA, "inventories/oci.py", *arguments], project, variables(**environment), answers)


def hosts(project: Path, **environment: str) -> dict[str, dict[str, Any]]:
    done = pyinfra(project, "debug-inventory", "--json", **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return {host["name"]: host for host in json.loads(done.stdout[done.stdout.index("[") :])}


def write(project: Path, controller: Controller, more: str = "", before: str = "") -> None:
    (project / "inventories/oci.toml").write_text(
        f"{before}\n[oci]\ncompartments = ['{COMPARTMENT}']\nconfig_file = '{controller.config}'\n"
        f"endpoint = '{controller.url}'\n{more}\n",
        encoding="utf-8",
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "onnecting" not in done.stdout + done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("--> Loading ")]
    assert line.startswith("tritonhost: ")
    return line


@pytest.mark.slow
def test_hosts_groups_and_group_data_reach_pyinfra(
    project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    tenancy.add("gpu-1", freeformTags={"model": "gpt2-medium"})
    tenancy.add("gpu-2", "BM.GPU.H100.8")
    tenancy.add("off", lifecycleState="STOPPED")
    write(project, controller, before="[hosts.static-1]\naddress = '10.0.1.1'\n")
    # a shape's settings win over all.py; the inventory's own group and the host's tag win over a shape's
    group_data = project / "inventories/group_data"
    (group_data / "bm_gpu4_8.py").write_text("soak_s = 7\nssh_user = 'no'\nmodel = 'no'\n", encoding="utf-8")
    found = hosts(project)
    assert set(found) == {"gpu-1", "gpu-2", "static-1"}
    groups = {name: set(host["groups"]) - {"hosts"} for name, host in found.items()}
    assert groups == {
        "static-1": {"oci"},
        "gpu-1": {"oci", "ad_2", "bm_gpu4_8", "model_gpt2_medium"},
        "gpu-2": {"oci", "ad_3", "bm_gpu_h100_8"},
    }
    data = found["gpu-1"]["data"]
    assert (data["ssh_hostname"], data["shape"], data["model"]) == ("10.0.0.11", "BM.GPU4.8", "gpt2-medium")
    assert (data["soak_s"], data["ssh_user"]) == (7, "opc")
    assert "soak_s" not in found["gpu-2"]["data"]
    assert tenancy.refused == []


@pytest.mark.slow
def test_instance_also_named_by_hand_is_refused(
    project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    tenancy.add("gpu-1")
    write(project, controller, before="[hosts.other]\naddress = '10.0.0.11'\n")
    assert "duplicate host 10.0.0.11:22" in refused(pyinfra(project, "debug-inventory"))


def test_a_bad_table_is_refused_before_a_request(
    project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    write(project, controller, "regoin = 'x'")
    line = refused(pyinfra(project, "deploy.py", "-y"))
    assert "inventories/oci.toml: [oci] regoin: found unknown key regoin" in line
    assert tenancy.requests == []


@pytest.mark.slow
def test_bad_group_data_are_refused_before_connecting(
    project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    tenancy.add("gpu-1")
    write(project, controller)
    (project / "inventories/group_data/bm_gpu4_8.py").write_text("soak_ss = 7\n", encoding="utf-8")
    assert "inventories/group_data/bm_gpu4_8.py: soak_ss: found unknown key soak_ss" in refused(
        pyinfra(project, "deploy.py", "-y")
    )


@pytest.mark.slow
def test_tag_with_an_unknown_model_is_refused_offline(
    project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    tenancy.add("gpu-1", freeformTags={"model": "gpt2-medum"})
    write(project, controller)
    line = refused(pyinfra(project, "deploy.py", "-y"))
    assert "model: found gpt2-medum" in line
    assert "did you mean gpt2-medium?" in line


@pytest.mark.slow
def test_a_refused_signature_is_one_line(project: Path, controller: Controller, tenancy: Tenancy) -> None:
    tenancy.api_keys.clear()
    write(project, controller)
    assert "HTTP 401 NotAuthenticated" in refused(pyinfra(project, "deploy.py", "-y"))


def test_the_variable_wins_over_the_file(project: Path, controller: Controller, tenancy: Tenancy) -> None:
    write(project, controller)
    assert set(hosts(project, OCI_HOSTS="gpu-9=10.0.0.99")) == {"gpu-9"}
    assert tenancy.requests == []


@pytest.mark.slow
def test_a_static_inventory_does_not_import_oci(project: Path) -> None:
    (project / "inventories/oci.toml").write_text("[hosts.gpu-1]\naddress = '10.0.0.11'\n", encoding="utf-8")
    script = (
        "import runpy, sys; found = runpy.run_path('inventories/oci.py'); "
        "assert [name for name, _ in found['hosts']] == ['gpu-1'], found; "
        "sys.exit('oci' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("OCI_")}, "PYTHONPATH": "."},
        timeout=60,
    )
    assert done.returncode == 0
