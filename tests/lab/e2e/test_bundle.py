"""A site without internet access: a bare host that reaches only the bundle's server is deployed from the bundle.

The same lock on two clean hosts, one with and one without internet access, results in the same artifacts, file by file.

It has its own lab (LAB_BUNDLE_NET, default 10.98.1): the host of the other tests is no longer bare and would have to
fetch nothing.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, DEPLOY, INVENTORY, OneHost, settings_of_lab
from tests.lab.settings import REPOSITORY, network_of

PORT = 8080
BUNDLE = (sys.executable, "-m", "operations.bundle")
# the host still reaches SSH and the bundle's server, but not the mirror, which is its internet
CUT_OFF = (
    "iptables -I OUTPUT -p tcp -d {gateway} -m multiport --dports 8000,8001,5000 -j REJECT; iptables -I OUTPUT -p udp -j REJECT; "
    "! curl --silent --max-time 3 http://{gateway}:8000/"
)
QUESTION = {"text_input": "What is machine learning?", "max_tokens": 4, "bad_words": "", "stop_words": ""}


@pytest.fixture(scope="module")
def bundled() -> Iterator[OneHost]:
    """A lab of one bare host."""
    ours = OneHost(settings_of_lab(network_of("LAB_BUNDLE_NET")))
    ours.lab("down")
    ours.lab("up", "1")
    yield ours
    ours.lab("down")


@contextmanager
def served(site: OneHost, bundle: Path) -> Iterator[Path]:
    """Run `operations.bundle serve` on the lab's gateway; yields its log."""
    log = bundle.with_suffix(".log")
    address = f"{site.settings.gateway}:{PORT}"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*BUNDLE, "serve", str(bundle), "--listen", address], stdout=output, stderr=output, cwd=REPOSITORY
        )
    try:
        deadline = time.monotonic() + 30
        while (
            f"http://{address}" not in log.read_text()
            and server.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        assert f"http://{address}" in log.read_text()
        yield log
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0, log.read_text()


@pytest.mark.requirement("R54")
def test_bare_host_without_a_network_serves_from_a_bundle(bundled: OneHost) -> None:
    online = made_of(bundled, bundled.deploy)
    bill = bundled.run(*DEPLOY[:-1], "operations.release.bill_of_materials")
    assert bill.code == 0, bill.output
    purls = [
        c.get("purl", "")
        for c in json.loads((REPOSITORY / "build" / "sbom-h1.json").read_text())["components"]
    ]
    for wanted in (
        "pkg:rpm/oraclelinux/docker-ce@",
        "pkg:oci/tritonserver@",
        "pkg:huggingface/",
        "pkg:github/",
    ):
        assert [purl for purl in purls if purl.startswith(wanted)], wanted

    with tempfile.TemporaryDirectory(prefix="tritonhost-bundle-") as folder:
        bundle = Path(folder) / "bundle"
        make = (
            *(*BUNDLE, "make", INVENTORY, "--output", str(bundle)),
            *("--url", f"http://{bundled.settings.gateway}:{PORT}"),
            *("--system-repository", f"baseos={bundled.settings.mirror}/dnf/ol{bundled.settings.os_major}/"),
        )
        for _ in range(2):  # the second one finds everything there
            done = bundled.run(*make)
            assert done.code == 0, done.output
        bundled.lab("down")
        bundled.lab("up", "1")
        bundled.root(CUT_OFF.format(gateway=bundled.settings.gateway))
        alone = bundled.deploy()
        assert alone.code != 0, "without the bundle, nothing is reached"
        # the host can fetch from no other place: it does not reach the mirror's addresses
        data = ("--group-data", str(bundle / "group_data"))
        with served(bundled, bundle) as log:
            offline = made_of(bundled, lambda: bundled.deploy(*data))
            again = bundled.deploy(*data)
            assert again.code == 0, again.output
            assert "converged: serves since" in again.output
            verified = bundled.run(
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(
                    "tests/verify/test_host.py",
                    "tests/verify/test_provenance.py",
                    "--inventory",
                    INVENTORY,
                    *data,
                ),
            )
            assert verified.code == 0, verified.output
            assert "git-upload-pack" in log.read_text()
        # now without the bundle, too: it continues to serve
        with bundled.http() as endpoint:
            request = urllib.request.Request(
                f"{endpoint}/v2/models/ensemble/generate", data=json.dumps(QUESTION).encode()
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.load(answer)["text_output"]

    # the id of a built image depends on the build's time; its key pins its inputs
    for provenance in (online, offline):
        for image in provenance["images"].values():
            assert image.pop("id")
    assert offline == online
    assert {"weights", "checkpoint", "engine"} <= offline["artifacts"].keys()
    assert offline["source"]["submodules"]


def made_of(site: OneHost, deploy: Any) -> dict[str, Any]:
    """Deploy. Returns provenance.json of the running release."""
    done = deploy()
    assert done.code == 0, done.output
    found: dict[str, Any] = json.loads(site.root(f"cat {DATA_ROOT}/current/provenance.json"))
    return found


def test_a_damaged_bundle_is_not_served(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "file").write_text("as it was")
    (bundle / "SHA256SUMS").write_text(f"{'0' * 64}  file\n")
    done = subprocess.run(
        [*BUNDLE, "serve", str(bundle), "--listen", f"127.0.0.1:{PORT}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "found file is damaged, expected what SHA256SUMS lists" in done.stderr
