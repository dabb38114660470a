"""A gated model: without a token one clear line, with a token it serves and the token is stored nowhere."""

from __future__ import annotations

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, OneHost

TOKEN = "hf_lab_token_for_tests"
GATED = {"weights": {"repository": "tritonhost-lab/smollm2-135m-gated", "gated": True}}
# The token comes on standard input and is kept in a file on tmpfs during the search: in a command line it would be
# found in /proc and in sudo's log.
SEARCH = f"""
umask 077; pattern=/dev/shm/token-pattern; cat >$pattern
grep --recursive --files-with-matches --fixed-strings --file $pattern \
    /run /etc /root /home /tmp /var/tmp /var/log/messages /var/lib/docker/containers /var/lib/docker/image {DATA_ROOT} 2>/dev/null
grep --files-with-matches --fixed-strings --file $pattern /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
journalctl --no-pager | grep --quiet --fixed-strings --file $pattern && echo journal
docker container inspect $(docker container ls --all --quiet) | grep --quiet --fixed-strings --file $pattern && echo docker container inspect
docker image inspect $(docker image ls --quiet) | grep --quiet --fixed-strings --file $pattern && echo docker image inspect
rm $pattern"""


@pytest.mark.requirement("R53")
def test_gated_model_needs_a_token_and_serves_with_one(converged: OneHost) -> None:
    before = converged.running_release()
    # left by an earlier run of this test, if the lab was kept
    converged.root(
        f"grep -l smollm2-135m-gated {DATA_ROOT}/weights/*/manifest.json | xargs -r dirname | xargs -r rm -r"
    )
    refused = converged.deploy(overrides=GATED)
    assert refused.code != 0
    said = [line for line in refused.output.splitlines() if "HF_TOKEN" in line]
    assert len(said) == 1, refused.output
    assert "export HF_TOKEN" in said[0]
    assert "Traceback" not in refused.output
    assert converged.running_release() == before

    served = converged.deploy("-vvv", overrides=GATED, environment={"HF_TOKEN": TOKEN})
    assert served.code == 0, served.output
    assert (
        converged.current()["artifacts"]["weights"]["inputs"]["repository"] == GATED["weights"]["repository"]
    )
    assert TOKEN not in served.output
    assert "H4sI" not in served.output, "nor the archive that carries it, which anybody can unpack"
    converged.root("umask 077; cat >/run/planted", stdin=TOKEN)
    found = converged.root(f"{SEARCH}; rm /run/planted", stdin=f"{TOKEN}\n").splitlines()
    assert found == ["/run/planted"], "the planted one shows that the search finds, and there is no other"

    converged.converge()
    assert converged.running_release() == before
