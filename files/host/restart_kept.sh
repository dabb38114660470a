# Restarts a unit with its new files: UNIT, KEPT. If it does not start with them, the files that keep.sh saved are restored,
# and it starts with those.

# The program's own message: the first line that looks like a reason, otherwise its last line; systemd only knows that it ended.
reason() {
    journalctl --sync >/dev/null 2>&1 || :
    said=$(journalctl --quiet --no-pager --output=cat --since="@$began" --unit="$UNIT" _TRANSPORT=stdout 2>/dev/null |
        grep -v '^tritonhost: ')
    { printf '%s\n' "$said" | grep -m 1 -i -E 'emerg|error|fatal|fail|cannot|no such' || printf '%s\n' "$said" | tail -n 1; } |
        sed 's#//[^/@ ]*@#//#g' | tr -d '[:cntrl:]' | cut -c 1-300
}
began=$(date +%s)
systemctl reset-failed "$UNIT" 2>/dev/null
if failed=$(systemctl restart "$UNIT" 2>&1); then
    rm -f "$KEPT"
    exit 0
fi
why=$(reason)
why=${why:-$(printf '%s\n' "$failed" | head -n 1)}
if [ -s "$KEPT" ] && tar -C / -xpf "$KEPT"; then
    rm -f "$KEPT"
    systemctl daemon-reload
    systemctl reset-failed "$UNIT" 2>/dev/null
    if systemctl restart "$UNIT" 2>/dev/null; then
        then="what it ran with before is back, and it runs with it"
    else
        then="what it ran with before is back, and it does not start with that either"
    fi
else
    then="nothing was kept of what it ran with before"
fi
echo "$UNIT: did not start with its new files: $why; $then; see journalctl --unit $UNIT" >&2
exit 1
