# Points `current` to a release, and `previous` to the one before it; input: DATA_ROOT, STATE_ROOT (the directory of the links,
# which is the data root or two levels below it), RELEASE (an id).
# Only a proven release (judge.sh) becomes `previous`: a rollback must lead to one that has served.
# Renames only: `ln -sfn` removes the old link before it makes the new one on some versions.

set -eu
mkdir -p "$STATE_ROOT"
cd "$STATE_ROOT"
# the way to the data root, as the links have it
up=
[ "$STATE_ROOT" = "$DATA_ROOT" ] || up=../../
[ -e "${up}releases/$RELEASE/manifest.json" ] || {
    echo "release $RELEASE: no manifest in $DATA_ROOT/releases/$RELEASE, expected a complete release" >&2
    exit 65
}
was=$(readlink current || :)
# a directory instead of the link: rename(2) does not replace it
if [ -d current ] && [ ! -L current ]; then mv -T current "${up}releases/.current.$$.partial"; fi
point() {
    ln -s "$2" ".$1.new.$$"
    mv -T ".$1.new.$$" "$1"
}
rm -f .current.new.* .previous.new.*
proven() { case $(cat "${up}verdicts/${1##*/}" 2>/dev/null) in proven*) ;; *) return 1 ;; esac; }
if [ -n "$was" ] && [ "$was" != "${up}releases/$RELEASE" ] && [ -e "$was/manifest.json" ] && proven "$was"; then
    point previous "$was"
fi
point current "${up}releases/$RELEASE"
# back from a failed release: the running release is then not its own previous one
if [ "$(readlink previous || :)" = "${up}releases/$RELEASE" ]; then rm -f previous; fi
sync -f .
