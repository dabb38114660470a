"""The hub's token: exactly one source, OCI's vault among them, and never in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations.intake import secrets
from operations.intake.secrets import SecretMissing, hub_token
from tests.oci.conftest import Controller
from tests.oci.service import COMPARTMENT, Fault, Tenancy

TOKEN = "hf_CANARYcanary0123456789"
OCID = "ocid1.vaultsecret.oc1.iad.amaaaatoken"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in secrets.SOURCES:
        monkeypatch.delenv(name, raising=False)


def complaint() -> str:
    with pytest.raises(SecretMissing) as caught:
        hub_token()
    text = str(caught.value)
    assert "\n" not in text
    assert "CANARY" not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


@pytest.fixture
def vault(controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch) -> Tenancy:
    """A secret that the inventory's own authentication reads."""
    inventory = controller.home / "oci.toml"
    inventory.write_text(
        f"[oci]\ncompartments = ['{COMPARTMENT}']\nconfig_file = '{controller.config}'\n"
        f"endpoint = '{controller.url}'\ntimeout_s = 1\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(secrets, "INVENTORY", inventory)
    monkeypatch.setenv("HF_TOKEN_SECRET_OCID", OCID)
    tenancy.secrets[OCID] = f"{TOKEN}\n".encode()
    return tenancy


# --- exactly one source


def test_missing_token_error_names_all_sources() -> None:
    text = complaint()
    assert all(name in text for name in secrets.SOURCES)
    assert "export HF_TOKEN" in text


@pytest.mark.parametrize("other", ["HF_TOKEN_PATH", "HF_TOKEN_SECRET_OCID"])
def test_two_sources_are_refused(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv(other, TOKEN)
    assert complaint().startswith(f"HF_TOKEN and {other}: all set, expected one")


def test_empty_variable_is_not_a_token_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert hub_token() == TOKEN


# --- the token itself: tests/unit/test_secrets.py has what may be wrong with it


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "HF_TOKEN_PATH: No such file or directory"),
        (b"", "HF_TOKEN_PATH: found nothing"),
        (b"hf_CANARY" * 1000, "HF_TOKEN_PATH: found more than 4096 bytes"),
        (b"hf_CANARY\xff", "HF_TOKEN_PATH: found no text in UTF-8"),
    ],
)
def test_a_file_without_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert complaint().startswith(expected)


# --- OCI's vault


def test_the_vault_s_secret_is_the_token(vault: Tenancy, capfd: pytest.CaptureFixture[str]) -> None:
    assert hub_token() == TOKEN
    assert vault.refused == []
    assert vault.requests == [f"GET /20190301/secretbundles/{OCID}"]
    assert "CANARY" not in "".join(capfd.readouterr())


def test_a_profile_that_logs_requests_does_not_log_the_token(
    vault: Tenancy,
    controller: Controller,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    controller.write(log_requests="true")
    with caplog.at_level("DEBUG"):
        assert hub_token() == TOKEN
    shown = "".join(capfd.readouterr()) + caplog.text
    assert "CANARY" not in shown
    assert "Signature" not in shown
    assert TOKEN.encode().hex() not in shown


def test_text_that_is_not_an_ocid_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN_SECRET_OCID", TOKEN)
    assert "found another text (not shown), expected ocid1.vaultsecret." in complaint()


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (None, "HTTP 404 NotAuthorizedOrNotFound"),
        (b"", "HF_TOKEN_SECRET_OCID: found nothing"),
        (b"\r\n", "HF_TOKEN_SECRET_OCID: found nothing"),
        (b"hf_CANARY\xff\xfe", f"found no text in secret {OCID} (not shown)"),
        (b'{"token": "hf_CANARYcanary0123456789"}', "found characters no token has (not shown)"),
    ],
)
def test_vault_secret_without_a_token_is_refused(vault: Tenancy, secret: bytes | None, expected: str) -> None:
    del vault.secrets[OCID]
    if secret is not None:
        vault.secrets[OCID] = secret
    assert expected in complaint()


def test_unreadable_secret_error_names_the_policy(vault: Tenancy) -> None:
    vault.secrets.clear()
    assert "Allow group GROUP to read secret-bundles in compartment COMPARTMENT" in complaint()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("/20190301", 401, "NotAuthenticated"), "HTTP 401 NotAuthenticated"),
        (Fault("/20190301", 500, "InternalServerError"), "gave up after 2 attempts"),
        (Fault("/20190301", seconds=1.5), "no answer in time"),
        (Fault("/20190301", 200, body=b'{"secretBundleContent": null}'), "without content"),
        (Fault("/20190301", 200, body=b"hf_CANARY"), "without content"),
    ],
    ids=["401", "500", "hangs", "empty", "no JSON"],
)
@pytest.mark.slow
def test_a_vault_that_fails_is_one_line(
    vault: Tenancy, monkeypatch: pytest.MonkeyPatch, fault: Fault, expected: str
) -> None:
    monkeypatch.setattr("operations.intake.oci_session.ATTEMPTS", 2)
    vault.faults.append(fault)
    assert expected in complaint()


def test_secret_is_read_in_its_own_region(controller: Controller, vault: Tenancy) -> None:
    """`{region}` of the endpoint shows which region is asked; the profile's is another."""
    controller.write(region="eu-frankfurt-1")
    text = (controller.home / "oci.toml").read_text(encoding="utf-8")
    text = text.replace(controller.url, "https://{service}.{region}.oci.invalid")
    (controller.home / "oci.toml").write_text(text, encoding="utf-8")
    assert "https://{service}.{region}.oci.invalid" in (said := complaint())
    assert "in us-ashburn-1: found a name that does not resolve" in said


def test_without_an_oci_table_the_profile_is_used(
    vault: Tenancy, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "INVENTORY", controller.home / "absent.toml")
    monkeypatch.setenv("OCI_CONFIG_FILE", str(controller.home / "nowhere"))
    assert "~/.oci/config config_file: found no file" in complaint()
