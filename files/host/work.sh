# Long work on a host: runs inside a transient systemd unit, so that it outlives the operator's connection.
#
# Input, as shell variables set in front of this text:
#   FINAL      the artifact's directory; empty where the result is no directory (an image)
#   PARTIAL    where it is made; renamed to FINAL when it is complete
#   RESUMABLE  1: what an interrupted run left in PARTIAL is a beginning, not garbage
#   CHECKSUMS  1: the manifest holds the size, time and SHA-256 of every file; 0: of none (a source tree)
#   HEAD       the manifest's beginning: {"kind": …, "key": …, "inputs": {…}, without its closing brace
#   CONTAINER  the name of the container the work runs in, removed before and after
# and the functions `make_it`, which does the work itself and leaves its files in $PARTIAL, and `seal` (seal.sh).

set -eu
umask 022 # a hardened host's 0077 would make artifacts unreadable to the server's user

say() { printf '%s\n' "tritonhost: $*"; }

clean() {
    status=$?
    trap - EXIT
    docker rm --force "$CONTAINER" >/dev/null 2>&1 || :
    if [ "$status" != 0 ]; then
        say "failed with exit code $status"
        full_disks "$(dirname "$(dirname "${FINAL:-/var/lib/docker/x}")")"
    fi
    exit "$status"
}
trap clean EXIT
trap 'exit 143' TERM INT HUP

docker rm --force "$CONTAINER" >/dev/null 2>&1 || : # left over from a run that lost its power

if [ -z "$FINAL" ]; then
    make_it
    say "done"
    exit 0
fi

mkdir -p "$(dirname "$FINAL")"
if [ "$RESUMABLE" = 1 ]; then
    # A complete but damaged artifact is a beginning too: only its bad files are fetched again.
    if [ -d "$FINAL" ] && [ ! -d "$PARTIAL" ]; then mv -T "$FINAL" "$PARTIAL"; fi
    rm -f "$PARTIAL/manifest.json"
else
    rm -rf "$PARTIAL"
fi
mkdir -p "$PARTIAL"
make_it

say "checking and sealing $FINAL"
seal
say "done: $FINAL"
