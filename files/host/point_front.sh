# Takes people to the server that the front's new configuration names first: FRONT (unit), CONFIGURATION (its path), PORT
# (one it listens on), BASE64 (the new configuration). Ends when no process listens any more that knew the old one: what
# connects from then on reaches the new first server, and what was connected is served to its end.

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
    systemctl reset-failed "$FRONT.service" 2>/dev/null
    systemctl enable --quiet "$FRONT.service" && systemctl start "$FRONT.service"
    exit # it knows no other configuration
fi
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
    [ -n "$listening" ] && [ -z "$old" ] && exit 0
done
echo "front: process $old still listens on port $PORT 10 s after the reload of $FRONT.service; expected it to stop" >&2
exit 1
