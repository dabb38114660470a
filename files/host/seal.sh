# Completes an artifact: manifest last, then one rename. Used by work.sh and lay_out_release.sh.
#
# Input, as shell variables: FINAL, PARTIAL, CHECKSUMS, HEAD, as work.sh explains them.

# After a failure: the file systems that are full, because "No space left on device" does not name them.
full_disks() {
    for place in "$1" /var/lib/docker /var/cache/dnf /run /tmp; do
        [ ! -e "$place" ] || df --block-size=1048576 --output=avail,target "$place" 2>/dev/null | tail -n 1
    done | sort -u | while read -r free mount; do
        [ "$free" -ge 64 ] || printf '%s\n' "disk: found $free MiB free on $mount, expected more; free some, and run again: what is complete is kept"
    done
}

# Refuses what root must not follow, read or replace: a container wrote here, as any user, and may have left links.
plain() {
    case $CHECKSUMS in
        1) odd=$(find "$PARTIAL" ! -type d ! \( -type f -links 1 \) -printf 'a %y in place of a file of its own: %P\n' -quit) ;;
        # a checkout has its own links, which are not followed
        *) odd=$(find "$PARTIAL" ! -type f ! -type d ! -type l -printf 'a %y: %P\n' -quit) ;;
    esac || exit 65
    for name in manifest.json .manifest.new; do
        if [ -e "$PARTIAL/$name" ] || [ -h "$PARTIAL/$name" ]; then odd="$name"; fi
    done
    [ ! -h "$PARTIAL" ] && [ -d "$PARTIAL" ] || odd="no directory"
    [ -z "$odd" ] || {
        odd=$(printf '%s' "$odd" | head -n 1 | tr -d '[:cntrl:]')
        echo "$PARTIAL: found $odd, expected files and directories alone, and no manifest yet;" \
            "see what made it (weights.repository, image), and run again" >&2
        exit 65
    }
}

# Removes what plain refuses, from what an interrupted run has left.
purge() {
    if [ -h "$PARTIAL" ]; then rm -f "$PARTIAL"; fi
    [ ! -d "$PARTIAL" ] || find "$PARTIAL" ! -type d ! \( -type f -links 1 \) -delete
    rm -rf "$PARTIAL/manifest.json" "$PARTIAL/.manifest.new"
}

seal() {
    plain
    if [ "$(id -u)" = 0 ]; then chown -hR 0:0 "$PARTIAL"; fi
    chmod -R u-s,g-s,o-t,a+rX,go-w "$PARTIAL"
    # beside it, not in it: only root could ever write there
    fresh=$PARTIAL.manifest
    rm -rf "$fresh"
    {
        printf '%s, "files": {' "$HEAD"
        if [ "$CHECKSUMS" = 1 ]; then
            separator=
            find "$PARTIAL" -type f -printf '%P\n' | LC_ALL=C sort | while IFS= read -r name; do
                case $name in *[\"\\[:cntrl:]]*) echo "file name with a quote or a control character: $name" >&2; exit 65 ;; esac
                sum=$(sha256sum <"$PARTIAL/$name")
                # in parts, because a file name could have a meaning in stat's format
                printf '%s"%s": ' "$separator" "$name"
                stat --printf '{"size": %s, "mtime": %Y, "sha256": "' "$PARTIAL/$name"
                printf '%s"}' "${sum%% *}"
                separator=', '
            done
        fi
        printf '}}\n'
    } >"$fresh"
    chmod 644 "$fresh"
    sync -f "$PARTIAL"
    mv -T "$fresh" "$PARTIAL/manifest.json"
    sync -f "$PARTIAL"
    rm -rf "$PARTIAL.replaced"
    # rename(2) does not replace a directory that is not empty
    if [ -e "$FINAL" ] || [ -h "$FINAL" ]; then mv -T "$FINAL" "$PARTIAL.replaced"; fi
    mv -T "$PARTIAL" "$FINAL"
    rm -rf "$PARTIAL.replaced"
}
