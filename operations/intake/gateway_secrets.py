"""The gateway's certificate, private key and API keys, out of files of the controller."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from operations.plan.errors import PlanError
from operations.plan.exposure import gateway
from operations.plan.exposure.gateway import Secrets
from operations.plan.inventory.gateway_settings import GatewaySettings
from operations.plan.paths import PROJECT


@cache
def load(settings: GatewaySettings, host: str) -> Secrets:
    """
    What the gateway of a host needs, read and checked; once in a run, so that all of it is about the same files.

    + host: its name, for the error

    Raises PlanError, never with a secret's text, for files that are not there, that others may read, or that hold
    something else.
    """
    try:
        return _loaded(settings)
    except PlanError as error:
        raise error.placed(host=host) from None


def _loaded(settings: GatewaySettings) -> Secrets:
    where = {
        name: f"gateway.{name}: {getattr(settings, name)}"
        for name in ("certificate", "private_key", "api_keys")
    }
    content = {name: read(getattr(settings, name), said) for name, said in where.items()}
    for name in ("private_key", "api_keys"):
        check_mode(getattr(settings, name), where[name])
    try:
        keys = content["api_keys"].decode("utf-8")
    except UnicodeDecodeError:
        raise PlanError(where["api_keys"], "no text in UTF-8", "a name and a key on each line") from None
    # here, because it loads a library that other runs need not wait for
    from operations.plan.exposure import certificates

    tls, certificate, ends, warnings = certificates.tls(
        content["certificate"], content["private_key"], where, datetime.now(UTC), "the gateway"
    )
    named, limits = gateway.api_keys(keys, where["api_keys"])
    return Secrets(tls, named, certificate, ends, limits, warnings)


def _path(path: str) -> Path:
    """A path of the inventory: relative to the project, as the inventory's other files are."""
    return PROJECT / Path(path).expanduser()


def read(path: str, where: str) -> bytes:
    """A file of the machine that deploys. `where`: what is said of it. Raises PlanError."""
    try:
        # not a FIFO or a device, which might never end
        if not _path(path).is_file():
            found = "no such file" if not _path(path).exists() else "something else"
            raise PlanError(where, found, "a file of this machine")
        with _path(path).open("rb") as file:
            content = file.read(gateway.LARGEST_FILE + 1)
    except OSError as error:
        raise PlanError(where, error.strerror, "a file that can be read") from None
    if len(content) > gateway.LARGEST_FILE:
        raise PlanError(where, f"more than {gateway.LARGEST_FILE} bytes", "a smaller file")
    return content


def check_mode(path: str, where: str) -> None:
    """As ssh has it of private keys."""
    mode = _path(path).stat().st_mode & 0o777
    if mode & 0o077:
        then = f"chmod 600 {path}"
        raise PlanError(where, f"mode {mode:04o}", "a file that only you can read, mode 0600", then)
