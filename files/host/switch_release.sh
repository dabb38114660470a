# Points `current` to a release and `previous` to the one before; input: DATA_ROOT, RELEASE (an id).
# Only a release that was proven (judge.sh) becomes the one before: a rollback must lead to one that served.
# Renames only: `ln -sfn` removes the old link before it makes the new one on some versions.

set -eu
cd "$DATA_ROOT"
[ -e "releases/$RELEASE/manifest.json" ] || {
    echo "release $RELEASE: no manifest in $DATA_ROOT/releases/$RELEASE, expected a complete release" >&2
    exit 65
}
was=$(readlink current || :)
# where somebody has put a directory in the place of the link: rename(2) does not replace it
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
# back from a release that failed: there is nothing before the one that serves again
if [ "$(readlink previous || :)" = "releases/$RELEASE" ]; then rm -f previous; fi
sync -f .
