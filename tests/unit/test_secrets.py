"""The Hugging Face token: where it comes from, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations.intake.secrets import SecretMissing, hub_token

TOKEN = "hf_CANARY0123456789"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.delenv("HF_TOKEN_SECRET_OCID", raising=False)


def test_the_same_token_from_the_environment_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    for text in (TOKEN, f"{TOKEN}\n"):
        path.write_text(text, encoding="utf-8")
        assert hub_token() == TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_TOKEN_PATH")
    assert hub_token() == TOKEN


VARIANTS = {
    "": "found nothing",
    " \n": "found nothing",
    f"{TOKEN}\r\n": "found a Windows line end",
    f'"{TOKEN}"': "found quotation marks around it",
    f"'{TOKEN}'\n": "found quotation marks around it",
    f"\ufeff{TOKEN}": "found a byte order mark",
    f"{TOKEN}\n{TOKEN}": "found several tokens",
    f" {TOKEN}": "found spaces or empty lines around it",
    f"{TOKEN}\n\n": "found spaces or empty lines around it",
    f"HF_TOKEN={TOKEN}": "found characters no token has",
    f"{TOKEN} x": "found characters no token has",
    "hf_é0123456": "found characters no token has",
}


@pytest.mark.parametrize(("text", "expected"), VARIANTS.items())
@pytest.mark.parametrize("source", ["HF_TOKEN", "HF_TOKEN_PATH"])
def test_invalid_tokens_are_distinguished_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, text: str, expected: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(text.encode())
    monkeypatch.setenv(source, text if source == "HF_TOKEN" else str(path))
    with pytest.raises(SecretMissing) as caught:
        hub_token()
    assert str(caught.value).startswith(f"{source}: {expected}")
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_token_is_named_by_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SecretMissing, match="HF_TOKEN: not set"):
        hub_token()
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(SecretMissing, match="HF_TOKEN_PATH: No such file or directory"):
        hub_token()
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(SecretMissing, match="HF_TOKEN_PATH: Is a directory"):
        hub_token()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "binary"))
    with pytest.raises(SecretMissing, match="HF_TOKEN_PATH: found no text"):
        hub_token()
