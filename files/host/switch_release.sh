# Points `current` to a release, and `previous` to the one before it; input: DATA_ROOT, RELEASE (an id).
# Only a proven release (judge.sh) becomes `previous`: a rollback must lead to one that has served.
# Renames only: `ln -sfn` removes the old link before it makes the new one on some versions.

set -eu
cd "$DATA_ROOT"
[ -e "releases/$RELEASE/manifest.json" ] || {
    echo "release $RELEASE: no manifest in $DATA_ROOT/releases/$RELEASE, expected a complete release" >&2
    exit 65
}
was=$(readlink current || :)
# a directory instead of the link: rename(2) does not replace it
if [ -d current ] && [ ! -L current ]; then mv -T current "releases/.current.$$.partial"; fi
point() {
    ln -s "$2" ".$1.new.$$"
    mv -T ".$1.new.$$" "$1"
}
rm -f .current.new.* .previous.new.*
proven() { case $(cat "verdicts/${1#releases/}" 2>/dev/null) in proven*) ;; *) return 1 ;; esac; }
if [ -n "$was" ] && [ "$was" != "releases/$RELEASE" ] && [ -e "$was/manifest.json" ] && proven "$was"; then
    point previous "$was"
fi
point current "releases/$RELEASE"
# back from a failed release: the running release is then not its own previous one
if [ "$(readlink previous || :)" = "releases/$RELEASE" ]; then rm -f previous; fi
sync -f .
