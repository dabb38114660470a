# Holds the host's lock as long as the run sends signs of life on standard input, and answers each of them. The kernel frees
# the lock when this process ends. The process ends with the run's connection, or after a time without a sign of life (the
# connection of a machine that vanished stays open for hours).
# Input: WHO (one line), DIRECTORY (on tmpfs), OWN (units whose work this run would adopt), SILENCE (seconds).
# Prints `held`, or `refused` and the holder: a run, or the work that a run has left on the host.

umask 077
mkdir -p "$DIRECTORY"
exec 9>>"$DIRECTORY/lock"
if ! flock --nonblock 9; then
    echo "refused $(cat "$DIRECTORY/lock.holder" 2>/dev/null)"
    exit 1
fi
for unit in $(systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*' | cut -d ' ' -f 1); do
    case " $OWN " in
        *" ${unit%.service} "*) ;;
        *)
            since=$(systemctl show --property=ActiveEnterTimestamp --value "$unit")
            echo "refused $unit, at work since $since, for another release; it was started by $(cat "$DIRECTORY/lock.holder" 2>/dev/null)"
            exit 1
            ;;
    esac
done
printf '%s; on this host: process %s\n' "$WHO" "$$" >"$DIRECTORY/lock.holder"
# the time since boot: setting the clock does not end it
alive() { read -r now rest </proc/uptime && printf '%s\n' "${now%.*}" >"$DIRECTORY/lock.alive"; }
alive
(
    exec 9>&- </dev/null >/dev/null 2>&1
    while sleep 5 && kill -0 "$$"; do
        read -r now rest </proc/uptime
        [ $((${now%.*} - $(cat "$DIRECTORY/lock.alive"))) -lt "$SILENCE" ] || kill "$$"
    done
) &
echo held
while read -r sign; do
    alive
    echo "$sign"
done
