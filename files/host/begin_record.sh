# Notes, before the first change of a host, what was there: a teardown puts that back, and removes nothing else.
#
# Input: DIRECTORY (the record), and one per line: PLACES (service, tab, data root), OURS (files that only a
# deploy writes), OVERWRITTEN (files of which a copy is kept), THERE (paths of which is noted whether they exist), GROUP, EARLY (not empty: a
# full disk is no fault).

umask 022
set -e
# the root file system may be full, and about to grow
if [ -n "$EARLY" ] && ! { mkdir -p "$DIRECTORY" && head -c 65536 /dev/zero >"$DIRECTORY/.room"; } 2>/dev/null; then
    rm -rf "$DIRECTORY/.room"
    echo "tritonhost: no room for the host's record: it is begun when the root file system has grown"
    exit 0
fi
mkdir -p "$DIRECTORY"
rm -f "$DIRECTORY/.room"
if [ ! -e "$DIRECTORY/began" ]; then
    began=bare
    IFS='
'
    for path in $OURS; do [ ! -e "$path" ] || began=used; done
    rm -rf "$DIRECTORY/files"
    for path in $OVERWRITTEN; do
        [ "$began" = bare ] && [ -f "$path" ] || continue
        mkdir -p "$DIRECTORY/files${path%/*}"
        cp -p "$path" "$DIRECTORY/files$path"
    done
    for path in $THERE; do [ ! -e "$path" ] || printf '%s\n' "$path"; done >"$DIRECTORY/there"
    # what is in a data root of a bare host is somebody else's
    if [ "$began" = bare ]; then
        printf '%s\n' "$PLACES" | cut -s -f 2 | sort -u | while read -r root; do
            find "$root" -mindepth 1 -maxdepth 1 2>/dev/null || :
        done >>"$DIRECTORY/there"
    fi
    if getent group "$GROUP" >/dev/null 2>&1; then printf 'group:%s\n' "$GROUP" >>"$DIRECTORY/there"; fi
    unset IFS
    # last: without it, all of this is done again
    printf '%s\n' "$began" >"$DIRECTORY/.began.new"
    sync -f "$DIRECTORY/.began.new" 2>/dev/null || :
    mv -T "$DIRECTORY/.began.new" "$DIRECTORY/began"
fi
{ cat "$DIRECTORY/places" 2>/dev/null || :; printf '%s\n' "$PLACES"; } | LC_ALL=C sort -u >"$DIRECTORY/.places.new"
mv -T "$DIRECTORY/.places.new" "$DIRECTORY/places"
