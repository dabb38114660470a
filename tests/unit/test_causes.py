"""What tools say when they fail, as public reports show it, and what is advised then."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from operations.plan.causes import CAUSES, MENDED, RETRY, advice, cause

DNF = """\
Errors during downloading metadata for repository 'ol8_baseos_latest':
  - Curl error (6): Couldn't resolve host name for https://yum$ociregion.$ocidomain/repo/OracleLinux/OL8/baseos/latest/x86_64/repodata/repomd.xml [Could not resolve host: yum$ociregion.$ocidomain]
Error: Failed to download metadata for repo 'ol8_baseos_latest': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried"""
MIRRORS = (
    "Error: Failed to download metadata for repo 'r': Cannot download repomd.xml: All mirrors were tried"
)
URL = "https://mirror.invalid/el9/repodata"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DNF, "unexpanded variable"),
        ("Error: Unable to find a match: docker-ce-3:99.0-1.el9", "no such package"),
        ("No match for argument: git-lfs\nError: Unable to find a match: git-lfs", "git-lfs"),
        (
            "All matches were filtered out by exclude filtering for argument: runc\nError: Unable to find a match: runc",
            "excludes",
        ),
        (
            "All matches were filtered out by modular filtering for argument: container-selinux\n"
            "Error: Unable to find a match: container-selinux",
            "modular filtering",
        ),
        (
            "Error: \n Problem: conflicting requests\n  - package container-selinux-2:2.229.0-2.module+el8 is filtered out "
            "by modular filtering\n  - nothing provides container-selinux >= 2:2.74 needed by containerd.io-1.7.27",
            "modular filtering",
        ),
        (
            "  - package a-1-1.x86_64 is filtered out by exclude filtering\n  - nothing provides a needed by b",
            "excludes",
        ),
        (
            "Error: \n Problem: problem with installed package podman-docker-4:5.2.2-1.el9.noarch\n"
            "  - package podman-docker-4:5.2.2-1.el9.noarch conflicts with docker provided by docker-ce-3:28.0.1-1.el9.x86_64",
            "conflict",
        ),
        ("Public key for docker-ce-28.0.1-1.el9.x86_64.rpm is not installed\nError: GPG check FAILED", "signature"),
        (
            'The GPG keys listed for the "Docker CE" repository are already installed but they are not correct for '
            "this package.\nCheck that the correct key URLs are configured for this repository.",
            "signature",
        ),
        (f"repomd.xml GPG signature verification error: Bad GPG signature\n{MIRRORS}", "signature"),
        ("Error Summary\nDisk Requirements:\n   At least 212MB more space needed on the / filesystem.", "no space"),
        ("[Errno 28] No space left on device: '/var/cache/dnf/x'", "no space"),
        ("RPM: error: can't create transaction lock on /var/lib/rpm/.rpm.lock", "locked"),
        (f"  - Status code: 404 for {URL}/0f3a-primary.xml.gz (IP: 192.0.2.1)\n{MIRRORS}", "stale metadata"),
        (f"  - Downloading successful, but checksum doesn't match. Calculated: 1 Expected: 2\n{MIRRORS}", "stale metadata"),
        (f"  - Status code: 404 for {URL}/repomd.xml (IP: 192.0.2.1)\n{MIRRORS}", "gone"),
        (f"  - Status code: 403 for {URL}/repomd.xml (IP: 192.0.2.1)\n{MIRRORS}", "refused"),
        (
            f"  - Curl error (60): SSL peer certificate or SSH remote key was not OK for {URL}/repomd.xml [SSL "
            f"certificate problem: self-signed certificate]\n{MIRRORS}",
            "certificate",
        ),
        ("fatal: https://git.invalid/x/info/refs not valid: is this a git repository?", "not a git repository"),
        ("fatal: repository 'https://git.invalid/x/' not found", "not a git repository"),
        ("fatal: '/srv/x' does not appear to be a git repository", "not a git repository"),
        ("fatal: could not read Username for 'https://git.invalid': terminal prompts disabled", "refused"),
        ("fatal: unable to access 'https://git.invalid/x/': The requested URL returned error: 403", "refused"),
        ("fatal: unable to access 'https://git.invalid/x/': The requested URL returned error: 410", "gone"),
        ("fatal: couldn't find remote ref refs/tags/v9.9.9", "no such revision"),
        ("[404] Object does not exist on the server: [404] Object does not exist", "no large file"),
        ("Error response from daemon: manifest for nvcr.io/nvidia/tritonserver@sha256:00 not found: manifest unknown", "no image"),
        ("Error response from daemon: Get \"https://r.invalid/v2/\": x509: certificate signed by unknown authority", "certificate"),
        ('Error response from daemon: Get "https://r.invalid/v2/": http: server gave HTTP response to HTTPS client', "not HTTPS"),
        ("Error response from daemon: pull access denied for x, repository does not exist or may require 'docker login'", "refused"),
        ("unauthorized: authentication required", "refused"),
        ("Error response from daemon: invalid character '<' looking for beginning of value", "not a registry"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "digest"),
    ],
)  # fmt: skip
def test_each_failure_kind_has_its_own_advice(text: str, name: str) -> None:
    lines = [
        "Last metadata expiration check: 0:00:01 ago.",
        *text.splitlines(),
        "tritonhost: failed with exit code 1",
    ]
    found = cause(lines)
    assert found is not None and found.name == name
    assert advice(lines, "1") == found.then
    assert "git-lfs is in" not in found.then or name == "git-lfs"


@pytest.mark.parametrize(
    "text",
    [
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        f"  - Curl error (28): Timeout was reached for {URL}/repomd.xml [Connection timed out]",
        f"  - Curl error (7): Couldn't connect to server for {URL}/repomd.xml",
        f"  - Status code: 503 for {URL}/repomd.xml (IP: 192.0.2.1)",
        "fatal: unable to access 'https://git.invalid/x/': The requested URL returned error: 502",
        "fatal: the remote end hung up unexpectedly",
        'Error response from daemon: Get "https://r.invalid/v2/": net/http: TLS handshake timeout',
        "weights: owner/name: https://hub.invalid: HTTP 503; expected the hub to answer; run again to resume",
    ],
)
def test_transient_failure_advises_a_retry(text: str) -> None:
    assert advice([text], "1") == RETRY
    found = cause([text])
    assert found is None or found.passes


def test_refusal_of_our_programs_advises_no_retry() -> None:
    assert advice(["weights: owner/name: the hub answers with commit None"], "65") == MENDED
    assert advice([], "66") == MENDED
    assert advice([], "137") == RETRY
    assert advice([]) == RETRY


def test_permanent_cause_says_what_to_change() -> None:
    assert all(each.then or each.passes for each in CAUSES)
    assert len({each.name for each in CAUSES}) == len(CAUSES)


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text("utf-8")
SECTION = PAGE.partition("\n## What dnf, git and a registry say")[2].partition("\n## ")[0]
ROWS = [line.split(" | ")[0] for line in SECTION.splitlines() if line.startswith("| `")]


def test_every_text_on_the_page_matches_a_known_cause() -> None:
    quoted = [span.replace("…", "a") for row in ROWS for span in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) >= len(ROWS) >= 15
    assert [span for span in quoted if cause([span]) is None] == []
