"""GPU hosts on OCI: from the environment variable OCI_HOSTS, or else from inventories/oci.toml.

OCI_HOSTS=gpu-1=10.0.0.11,gpu-2=10.0.0.12      # name=address, or only a name that DNS resolves

[hosts.gpu-1]                                  # inventories/oci.toml: hosts one by one,
address = "10.0.0.11"
model = "llama-3.1-8b-awq"                     # any key of operations/plan/inventory/settings.py

[oci]                                          # and those OCI itself has; docs/how-to/oci-inventory.md
compartments = ["ocid1.compartment.oc1..aaaa"]
shape = "BM.GPU.A100*"
"""

import os
import sys
from pathlib import Path

if not Path("operations").is_dir():
    # pyinfra reads config.py and imports operations from the directory it runs in
    _project = Path(__file__).resolve().parents[1]
    print(
        f"tritonhost: directory: found {Path.cwd()}, expected the project's; cd {_project}", file=sys.stderr
    )
    raise SystemExit(2)

from operations.intake.oci_instances import Found, found_by
from operations.intake.refusing import refusing
from operations.plan.inventory.hosts import (
    VARIABLE,
    checked_hosts,
    hosts_from_text,
    origins_of,
    read_group_data,
    settings_of,
    static_hosts,
    tables_from_toml,
    with_services,
)
from operations.plan.inventory.oci import from_table, groups_with_static

_here = Path(__file__).resolve().parent
_where = "inventories/oci.toml"
_variable = os.environ.get(VARIABLE)
_found = Found()
_groups, _origins = {}, {}

with refusing():
    if _variable is not None:
        hosts = checked_hosts(hosts_from_text(_variable), VARIABLE)
    else:
        _tables = tables_from_toml(_here / "oci.toml")
        _static = static_hosts(_tables, _where)
        if "oci" in _tables:
            _base = Path(read_group_data(_here / "group_data" / "all.py").get("ssh_config_file", os.devnull))
            _found = found_by(
                from_table(_tables["oci"], _where), _where, _here / "oci_ssh_config", str(_base.resolve())
            )
        _origins = origins_of([name for name, _ in _static], _where)
        hosts = checked_hosts([*_static, *_found.hosts], _where, _origins)
        _groups = groups_with_static(_found.groups, _static)
    hosts, _groups = with_services(hosts, "oci", _here / "group_data", _groups, _origins)
    settings_of(hosts, "oci", _here / "group_data", _groups, _origins)

# pyinfra takes each list of the module for a group: bm_gpu4_8, ad_1, model_mixtral_8x7b, and gpu-1 of gpu-1/llama and gpu-1/clip
globals().update(_groups)
