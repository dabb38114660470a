"""GPU hosts on OCI: from the environment variable OCI_HOSTS, or else from inventories/oci.toml.

OCI_HOSTS=gpu-1=10.0.0.11,gpu-2=10.0.0.12      # name=address, or a name that resolves

[hosts.gpu-1]                                  # inventories/oci.toml: hosts one by one,
address = "10.0.0.11"
model = "llama-3.1-8b-awq"                     # any key of operations/plan/settings.py

[oci]                                          # and those OCI itself has; docs/oci.md
compartments = ["ocid1.compartment.oc1..aaaa"]
shape = "BM.GPU.A100*"
"""

import os
from pathlib import Path

from operations.oci_instances import Found, found_by
from operations.plan.inventory import (
    checked_hosts,
    hosts_from_text,
    read_group_data,
    refusing,
    settings_of,
    static_hosts,
    tables_from_toml,
)
from operations.plan.oci_inventory import from_table

_here = Path(__file__).resolve().parent
_where = "inventories/oci.toml"
_variable = os.environ.get("OCI_HOSTS")
_found = Found()

with refusing():
    if _variable is not None:
        hosts = checked_hosts(hosts_from_text(_variable), "OCI_HOSTS")
    else:
        _tables = tables_from_toml(_here / "oci.toml")
        hosts = static_hosts(_tables, _where)
        if "oci" in _tables:
            _base = Path(read_group_data(_here / "group_data" / "all.py").get("ssh_config_file", os.devnull))
            _found = found_by(
                from_table(_tables["oci"], _where), _where, _here / "oci_ssh_config", str(_base.resolve())
            )
        hosts = checked_hosts([*hosts, *_found.hosts], _where)
    settings_of(hosts, "oci", _here / "group_data", _found.groups)

# pyinfra takes each list of the module for a group: bm_gpu4_8, ad_1, model_mixtral_8x7b
globals().update(_found.groups)
