"""GPU hosts on OCI: from the environment variable OCI_HOSTS, or else from inventories/oci.toml.

OCI_HOSTS=gpu-1=10.0.0.11,gpu-2=10.0.0.12      # name=address, or a name that resolves

[hosts.gpu-1]                                  # inventories/oci.toml
address = "10.0.0.11"
model = "llama-3.1-8b-awq"                     # any key of operations/plan/settings.py
"""

import os
from pathlib import Path

from operations.plan.inventory import checked_hosts, hosts_from_text, hosts_from_toml, refusing, settings_of

_here = Path(__file__).resolve().parent
_variable = os.environ.get("OCI_HOSTS")

with refusing():
    if _variable is not None:
        hosts = checked_hosts(hosts_from_text(_variable), "OCI_HOSTS")
    else:
        hosts = checked_hosts(hosts_from_toml(_here / "oci.toml"), "inventories/oci.toml")
    settings_of(hosts, "oci", _here / "group_data")
