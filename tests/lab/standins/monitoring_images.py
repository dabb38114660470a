"""A site's monitoring: Debian's real Prometheus and Alertmanager, and a stand-in for Grafana, on the lab's userland."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.lab.rpm import debs

from .base_image import base_layers, key, record, recorded
from .layers import FileContent, Layer, write_layer

HERE = Path(__file__).resolve().parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = 65534

PROMETHEUS_REPOSITORY = "prom/prometheus"
# Debian 12's
PROMETHEUS_TAG = "v2.42.0"
PROMETHEUS_SETTINGS: dict[str, Any] = {
    "Env": [f"PATH={PATH}"],
    "User": "nobody",
    "Entrypoint": ["/bin/prometheus"],
    "Cmd": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
    "WorkingDir": "/prometheus",
    "ExposedPorts": {"9090/tcp": {}},
    "Volumes": {"/prometheus": {}},
    "Labels": {
        "tritonhost.stand-in": f"Debian's Prometheus {PROMETHEUS_TAG} on a small userland, not the real image"
    },
}
PROMETHEUS_FILE = b"""\
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["localhost:9090"]
"""

ALERTMANAGER_REPOSITORY = "prom/alertmanager"
# Debian 12's
ALERTMANAGER_TAG = "v0.25.0"
ALERTMANAGER_SETTINGS: dict[str, Any] = {
    "Env": [f"PATH={PATH}"],
    "User": "nobody",
    "Entrypoint": ["/bin/alertmanager"],
    "Cmd": ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"],
    "WorkingDir": "/alertmanager",
    "ExposedPorts": {"9093/tcp": {}},
    "Volumes": {"/alertmanager": {}},
    "Labels": {
        "tritonhost.stand-in": f"Debian's Alertmanager {ALERTMANAGER_TAG} on a small userland, not the real image"
    },
}
ALERTMANAGER_FILE = b"""\
route:
  receiver: web.hook
receivers:
  - name: web.hook
    webhook_configs:
      - url: http://127.0.0.1:5001/
"""

GRAFANA_REPOSITORY = "grafana/grafana"
GRAFANA_TAG = "12.4.11"
GRAFANA_HOME = "/usr/share/grafana"
GRAFANA_USER = 472
GRAFANA_SETTINGS: dict[str, Any] = {
    "Env": [
        f"PATH={GRAFANA_HOME}/bin:{PATH}",
        "GF_PATHS_CONFIG=/etc/grafana/grafana.ini",
        "GF_PATHS_DATA=/var/lib/grafana",
        f"GF_PATHS_HOME={GRAFANA_HOME}",
        "GF_PATHS_LOGS=/var/log/grafana",
        "GF_PATHS_PLUGINS=/var/lib/grafana/plugins",
        "GF_PATHS_PROVISIONING=/etc/grafana/provisioning",
    ],
    "User": str(GRAFANA_USER),
    "Entrypoint": ["/run.sh"],
    "WorkingDir": GRAFANA_HOME,
    "ExposedPorts": {"3000/tcp": {}},
    "Labels": {
        "tritonhost.stand-in": "a script with Grafana's settings, provisioning and a part of its API, not Grafana"
    },
}
GRAFANA_PROGRAM, GRAFANA_ENTRYPOINT = HERE / "image" / "grafana", HERE / "image" / "grafana-run.sh"
# directories that anybody may write in, as in the real image: it runs with any user
GRAFANA_OWN = (
    "var/lib/grafana",
    "var/lib/grafana/plugins",
    "var/log/grafana",
    "etc/grafana/provisioning",
    "etc/grafana/provisioning/dashboards",
    "etc/grafana/provisioning/datasources",
)


def _layers(
    cache: Path, name: str, inputs: object, make: Callable[[Path, Path], Mapping[str, FileContent]]
) -> list[Layer]:
    """
    The userland, and a layer of a tree and files.

    + inputs: what the layer is made from, beside this module
    + make: fills the tree, has a directory for what it needs meanwhile, and returns the files
    """
    userland = base_layers(cache)[0]
    folder = cache / "images" / f"{name}-{key(Path(__file__).read_text(), inputs, userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
            root, work = Path(scratch, "root"), Path(scratch, "work")
            root.mkdir()
            work.mkdir()
            own = [write_layer(folder / f"{name}.tar.gz", tree=root, files=make(root, work))]
        record(folder, own)
    return [userland, *own]


def _owned(path: Path, user: int, group: int, mode: int) -> None:
    """A directory of a user."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, group)
    path.chmod(mode)


def prometheus_layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland, and Prometheus and promtool where the real image has them."""

    def make(root: Path, work: Path) -> Mapping[str, FileContent]:
        debian = debs.unpacked(cache, work, ("prometheus",))
        # /bin is a link of the userland
        (root / "usr/bin").mkdir(parents=True)
        for program in ("prometheus", "promtool"):
            shutil.copy(debian / "usr/bin" / program, root / "usr/bin" / program)
        _owned(root / "prometheus", NOBODY, NOBODY, 0o755)
        return {"etc/prometheus/prometheus.yml": PROMETHEUS_FILE}

    return _layers(cache, "prometheus", None, make)


def alertmanager_layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland, and Alertmanager and amtool where the real image has them."""

    def make(root: Path, work: Path) -> Mapping[str, FileContent]:
        debian = debs.unpacked(cache, work, ("prometheus-alertmanager",))
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(debian / "usr/bin/prometheus-alertmanager", root / "usr/bin/alertmanager")
        shutil.copy(debian / "usr/bin/amtool", root / "usr/bin/amtool")
        # Debian's reads its templates there, where others carry them in the program
        templates = Path("usr/share/prometheus/alertmanager")
        shutil.copytree(debian / templates, root / templates, symlinks=True)
        _owned(root / "alertmanager", NOBODY, NOBODY, 0o755)
        return {"etc/alertmanager/alertmanager.yml": ALERTMANAGER_FILE}

    return _layers(cache, "alertmanager", None, make)


def grafana_layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland, and the stand-in where the real image has its program."""
    home = GRAFANA_HOME.removeprefix("/")
    files: dict[str, FileContent] = {
        "run.sh": (GRAFANA_ENTRYPOINT.read_bytes(), 0o755),
        f"{home}/bin/grafana": (GRAFANA_PROGRAM.read_bytes(), 0o755),
        f"{home}/conf/defaults.ini": b"# the defaults are in the stand-in\n",
        "etc/grafana/grafana.ini": b"# the stand-in reads its settings from the environment only\n",
    }

    def make(root: Path, _: Path) -> Mapping[str, FileContent]:
        for name in GRAFANA_OWN:
            _owned(root / name, GRAFANA_USER, 0, 0o777)
        return files

    return _layers(cache, "grafana", repr(files), make)


IMAGES: tuple[tuple[str, str, dict[str, Any], Callable[[Path], list[Layer]]], ...] = (
    (PROMETHEUS_REPOSITORY, PROMETHEUS_TAG, PROMETHEUS_SETTINGS, prometheus_layers),
    (ALERTMANAGER_REPOSITORY, ALERTMANAGER_TAG, ALERTMANAGER_SETTINGS, alertmanager_layers),
    (GRAFANA_REPOSITORY, GRAFANA_TAG, GRAFANA_SETTINGS, grafana_layers),
)
"""Repository, tag, settings and layers of each, as they are pushed."""
