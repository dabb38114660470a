"""The container registry of the mirror: Debian's docker-registry over the lab's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

PORT = 5000
_CONFIG = """\
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: {address}
"""


def command(cache: Path, bind: str) -> list[str]:
    """The command line of a foreground registry over `cache`/registry that allows deletes.

    :param bind: address, with a port if it is not 5000
    :raises RuntimeError: if the machine has no docker-registry
    """
    program = shutil.which("docker-registry")
    if program is None:
        raise RuntimeError(
            "found no docker-registry, expected Debian's; run: apt-get install docker-registry"
        )
    root = cache.resolve() / "registry"
    root.mkdir(parents=True, exist_ok=True)
    address = bind if ":" in bind else f"{bind}:{PORT}"
    config = cache.resolve() / f"registry-{address.replace(':', '-')}.yml"
    config.write_text(_CONFIG.format(root=root, address=address))
    return [program, "serve", str(config)]
