from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from operations.intake import oci_session
from tests.oci.service import REGION, TENANCY, USER, Tenancy, key_named, pem, serving

FINGERPRINT = ":".join(["ab"] * 16)
KEY = key_named("operator")


@dataclass
class Controller:
    """The operator's side: a configuration file with its key, below a directory of the test's own."""

    home: Path
    url: str
    tenancy: Tenancy

    @property
    def config(self) -> Path:
        return self.home / "config"

    @property
    def key(self) -> Path:
        return self.home / "key.pem"

    def write(self, **changed: str | None) -> None:
        """The profile DEFAULT, with these keys set or left out."""
        keys: dict[str, str | None] = {
            "tenancy": TENANCY,
            "user": USER,
            "fingerprint": FINGERPRINT,
            "key_file": str(self.key),
            "region": REGION,
            **changed,
        }
        lines = [f"{key}={value}" for key, value in keys.items() if value is not None]
        self.config.write_text("\n".join(["[DEFAULT]", *lines, ""]), encoding="utf-8")

    def sign_in(self) -> Path:
        """A profile as `oci session authenticate` writes it; returns the token's file."""
        token = self.home / "token"
        token.write_text(self.tenancy.token(KEY.public_key()), encoding="utf-8")
        self.write(user=None, security_token_file=str(token))
        return token


@pytest.fixture
def tenancy() -> Tenancy:
    found = Tenancy()
    found.api_keys[f"{TENANCY}/{USER}/{FINGERPRINT}"] = KEY.public_key()
    return found


@pytest.fixture
def controller(tenancy: Tenancy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    """A running service, and a configuration that can sign to it; no wait between attempts."""
    monkeypatch.setattr(oci_session, "FIRST_WAIT_S", 0.001)
    for name in ("OCI_CONFIG_FILE", "OCI_REGION", "OCI_METADATA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with serving(tenancy) as url:
        made = Controller(tmp_path, url, tenancy)
        made.key.write_bytes(pem(KEY))
        made.key.chmod(0o600)
        made.write()
        yield made
