# Holds the host's lock for as long as its operator gives signs of life on standard input, each of which it answers: the
# kernel frees it when this process ends, and this process ends with the operator's connection, or when nothing was heard
# for a while (a vanished machine's connection stays open for hours).
# Input: WHO (one line), DIRECTORY (on tmpfs), OWN (units whose work this run would take up), SILENCE (seconds).
# Prints `held`, or `refused` and who holds it: a run, or the work that a run has left on the host.

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
# the time since boot: a clock that is set does not end it
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
