# Removes artifacts and images that no kept release needs, and nothing that is not this tool's.
#
# Input, as shell variables set before this text: DATA_ROOT, DIRECTORIES (below it) and IMAGES (tags of ours), one per line;
# MOUNTS (the kernel's list of mounts, for tests). Everything is checked before anything is removed: rm descends into mounts
# below a directory, and docker removes every reference that it is given.

set -u
IFS='
'
set -f

# work in progress may need artifacts that no release names yet
[ -z "$(systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*')" ] || exit 0

for directory in $DIRECTORIES; do
    case $directory in
        /* | *..* | '') ;;
        ?*/?*)
            # octal codes stand for characters that would separate the fields
            mounted=$(PLACE=$DATA_ROOT/$directory awk '
                { at = $5; while (match(at, /\\[0-7][0-7][0-7]/)) at = substr(at, 1, RSTART - 1) "?" substr(at, RSTART + 4) }
                at == ENVIRON["PLACE"] || index(at, ENVIRON["PLACE"] "/") == 1 { print at; exit }
            ' "${MOUNTS:-/proc/self/mountinfo}") || exit 1
            [ -z "$mounted" ] || {
                echo "tritonhost: found $mounted mounted below $DATA_ROOT/$directory, which no kept release needs;" \
                    "expected no mount there, because its content would be removed with it; umount it, then run again;" \
                    "nothing was removed" >&2
                exit 1
            }
            continue
            ;;
    esac
    echo "tritonhost: found $directory, expected a directory and a key below $DATA_ROOT; nothing was removed" >&2
    exit 1
done
for directory in $DIRECTORIES; do
    rm -rf --one-file-system -- "${DATA_ROOT:?}/$directory" || exit 1
done
for tag in $IMAGES; do
    # an image that a container still uses stays: docker would remove its tag if it has another reference
    used=$(docker ps --all --quiet --filter "ancestor=$tag") || continue
    [ -z "$used" ] || continue
    # The reference by which it was pulled is removed too, or its layers would never be freed; but not if the image has another
    # tag, which is not ours.
    tags=$(docker image inspect --format '{{join .RepoTags "\n"}}' "$tag" 2>/dev/null) || continue
    pulled=
    [ "$tags" != "$tag" ] || pulled=$(docker image inspect --format '{{join .RepoDigests "\n"}}' "$tag" 2>/dev/null)
    docker rmi --no-prune "$tag" $pulled >/dev/null 2>&1 || :
done
