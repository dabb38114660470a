"""The gateway's image, library/nginx: Debian's real nginx on the lab's own small userland."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.lab.rpm import debs

from .base_image import base_layers, key, record, recorded
from .layers import Layer, write_layer

REPOSITORY = "library/nginx"
# Debian 12's, with Debian's own security fixes
TAG = "1.22.1"
SETTINGS: dict[str, Any] = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"NGINX_VERSION={TAG}"],
    "Entrypoint": ["/docker-entrypoint.sh"],
    "Cmd": ["nginx", "-g", "daemon off;"],
    "ExposedPorts": {"80/tcp": {}},
    "StopSignal": "SIGQUIT",
    "Labels": {"tritonhost.stand-in": f"Debian's nginx {TAG} on a small userland, not the real image"},
}


def layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland that all images share, and nginx."""
    userland = base_layers(cache)[0]
    folder = cache / "images" / f"nginx-{key(Path(__file__).read_text(), userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
            debian = debs.unpacked(cache, Path(scratch), ("nginx", "nginx-common"))
            root = Path(scratch, "root")
            (root / "usr/sbin").mkdir(parents=True)
            shutil.copy(debian / "usr/sbin/nginx", root / "usr/sbin/nginx")
            shutil.copytree(debian / "etc/nginx", root / "etc/nginx", symlinks=True)
            own = [write_layer(folder / "nginx.tar.gz", tree=root)]
        record(folder, own)
    return [userland, *own]
