"""What an inventory says of a host that runs Prometheus, Alertmanager and Grafana for the others, and serves no model."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.inventory.field_types import AbsolutePath, FileName, Network, Url, whole
from operations.plan.inventory.monitoring_settings import host_address, not_everybody, unprivileged_port
from operations.plan.wording import Form, complaint

KEY = "monitoring_server"
GROUP = "monitoring"
# keys that name a file of the machine that deploys
SECRET_FILES = ("admin_password", "certificate", "private_key", "receivers", "gateway_key", "gateway_ca")
# 3.13 is kept up until July 2027: https://prometheus.io/docs/introduction/release-cycle/
PROMETHEUS_IMAGE = "prom/prometheus:v3.13.3"
ALERTMANAGER_IMAGE = "prom/alertmanager:v0.34.1"
GRAFANA_IMAGE = "grafana/grafana:13.2.3"


def _image(program: str, example: str) -> BeforeValidator:
    """name:version of a program's image. + program: the last part of the name; + example: for the error"""

    def known(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(
            rf"([a-z0-9._-]+/)*{program}:v?[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9._-]*", value
        ):
            raise ValueError(f"an image of {program} as name:version without registry, such as {example}")
        return value

    return BeforeValidator(known)


def _of_its_own(value: str) -> str:
    levels = [level for level in value.split("/") if level not in ("", ".")]
    if ".." in levels or len(levels) < 2 or levels[0] in ("boot", "dev", "etc", "proc", "run", "sys", "tmp"):
        raise ValueError(
            "an absolute directory of at least two levels on a disk that is kept, such as /var/lib/tritonhost-monitoring"
        )
    if not re.fullmatch(r"[A-Za-z0-9/._-]+", value):
        raise ValueError("a directory of letters, digits and /._- alone")
    return f"/{'/'.join(levels)}"


class MonitoringServer(BaseModel):
    """
    A host of the group `monitoring`.

    + data_root: what Prometheus, Alertmanager and Grafana keep
    + admin_password: file of the machine that deploys: the password of Grafana's user `admin`, on one line
    + bind, port: where Grafana listens. Prometheus and Alertmanager, which have no keys, are on the host's loopback
    + sources: the networks that may reach Grafana there
    + certificate, private_key: files of the machine that deploys, PEM: Grafana's own. Needed where it is not on the loopback
    + receivers: an alertmanager.yml, which says who is told of an alert; None: alerts are only shown
    + gateway_key, gateway_ca: a file with a key of the hosts' gateways, and one with the root certificate
    + remote_write: where Prometheus sends what it scrapes as well
    + runbooks: URL of the page with a heading for each alert
    + retention_days, retention_gib: how long Prometheus keeps what it has, and how much at most
    + prometheus_port, alertmanager_port: on the loopback
    + prometheus_image, alertmanager_image, grafana_image: name:version; their digests are in image_digests
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_root: Annotated[AbsolutePath, AfterValidator(_of_its_own)] = "/var/lib/tritonhost-monitoring"
    admin_password: FileName
    bind: Annotated[str, BeforeValidator(host_address)] = "127.0.0.1"
    port: Annotated[int, BeforeValidator(unprivileged_port)] = 3000
    sources: list[Network] = []
    certificate: FileName | None = None
    private_key: FileName | None = None
    receivers: FileName | None = None
    gateway_key: FileName | None = None
    gateway_ca: FileName | None = None
    remote_write: Url | None = None
    runbooks: (
        Annotated[
            str,
            Field(min_length=1, max_length=500, pattern=r"^[^\s\"#]+$"),
            Form('the URL of a page, without " and #'),
        ]
        | None
    ) = None
    retention_days: Annotated[int, whole(1, 3650, "days")] = 30
    retention_gib: Annotated[int, whole(1, 100000, "GiB")] = 20
    prometheus_port: Annotated[int, BeforeValidator(unprivileged_port)] = 9090
    alertmanager_port: Annotated[int, BeforeValidator(unprivileged_port)] = 9093
    prometheus_image: Annotated[str, _image("prometheus", PROMETHEUS_IMAGE)] = PROMETHEUS_IMAGE
    alertmanager_image: Annotated[str, _image("alertmanager", ALERTMANAGER_IMAGE)] = ALERTMANAGER_IMAGE
    grafana_image: Annotated[str, _image("grafana", GRAFANA_IMAGE)] = GRAFANA_IMAGE

    @property
    def published(self) -> bool:
        """Whether Grafana is reached over the network."""
        return not IPv4Address(self.bind).is_loopback

    def check(self, expose: bool) -> None:
        """Who reaches Grafana over the network does so by TLS, from a declared network. Raises a ValidationError."""
        ports = (self.port, self.prometheus_port, self.alertmanager_port)
        if len(set(ports)) != len(ports):
            raise complaint("port", self.port, "a port of its own for each of the three", within=(KEY,))
        if (self.certificate is None) != (self.private_key is None):
            raise complaint(
                "certificate" if self.certificate is None else "private_key",
                None,
                "both certificate and private_key, or neither",
                within=(KEY,),
            )
        if not self.published:
            return
        if self.certificate is None:
            raise complaint(
                "certificate",
                None,
                f"a certificate and its private_key, because Grafana is reached on {self.bind}",
                within=(KEY,),
                then='or bind = "127.0.0.1", and ssh -L 3000:127.0.0.1:3000 HOST',
            )
        if not self.sources:
            raise complaint(
                "sources",
                [],
                f'networks such as ["10.0.0.0/24"], who may reach Grafana on {self.bind}',
                within=(KEY,),
                reference="no-monitoring-sources",
            )
        not_everybody("sources", self.sources, expose, within=(KEY,))
