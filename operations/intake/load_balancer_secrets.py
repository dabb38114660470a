"""What a load balancer needs out of files of the controller: what clients are shown, and whom it trusts."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from operations.intake.gateway_secrets import check_mode, read
from operations.plan.balancing.load_balancer import Secrets
from operations.plan.errors import PlanError
from operations.plan.exposure import certificates
from operations.plan.inventory.load_balancer_settings import FILES, KEY, LoadBalancer


def load(settings: LoadBalancer, host: str) -> Secrets:
    """
    The files' texts, read and checked; once in a run, so that all of it is about the same files.

    + host: its name, for the error

    Raises PlanError, never with a secret's text, for files that are not there, that others may read, or that hold something else.
    """
    try:
        return _loaded(*(getattr(settings, name) for name in FILES))
    except PlanError as error:
        raise error.placed(host=host) from None


@cache
def _loaded(certificate: str, private_key: str, gateway_ca: str) -> Secrets:
    where = {
        "certificate": f"{KEY}.certificate: {certificate}",
        "private_key": f"{KEY}.private_key: {private_key}",
    }
    own, its_key = read(certificate, where["certificate"]), read(private_key, where["private_key"])
    check_mode(private_key, where["private_key"])
    tls, first, _, warnings = certificates.tls(own, its_key, where, datetime.now(UTC), "the load balancer")
    root = certificates.roots(
        read(gateway_ca, f"{KEY}.gateway_ca: {gateway_ca}"), f"{KEY}.gateway_ca: {gateway_ca}"
    )
    return Secrets(tls, first, root, warnings)
