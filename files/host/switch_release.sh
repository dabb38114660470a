# Points `current` to a release and `previous` to the one before; input: DATA_ROOT, RELEASE (an id).
# Renames only: `ln -sfn` removes the old link before it makes the new one on some versions.

set -eu
cd "$DATA_ROOT"
[ -e "releases/$RELEASE/manifest.json" ] || {
    echo "release $RELEASE: no manifest in $DATA_ROOT/releases/$RELEASE, expected a complete release" >&2
    exit 65
}
was=$(readlink current || :)
point() {
    ln -s "$2" ".$1.new.$$"
    mv -T ".$1.new.$$" "$1"
}
rm -f .current.new.* .previous.new.*
if [ -n "$was" ] && [ "$was" != "releases/$RELEASE" ] && [ -e "$was/manifest.json" ]; then point previous "$was"; fi
point current "releases/$RELEASE"
sync -f .
