# Waits until units are active, and says which one is not: UNITS, one per line, and SECONDS_AT_MOST.
# The units of other services, which docker's restart has restarted with it; a unit is active when its models answer.

deadline=$(($(date +%s) + SECONDS_AT_MOST))
for unit in $UNITS; do
    until state=$(systemctl show --property=ActiveState --value "$unit.service") && [ "$state" = active ]; do
        if [ "$state" = failed ] || [ "$(date +%s)" -ge "$deadline" ]; then
            echo "found $unit.service $state, expected it active as before; see: journalctl --unit $unit"
            exit 1
        fi
        sleep 1
    done
done
