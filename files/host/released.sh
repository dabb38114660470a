# Tells load balancers which proven release serves here, or (LEAVE=yes) that none does: they then send no new request. Input: LEAVE, FILE (what
# the gateway answers them with), STATE_ROOT (the directory of the links), DATA_ROOT, CANARY (what follows the release while a share of the requests
# decides about it), UNDECIDED (a file that names a release which is a canary or nothing), URL (200 if the server is ready; empty: it was asked).

if [ "$LEAVE" = yes ]; then
    if [ -e "$FILE" ]; then echo "left: yes"; fi
    rm -f "$FILE"
    exit
fi
refuse() {
    rm -f "$FILE"
    echo "found $1, expected a proven release that serves; load balancers send nothing to this host" >&2
    exit 1
}
current=$(readlink "$STATE_ROOT/current") || refuse "no release"
current=${current##*/}
case $(cat "$DATA_ROOT/verdicts/$current" 2>/dev/null) in proven*) ;; *) refuse "release $current not proven" ;; esac
[ -z "$URL" ] || [ "$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "$URL")" = 200 ] || refuse "release $current not ready"
[ -n "$CANARY" ] || [ "$current" != "$(cat "$UNDECIDED" 2>/dev/null)" ] || refuse "release $current undecided"
printf '%s%s\n' "$current" "$CANARY" >"$FILE.new" && chmod 444 "$FILE.new" && mv -T "$FILE.new" "$FILE" || exit 1
echo "released: $current"
