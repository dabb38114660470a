# Lays out a release: the checkout's models, over them the files of standard input (a base64 tar archive), sealed.
#
# Input, as shell variables: FINAL, PARTIAL, HEAD, TEMPLATES (the checkout's directory of models; empty where the models
# come on standard input), MODELS (one a line).

set -eu
umask 022
trap 'status=$?; [ "$status" = 0 ] || full_disks "$(dirname "$FINAL")" >&2; exit "$status"' EXIT
CHECKSUMS=1
rm -rf "$PARTIAL"
mkdir -p "$PARTIAL/model_repository"
for model in $MODELS; do
    [ -z "$TEMPLATES" ] || cp -R "$TEMPLATES/$model" "$PARTIAL/model_repository/$model"
    # Triton takes a model without a version directory for broken; git does not keep an empty one.
    mkdir -p "$PARTIAL/model_repository/$model/1"
done
base64 -d | tar -xzf - --no-same-owner -C "$PARTIAL"
# what the serve script compares them with at each start; the manifest has the same, for those who read JSON
(cd "$PARTIAL" && find . ! -type d ! -path ./SHA256SUMS -exec sha256sum {} + >SHA256SUMS)
# read-only from here on; root, who seals and later removes it, is not held up by that
find "$PARTIAL" -type f -exec chmod 0444 {} +
find "$PARTIAL" -mindepth 1 -type d -exec chmod 0555 {} +
seal
