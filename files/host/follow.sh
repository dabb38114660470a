# Waits for a transient unit for a while, and prints what it has written in that time.
#
# Input, as shell variables: UNIT, ENDED (the SubStates to stop at, with spaces around each), WAIT (seconds at most),
# CURSOR (of the journal; empty: the last 20 lines).
# Output: journal lines, journalctl's line `-- cursor: …`, then `state:` and systemd's properties on one line.

waited=0
while [ "$waited" -lt "$WAIT" ]; do
    state=$(systemctl show --property=SubState --value "$UNIT.service")
    # during a restart a unit is dead between its stop and its start, which may wait for other units
    job=$(systemctl show --property=Job --value "$UNIT.service")
    [ "${job:-0}" = 0 ] && case $ENDED in *" $state "*) break ;; esac
    sleep 1
    waited=$((waited + 1))
done
# The state first: lines written after this are read next time; lines written before are in the journal now.
state=$(systemctl show --property=ActiveState,SubState,Result,ExecMainStatus,Job "$UNIT.service" | paste -s -d ' ')
if [ -n "$CURSOR" ]; then
    journalctl --quiet --no-pager --output=cat --show-cursor --unit="$UNIT.service" --after-cursor="$CURSOR"
else
    journalctl --quiet --no-pager --output=cat --show-cursor --unit="$UNIT.service" --lines=20
fi
printf 'state: %s\n' "$state"
