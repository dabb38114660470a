# Puts the guard's rules in place and loads them. Input: FILE, UNIT; standard input: the rules.
# The unit is reloaded and never restarted: the server requires it. nft replaces the table at once, or leaves it as it is.

umask 077
fresh=${FILE%/*}/.${FILE##*/}.new
cat >"$fresh" || exit 1
said=$(nft --check --file "$fresh" 2>&1) || {
    rm -f "$fresh"
    said=$(printf '%s\n' "$said" | head -n 1)
    echo "guard: $FILE: found $said, expected rules that nft accepts; update nftables, or correct allowed_sources and" \
        "egress, and run again; what was loaded was left as it is" >&2
    exit 1
}
mv -T "$fresh" "$FILE" || exit 1
systemctl enable --quiet "$UNIT" || exit 1
if systemctl is-active --quiet "$UNIT"; then
    systemctl reload "$UNIT"
else
    systemctl reset-failed "$UNIT" 2>/dev/null
    systemctl start "$UNIT"
fi
