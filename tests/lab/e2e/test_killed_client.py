"""kill -9 of the operator's client during long work: the work continues, and the next run waits for it."""

from __future__ import annotations

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost

# Slow enough that the next client still finds the download running
SLOW_WEIGHTS = {"path_regex": r"model\.safetensors$", "bytes_per_second": 40_000_000}


@pytest.mark.requirement("R24")
def test_work_survives_three_killed_clients_and_is_not_repeated(converged: OneHost) -> None:
    tag = converged.current()["image"]["tag"]
    keys = {kind: converged.artifact(kind) for kind in ("weights", "checkpoint", "engine")}
    units = {kind: f"tritonhost-{kind}-{key}.service" for kind, key in keys.items()}
    units["image"] = f"tritonhost-image-{tag.rpartition(':')[2]}.service"
    directories = " ".join(f"{DATA_ROOT}/{kind.rstrip('s')}s/{key}" for kind, key in keys.items())
    # without its record: otherwise an image that is still used elsewhere on the host would only get its tag again
    record = f"{DATA_ROOT}/images/{tag.rpartition(':')[2]}"
    converged.root(
        f"systemctl stop triton; rm -rf {directories} {record}; docker image rm --force {tag}; "
        "docker builder prune --all --force"
    )
    since = converged.now()
    converged.faults(SLOW_WEIGHTS)
    try:
        said = [converged.deploy_until_killed(units[kind]) for kind in ("image", "weights", "engine")]
        done = converged.deploy()
    finally:
        converged.faults()
    assert done.code == 0, done.output
    attached = f"weights {keys['weights']}: already running on the host, re-attached to it"
    assert attached in said[2], "the client after the one killed during the download"
    assert {kind: converged.starts(unit, since) for kind, unit in units.items()} == dict.fromkeys(units, 1)
    assert converged.litter() == []
    converged.verified("test_artifacts or test_service")
