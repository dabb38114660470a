"""Where the code's own files are, and the operator's. In a checkout that is one directory."""

from __future__ import annotations

import os
from pathlib import Path

# templates/, files/ and what else is shipped
TREE = Path(__file__).resolve().parents[2]
# inventories/ with settings, hosts and models; relative paths of an inventory start here. An installed package sets the variable.
PROJECT = Path(os.environ.get("TRITONHOST_PROJECT") or TREE)
