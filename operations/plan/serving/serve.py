"""The two scripts of a release: how it is served, and how its readiness is awaited.

They are in the release and not in the systemd unit, so that an upgrade changes a symbolic link and nothing that
systemd would have to reload: a daemon-reload can take the GPUs away from running containers
(https://github.com/NVIDIA/nvidia-container-toolkit/issues/48).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# Stands for the release's id in its own container arguments: the id is a hash over these files, so they name
# the release by what the directory is called.
ID = "$id"
# Stands for the id of the image that was made for the release: a tag can be pointed elsewhere.
IMAGE = "$image"

# The key of the closed APIs: a new one at each start, which is written to no file
NEW_KEY = "key=$(od -An -tx1 -N 32 /dev/urandom | tr -d ' \\n')"

_VARIABLE = re.compile(r"\$(?:release|id|image|key|fresh)(?![A-Za-z0-9_])")


def shell_word(word: str) -> str:
    """A word quoted for the shell, but for the variables that a script itself sets: $release, $id, $image, $key, $fresh."""
    found = _VARIABLE.search(word)
    if found is None:
        return shlex.quote(word)
    before, after = word[: found.start()], word[found.end() :]
    return f'{shlex.quote(before) if before else ""}"{found[0]}"{shlex.quote(after) if after else ""}'


# Prints the name of the first file that is not as it was when the directory was made; nothing where all are.
# A release's own files are small and compared by their content, also those that nobody put there: Triton loads each
# model that it finds. Weights and engines are compared by size and time, because reading them would take minutes.
_CHANGED = r"""
changed_in_release() {
    cd "$release" && {
        cat SHA256SUMS
        echo
        find . ! -type d ! -path ./manifest.json ! -path ./SHA256SUMS -exec sha256sum -- {} +
    } 2>&1 | awk '
        /^$/ { found = 1; next }
        !found { wanted[substr($0, 67)] = $1; next }
        wanted[substr($0, 67)] != $1 { bad = 1; print substr($0, 67); exit }
        { delete wanted[substr($0, 67)] }
        END {
            if (!found) print "SHA256SUMS"
            else if (!bad) for (name in wanted) { print name; exit }
        }'
}
changed_in() {
    [ -e "$1/manifest.json" ] || { echo manifest.json; return; }
    cd "$1" && {
        find . -type f -printf '%P\t%s\t%Ts\n'
        echo
        tr '}' '\n' <manifest.json |
            sed -n 's/^.*"\([^"]*\)": {"size": \([0-9]*\), "mtime": \([0-9]*\), "sha256": "[0-9a-f]*"$/\1\t\2\t\3/p'
    } | awk '
        /^$/ { wanted = 1; next }
        !wanted { found[$0]; next }
        { listed = 1 }
        !($0 in found) { sub(/\t.*/, ""); print; exit }
        END { if (!listed) print "manifest.json" }'
}
refuse() {
    echo "tritonhost: release $id: $1; run the deploy again, which repairs it" >&2
    exit 65
}
"""


def _own_network(network: str, bridge: str) -> str:
    """The lines that make the network where it is missing, and refuse one of another owner."""
    return f"""made=$(docker network inspect \\
    --format '{{{{index .Options "com.docker.network.bridge.name"}}}} {{{{index .Labels "tritonhost.network"}}}}' \\
    {network} 2>/dev/null || :)
if [ -z "$made" ]; then
    docker network create --driver bridge --opt com.docker.network.bridge.name={bridge} \\
        --label tritonhost.network={network} {network} >/dev/null
elif [ "$made" != "{bridge} {network}" ]; then
    echo "tritonhost: docker network {network}: found one that is not ours, expected ours or none; remove it, or" \\
        "change service_name" >&2
    exit 64
fi"""


def _written_by_its_user(kept: tuple[str, str] | None) -> str:
    """The lines that make a directory for the server's user; the one above is root's, so that no link can take its place."""
    if kept is None:
        return ""
    path, user = shlex.quote(kept[0]), kept[1].replace(":", " -g ")
    return f'install -d -m 755 "$(dirname {path})"\ninstall -d -m 700 -o {user} {path}\n'


def serve_script(
    service: str,
    container: Sequence[str],
    mounted: Sequence[str],
    image: tuple[str, str],
    network: str,
    bridge: str,
    kept: tuple[str, str] | None = None,
) -> str:
    """
    Run the release's server in the foreground, from the files and the image it was made with, or refuse.

    + service: the name of its container
    + container: the argument vector of `docker run`
    + mounted: the other directories it serves from; with their inode numbers in a label, a directory that was
      replaced under a running server shows
    + image: its tag, for the message, and the file that holds its id
    + network: its docker network, made where it is missing: docker forgets it when its own data is removed
    + bridge: the name of that network's interface, which the guard's rules know
    + kept: a directory that its user writes, made where it is missing, and that user as uid:gid
    """
    directories = " ".join(shlex.quote(path) for path in mounted)
    run, rest = list(container[:2]), list(container[2:])
    words = " \\\n    ".join(shell_word(word) for word in rest)
    tag, record = image
    return f"""#!/bin/sh
# Serves this release in the foreground. Part of the release, made by tritonhost: edit the inventory instead.
set -eu
release=$(cd "$(dirname "$0")" && pwd -P)
id=$(basename "$release")
{_CHANGED}
changed=$(changed_in_release)
[ -z "$changed" ] || refuse "found $release/${{changed#./}} changed, expected it as it was laid out"
for directory in {directories}; do
    changed=$(changed_in "$directory")
    [ -z "$changed" ] || refuse "found $directory/$changed changed or gone, expected it as it was made"
done
# by its id, and not by its tag, which may have been pointed elsewhere
image=$(cat {shlex.quote(record)}) || refuse "found no record of its image, expected the id of {tag} there"
docker image inspect "$image" >/dev/null 2>&1 || refuse "found no image $image, expected the one that was {tag}"
owner=$(docker inspect --format '{{{{index .Config.Labels "tritonhost.release"}}}}' {service} 2>/dev/null || :)
if docker inspect {service} >/dev/null 2>&1; then
    # After a crash of the docker client the old container may still be there; one that is not ours is not touched.
    if [ -z "$owner" ] || [ "$owner" = "<no value>" ]; then
        echo "tritonhost: container {service}: found one that is not ours, expected none of that name; remove or" \\
            "rename it, or change service_name" >&2
        exit 64
    fi
    docker rm --force {service} >/dev/null
fi
{_own_network(network, bridge)}
# docker would make a directory that is gone, and serve it empty: stat fails first.
mounts=$(stat -c %i "$release" {directories})
# The key of the closed APIs: a new one at each start, which is written to no file. A user who may list the host's
# processes can read it there.
{NEW_KEY}
{_written_by_its_user(kept)}echo "tritonhost: serving release $id from $release"
exec {shlex.join(run)} --label "tritonhost.mounts=$(echo $mounts)" \\
    {words}
"""


def wait_ready_script(service: str, urls: Sequence[str], timeout_s: int) -> str:
    """Return 0 once every model answers that it is ready; fail as soon as the container is gone, or in the end."""
    listed = " \\\n    ".join(shlex.quote(url) for url in urls)
    return f"""#!/bin/sh
# Waits until this release answers. Part of the release, made by tritonhost: edit the inventory instead.
set -u
deadline=$(($(date +%s) + {timeout_s}))
seen=0
while [ "$(date +%s)" -lt "$deadline" ]; do
    ready=1
    for url in \\
    {listed}; do
        code=$(curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' "$url")
        [ "$code" = 200 ] || ready=0
    done
    [ "$ready" = 1 ] && exit 0
    # asked first: a container of that name that is not ours may be running
    gone=0
    [ -z "${{MAINPID:-}}" ] || kill -0 "$MAINPID" 2>/dev/null || gone=1
    running=$(docker inspect --format '{{{{.State.Running}}}}' {service} 2>/dev/null)
    if [ "$gone" = 0 ] && [ "$running" = true ]; then
        seen=1
    elif [ "$gone" = 1 ] || [ "$seen" = 1 ]; then
        echo "tritonhost: the container ended before its models were ready" >&2
        exit 1
    fi
    sleep 0.5
done
echo "tritonhost: not ready after {timeout_s} s" >&2
exit 1
"""
