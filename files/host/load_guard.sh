# Installs the guard's rules and loads them. Input: FILE, UNIT, SHA256; standard input: all the rules.
# The unit is reloaded and never restarted, because the server requires it. nft replaces the table atomically or not at all.

umask 077
fresh=${FILE%/*}/.${FILE##*/}.new
# A lost connection also ends the text, and nft would accept an empty file, or only the first lines.
whole() {
    [ -z "${SHA256:-}" ] || [ "$(sha256sum <"$fresh" | cut -c -64)" = "$SHA256" ] || return 1
    grep -q '^[^#]' "$fresh" || return 1
    ! grep -q '^table' "$fresh" || [ "$(tail -n 1 "$fresh")" = "}" ]
}
cat >"$fresh" && whole || {
    rm -f "$fresh"
    echo "guard: $FILE: found another text than was sent, expected all of it; what was loaded was left as it is; run again" >&2
    exit 1
}
said=$(nft --check --file "$fresh" 2>&1) || {
    rm -f "$fresh"
    said=$(printf '%s\n' "$said" | head -n 1)
    echo "guard: $FILE: found $said, expected rules that nft accepts; update nftables, or correct allowed_sources and" \
        "egress, and run again; what was loaded was left as it is" >&2
    exit 1
}
# FILE must be one that could be loaded: it is loaded at the next boot, and the server does not start without it.
before=${FILE%/*}/.${FILE##*/}.before
rm -f "$before"
[ ! -e "$FILE" ] || cp -p -T "$FILE" "$before" || exit 1
mv -T "$fresh" "$FILE" || exit 1
systemctl enable --quiet "$UNIT" || exit 1
if systemctl is-active --quiet "$UNIT"; then
    said=$(systemctl reload "$UNIT" 2>&1)
else
    systemctl reset-failed "$UNIT" 2>/dev/null
    said=$(systemctl start "$UNIT" 2>&1)
fi && {
    rm -f "$before"
    exit 0
}
then="there was none before"
if [ -e "$before" ]; then mv -T "$before" "$FILE" && then="the file before it is back"; fi
echo "guard: $FILE: found $(printf '%s\n' "$said" | head -n 1), expected $UNIT to load it; $then; see journalctl --unit $UNIT" >&2
exit 1
