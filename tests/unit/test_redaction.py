"""What is taken out of a text before somebody else reads it, and what stays."""

from __future__ import annotations

import pytest

from operations.plan.audit.redaction import REMOVED, redacted

KEY = "0123456789abcdef" * 4
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{KEY}\n{KEY}\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token hf_AbCdEf0123456789AbCd here", "hf_AbCdEf0123456789AbCd"),
        ("nvapi-abc_DEF-0123456789", "nvapi-abc_DEF-0123456789"),
        (PEM, KEY),
        (PEM[:-20], KEY),  # the end of a journal that was cut
        ("proxy=http://ann:s3cr3t@proxy.example:3128", "s3cr3t"),
        ('{"http-proxy": "http://ann:s3cr3t@proxy.example"}', "s3cr3t"),
        ("Authorization: Bearer abcdefgh12345", "abcdefgh12345"),
        ("x-api-key: k-1234567890", "k-1234567890"),
        ("curl said: bearer abcdefgh12345", "abcdefgh12345"),
        (f"--http-restricted-api=trace,logging:tritonhost-key={KEY}", KEY),
        ("DB_PASSWORD=hunter2hunter2", "hunter2hunter2"),
        ('"clientSecret": "abcd1234"', "abcd1234"),
        ("aws_access_key: AKIA1234567890", "AKIA1234567890"),
        ("HF_TOKEN='abcd1234abcd'", "abcd1234abcd"),
    ],
)
def test_secrets_are_taken_out_and_counted(text: str, secret: str) -> None:
    clean, count = redacted(text)
    assert secret not in clean and REMOVED in clean
    assert count >= 1
    # again: nothing more
    assert redacted(clean)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 8, tokenizer_dir=/weights",
        f"sha256:{KEY}",
        "image nvcr.io/nvidia/tritonserver@sha256:0123",
        "git@github.com:triton-inference-server/server.git",
        "hf_quant_config.json and hf_model_path stay",
        "key: value",
        "keys are new at each start",
        "https://huggingface.co/openai-community/gpt2-medium",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert redacted(text) == (text, 0)


def test_known_secrets_are_taken_out_as_they_are() -> None:
    text, count = redacted(
        "a plain-word-1 and plain-word-12, abc", ["plain-word-1", "plain-word-12", "abc", ""]
    )
    assert text == f"a {REMOVED} and {REMOVED}, abc"
    assert count == 2


def test_large_texts_are_quick() -> None:
    text = "password " * 5_000 + "a" * 20_000 + "-----BEGIN " * 1_000
    assert redacted(text)[1] == 0
