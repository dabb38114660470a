# Remembers what became of a release: DATA_ROOT, RELEASE (an id), VERDICT (proven, failed or withdrawn), REASON (one line).
# A release that was proven once does not fail: what fails it later is its host. A person may withdraw it.

set -eu
mkdir -p "$DATA_ROOT/verdicts"
cd "$DATA_ROOT/verdicts"
case "$VERDICT $(cat "$RELEASE" 2>/dev/null)" in "failed proven"*) exit 0 ;; esac
printf '%s %s %s\n' "$VERDICT" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$REASON" >".$RELEASE.new"
mv -T ".$RELEASE.new" "$RELEASE"
sync -f .
# nothing goes back to it by itself
if [ "$VERDICT" = withdrawn ] && [ "$(readlink ../previous || :)" = "releases/$RELEASE" ]; then rm -f ../previous; fi
