# Completes an artifact: manifest last, then one rename. Used by work.sh and lay_out_release.sh.
#
# Input, as shell variables: FINAL, PARTIAL, CHECKSUMS, HEAD, as work.sh explains them.

# After a failure: the file systems that are full, because programs say "No space left on device" and not where.
full_disks() {
    for place in "$1" /var/lib/docker /var/cache/dnf /run /tmp; do
        [ ! -e "$place" ] || df --block-size=1048576 --output=avail,target "$place" 2>/dev/null | tail -n 1
    done | sort -u | while read -r free mount; do
        [ "$free" -ge 64 ] || printf '%s\n' "disk: found $free MiB free on $mount, expected more; free some, and run again: what is complete is kept"
    done
}

seal() {
    {
        printf '%s, "files": {' "$HEAD"
        if [ "$CHECKSUMS" = 1 ]; then
            separator=
            find "$PARTIAL" -type f ! -name '.manifest.new' -printf '%P\n' | LC_ALL=C sort | while IFS= read -r name; do
                case $name in *[\"\\[:cntrl:]]*) echo "file name with a quote or a control character: $name" >&2; exit 65 ;; esac
                sum=$(sha256sum <"$PARTIAL/$name")
                # one line, without a trust in what a file name means to stat's format
                printf '%s"%s": ' "$separator" "$name"
                stat --printf '{"size": %s, "mtime": %Y, "sha256": "' "$PARTIAL/$name"
                printf '%s"}' "${sum%% *}"
                separator=', '
            done
        fi
        printf '}}\n'
    } >"$PARTIAL/.manifest.new"
    chmod -R a+rX,go-w "$PARTIAL"
    sync -f "$PARTIAL"
    mv -T "$PARTIAL/.manifest.new" "$PARTIAL/manifest.json"
    sync -f "$PARTIAL"
    rm -rf "$PARTIAL.replaced"
    # rename(2) does not replace a directory that holds something
    if [ -e "$FINAL" ]; then mv -T "$FINAL" "$PARTIAL.replaced"; fi
    mv -T "$PARTIAL" "$FINAL"
    rm -rf "$PARTIAL.replaced"
}
