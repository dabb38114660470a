# Long work on a host. It runs in a transient systemd unit, so that it outlives the operator's connection.
#
# Input, as shell variables set before this text:
#   FINAL      the artifact's directory; empty if the result is not a directory (an image)
#   PARTIAL    the directory in which it is made; renamed to FINAL when it is complete
#   RESUMABLE  1: continue with what an interrupted run left in PARTIAL; 0: remove it
#   CHECKSUMS  1: the manifest lists size, time and SHA-256 of every file; 0: no files (a source tree)
#   HEAD       the manifest's beginning: {"kind": …, "key": …, "inputs": {…}, without its closing brace
#   NAMES      files that must exist when it is made, separated by spaces
#   CONTAINER  the name of the work's container, which is removed before and after
# and the function `make_it`, which does the work and leaves its files in $PARTIAL, and the functions of seal.sh.

set -eu
WORKER=60600 # the containers' user (commands.WORKER)
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

# A container may use the host's free memory except a twentieth: it must not cause the end of the server beside it.
docker() {
    if [ "$1" = run ]; then
        shift
        free=$(awk '$1 == "MemAvailable:" { printf "%dk", $2 * 0.95 }' /proc/meminfo)
        set -- run --memory "$free" --memory-swap "$free" "$@"
    fi
    command docker "$@"
}

docker rm --force "$CONTAINER" >/dev/null 2>&1 || : # left over after a power loss

if [ -z "$FINAL" ]; then
    make_it
    say "done"
    exit 0
fi

mkdir -p "$(dirname "$FINAL")"
if [ "$RESUMABLE" = 1 ]; then
    # A complete but damaged artifact is continued too: only its bad files are downloaded again.
    if [ -h "$FINAL" ]; then rm -f "$FINAL"; fi
    if [ -d "$FINAL" ] && [ ! -d "$PARTIAL" ]; then mv -T "$FINAL" "$PARTIAL"; fi
    purge
else
    rm -rf "$PARTIAL"
fi
mkdir -p "$PARTIAL"
# The container's user may write in it, but not change its owner. No other user may enter: users of the host must not run or
# read what a container makes before it is checked.
if [ "$(id -u)" = 0 ]; then
    chown -hR "0:$WORKER" "$PARTIAL"
fi
chmod 770 "$PARTIAL"
make_it
# a build of several ranks can end with 0 although one of its processes was killed
for name in ${NAMES:-}; do
    [ -s "$PARTIAL/$name" ] || {
        say "$PARTIAL: found no $name, expected it beside $(ls "$PARTIAL" | head -n 3 | paste -s -d ' '); see the lines above"
        exit 65
    }
done

say "checking and sealing $FINAL"
docker rm --force "$CONTAINER" >/dev/null 2>&1 || : # none of its processes writes any more
seal
say "done: $FINAL"
