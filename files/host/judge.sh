# Records a release's verdict: DATA_ROOT, STATE_ROOT (the directory of the links), RELEASE (an id), VERDICT (proven, failed or
# withdrawn), REASON (one line).
# A proven release is not recorded as failed: a later failure is the host's. The operator may withdraw it.

set -eu
mkdir -p "$DATA_ROOT/verdicts"
cd "$DATA_ROOT/verdicts"
case "$VERDICT $(cat "$RELEASE" 2>/dev/null)" in "failed proven"*) exit 0 ;; esac
printf '%s %s %s\n' "$VERDICT" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$REASON" >".$RELEASE.new"
mv -T ".$RELEASE.new" "$RELEASE"
sync -f .
# a failed swap must not put it back
if [ "$VERDICT" = withdrawn ] && [ "$(basename "$(readlink "$STATE_ROOT/previous" || :)")" = "$RELEASE" ]; then
    rm -f "$STATE_ROOT/previous"
fi
