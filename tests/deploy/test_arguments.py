"""The words of a command line in any order: one line and exit code 2, no traceback, and no connection opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import PYINFRA, run_apart
from tests.deploy.test_deploy import ALONE, pyinfra, variables
from tests.deploy.test_inputs import Listener, listener, mine, one_host, refused, site

__all__ = ["listener", "site"]  # fixtures

FIRST = "expected the inventory first, then deploy.py; such as: pyinfra inventories/oci.py deploy.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["deploy.py", "inventories/oci.py", "-y"],
            f"arguments deploy.py inventories/oci.py: found the inventory inventories/oci.py as a deploy file, {FIRST}",
        ),
        (
            ["inventories/oci.toml", "deploy.py", "-y"],
            "argument inventories/oci.toml: found a TOML file, expected the Python file that reads it",
        ),
        (
            ["inventories/oci.py", "deploy.py", "-y", "--data", "model"],
            '--data: found "model", expected KEY=VALUE; such as --data model=gpt2-medium',
        ),
    ],
)
def test_arguments_that_cannot_be_meant(site: Path, words: list[str], expected: str) -> None:
    assert expected in refused(pyinfra(*words, cwd=site, OCI_HOSTS="gpu-1", **ALONE))


@pytest.mark.slow
def test_another_directory_is_one_line(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    # not forked: the server of forked commands has imported what this one cannot find
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    words: list[str | Path] = [PYINFRA, site / "inventories/oci.py", site / "deploy.py", "-y"]
    done = run_apart(words, elsewhere, variables(OCI_HOSTS="gpu-1"))
    assert refused(done) == f"tritonhost: directory: found {elsewhere}, expected the project's; cd {site}"


@pytest.mark.slow
def test_a_model_s_file_is_named_with_the_key(site: Path, listener: Listener) -> None:
    line = refused(mine(site, one_host(model="no-such-model")))
    assert line.startswith(
        "tritonhost: inventories/mine.py: host gpu-1 model: found no-such-model, expected a profile"
    )
    (site / "inventories/group_data/mine.py").write_text("soak_s = '30'\n", encoding="utf-8")
    line = refused(mine(site, one_host()))
    assert line.startswith(
        'tritonhost: inventories/group_data/mine.py: soak_s: found "30", expected a whole number of'
    )
    assert listener.connections == []


def test_a_group_file_that_is_not_read_is_a_warning(site: Path) -> None:
    (site / "inventories/oci.toml").write_text(
        '[hosts.gpu-1]\naddress = "10.0.0.11"\nshape = "VM.GPU.A10.1"\n', encoding="utf-8"
    )
    folder = site / "inventories/group_data"
    (folder / "vm_gpu_a10_1.py").write_text("soak_s = 7\n", encoding="utf-8")
    (folder / "vm_gpu_a10_2.py").write_text("soak_s = 8\n", encoding="utf-8")
    done = pyinfra("inventories/oci.py", "debug-inventory", "--json", cwd=site, **ALONE)
    assert done.returncode == 0, done.stderr
    assert '"soak_s": 7' in done.stdout
    [line] = [line for line in done.stderr.splitlines() if "vm_gpu_a10_2.py: " in line]
    assert line == (
        "tritonhost: warning: inventories/group_data/vm_gpu_a10_2.py: found a group vm_gpu_a10_2 without hosts, expected a "
        "group of this inventory: all, hosts, oci, vm_gpu_a10_1; did you mean vm_gpu_a10_1.py? nothing reads this file"
    )
