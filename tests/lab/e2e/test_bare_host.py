"""A bare host: `--dry` says what would change and writes nothing, one deploy makes it serve, and verification agrees."""

from __future__ import annotations

from tests.lab.e2e.one_host import INVENTORY, PYINFRA, OneHost, difference_rows

# The host's own doing, not the tool's: journal and login records, timers' stamps, the package database's lock files.
NOISE = (
    "/var/lib/systemd",
    "/var/lib/dbus",
    "/var/lib/private",
    "/var/lib/rpm",
    "/var/lib/dnf",
    "/usr/lib/sysimage/rpm",
)


def test_dry_run_of_a_bare_host_writes_nothing(bare: OneHost) -> None:
    before = _everything(bare)
    assert len(before) > 1000
    done = bare.run(*PYINFRA, INVENTORY, "deploy.py", "--dry")
    assert done.code == 0, done.output
    assert _everything(bare) == before
    stages = {row.split("  ")[0] for row in difference_rows(done.output)}
    assert stages >= {
        "packages",
        "container runtime",
        "serving image",
        "weights",
        "engine",
        "release",
        "service",
    }


def test_one_deploy_makes_it_serve_and_verification_agrees(bare: OneHost) -> None:
    bare.converge()
    bare.verified()
    assert bare.litter() == []


def _everything(site: OneHost) -> list[str]:
    pruned = " -o ".join(f"-path {path}" for path in NOISE)
    return site.root(
        f"find /etc /var/lib /usr /root /run/tritonhost /home \\( {pruned} \\) -prune -o "
        "-printf '%p %s %T@ %m %u\\n' 2>/dev/null | sort"
    ).splitlines()
