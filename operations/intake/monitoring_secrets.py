"""What a monitoring server needs out of files of the controller: a password, keys, and who is told of an alert."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from operations.intake.gateway_secrets import check_mode, read
from operations.plan.errors import PlanError
from operations.plan.exposure import certificates
from operations.plan.inventory.monitoring_server_settings import KEY, SECRET_FILES, MonitoringServer
from operations.plan.monitoring.server import Secrets

SHORTEST_PASSWORD = 12


def load(settings: MonitoringServer, host: str) -> Secrets:
    """
    The files' texts, read and checked; once in a run, so that all of it is about the same files.

    + host: its name, for the error

    Raises PlanError, never with a secret's text, for files that are not there, that others may read, or that hold something else.
    """
    try:
        return _loaded(**{name: getattr(settings, name) for name in SECRET_FILES})
    except PlanError as error:
        raise error.placed(host=host) from None


@cache
def _loaded(
    admin_password: str,
    certificate: str | None,
    private_key: str | None,
    receivers: str | None,
    gateway_key: str | None,
    gateway_ca: str | None,
) -> Secrets:
    password = _secret(admin_password, "admin_password").strip()
    if len(password) < SHORTEST_PASSWORD or len(password.split()) != 1:
        raise PlanError(
            f"{KEY}.admin_password: {admin_password}",
            "something else (not shown)",
            f"one line with a password of at least {SHORTEST_PASSWORD} characters, without spaces",
        )
    tls, warnings = ("", ""), tuple[str, ...]()
    if certificate and private_key:
        where = {
            "certificate": f"{KEY}.certificate: {certificate}",
            "private_key": f"{KEY}.private_key: {private_key}",
        }
        own, its_key = read(certificate, where["certificate"]), read(private_key, where["private_key"])
        check_mode(private_key, where["private_key"])
        # one that has ended, or that is not of this key, is refused
        *_, warnings = certificates.tls(own, its_key, where, datetime.now(UTC), "Grafana")
        tls = own.decode(), its_key.decode()
    key = _secret(gateway_key, "gateway_key").strip() if gateway_key else ""
    if gateway_key and (not key or len(key.split()) != 1):
        raise PlanError(
            f"{KEY}.gateway_key: {gateway_key}",
            "something else (not shown)",
            "one line with a key alone, without the name of who has it",
        )
    return Secrets(
        password,
        *tls,
        receivers=_secret(receivers, "receivers") if receivers else "",
        gateway_key=key,
        gateway_ca=_text(gateway_ca, "gateway_ca") if gateway_ca else "",
        warnings=warnings,
    )


def _secret(path: str, name: str) -> str:
    text = _text(path, name)
    check_mode(path, f"{KEY}.{name}: {path}")
    return text


def _text(path: str, name: str) -> str:
    where = f"{KEY}.{name}: {path}"
    try:
        return read(path, where).decode("utf-8")
    except UnicodeDecodeError:
        raise PlanError(where, "no text in UTF-8", "a text") from None
