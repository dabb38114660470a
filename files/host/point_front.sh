# Switches clients to the server that the proxy's new configuration names first: FRONT (unit), CONFIGURATION (its path), PORT
# (one that it listens on), BASE64 (the new configuration), LEADS and LED (a file that says to which server, for the door). Ends when no process with the old configuration listens any more:
# new connections then reach the new first server, and existing ones are served to their end.

set -u
PATH=$PATH:/usr/sbin:/sbin
umask 022
printf %s "$BASE64" | base64 -d >"$CONFIGURATION.new" || exit 1
haproxy -c -q -f "$CONFIGURATION.new" || {
    echo "front: haproxy refuses $CONFIGURATION.new, expected a configuration it can read" >&2
    exit 1
}
mv -T "$CONFIGURATION.new" "$CONFIGURATION"
if ! systemctl is-active --quiet "$FRONT.service"; then
    printf '%s\n' "$LED" >"$LEADS.new" && mv -T "$LEADS.new" "$LEADS" || exit 1
    systemctl reset-failed "$FRONT.service" 2>/dev/null
    systemctl enable --quiet "$FRONT.service" && systemctl start "$FRONT.service"
    exit # it has only ever read this configuration
fi
# a door reads it at each request: which release answers
leads() { printf '%s\n' "$LED" >"$LEADS.new" && mv -T "$LEADS.new" "$LEADS"; }
main=$(systemctl show --property=MainPID --value "$FRONT.service")
before=$(cat "/proc/$main/task/$main/children")
systemctl reload "$FRONT.service" || exit 1
attempt=0
while [ "$attempt" -lt 100 ]; do
    sleep 0.1
    attempt=$((attempt + 1))
    listening=$(ss -Hltnp "sport = :$PORT")
    old=
    for process in $before; do
        case $listening in *"pid=$process,"*) old=$process ;; esac
    done
    [ -n "$listening" ] && [ -z "$old" ] && leads && exit 0
done
echo "front: process $old still listens on port $PORT 10 s after the reload of $FRONT.service; expected it to stop" >&2
exit 1
