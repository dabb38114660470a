# Waits a while for a transient unit and prints what it wrote meanwhile.
#
# Input, as shell variables: UNIT, ENDED (the SubStates to stop at, spaces round each), WAIT (seconds at most),
# CURSOR (of the journal; empty: the last 20 lines).
# Output: journal lines, journalctl's line `-- cursor: …`, then `state:` and systemd's properties on one line.

waited=0
while [ "$waited" -lt "$WAIT" ]; do
    state=$(systemctl show --property=SubState --value "$UNIT.service")
    # between the stop and the start of a restart a unit is dead, for as long as what it waits for takes
    job=$(systemctl show --property=Job --value "$UNIT.service")
    [ "${job:-0}" = 0 ] && case $ENDED in *" $state "*) break ;; esac
    sleep 1
    waited=$((waited + 1))
done
# The state first: lines written after it was read are fetched next time, lines before it are in the journal now.
state=$(systemctl show --property=ActiveState,SubState,Result,ExecMainStatus,Job "$UNIT.service" | paste -s -d ' ')
if [ -n "$CURSOR" ]; then
    journalctl --quiet --no-pager --output=cat --show-cursor --unit="$UNIT.service" --after-cursor="$CURSOR"
else
    journalctl --quiet --no-pager --output=cat --show-cursor --unit="$UNIT.service" --lines=20
fi
printf 'state: %s\n' "$state"
