# Writes and seals a release: the checkout's models, and over them the files of standard input (a base64 tar archive).
#
# Input, as shell variables: FINAL, PARTIAL, HEAD, TEMPLATES (the checkout's directory of models; empty if the models
# come on standard input), SOURCE (the checkout), MODELS (one per line); the functions of seal.sh.

set -eu
umask 022
trap 'status=$?; [ "$status" = 0 ] || full_disks "$(dirname "$FINAL")" >&2; exit "$status"' EXIT
CHECKSUMS=1
rm -rf "$PARTIAL"
mkdir -p "$PARTIAL/model_repository"
# A checkout or an image may contain links to a directory of the host, which would be copied, or written to below.
if [ -n "$TEMPLATES" ] && [ -n "${SOURCE:-}" ]; then
    place=$(readlink -f "$TEMPLATES") || place=
    case $place/ in
        "$(readlink -f "$SOURCE")"/?*) ;;
        *)
            echo "model repository: found $TEMPLATES at ${place:-no place}, expected it inside $SOURCE; see image" >&2
            exit 65
            ;;
    esac
fi
for model in $MODELS; do
    [ -z "$TEMPLATES" ] || cp -R "$TEMPLATES/$model" "$PARTIAL/model_repository/$model"
done
plain
for model in $MODELS; do
    # Triton rejects a model without a version directory, and git does not keep an empty one.
    mkdir -p "$PARTIAL/model_repository/$model/1"
done
base64 -d | tar -xzf - --no-same-owner -C "$PARTIAL"
# the serve script checks the files against it at each start; the manifest has the same hashes as JSON
(cd "$PARTIAL" && find . ! -type d ! -path ./SHA256SUMS -exec sha256sum {} + >SHA256SUMS)
# read-only from here on, except for root, which seals it and later removes it
find "$PARTIAL" -type f -exec chmod 0444 {} +
find "$PARTIAL" -mindepth 1 -type d -exec chmod 0555 {} +
seal
