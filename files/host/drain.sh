# Waits until a server that gets no new requests has no connections: PORTS (space separated), SECONDS_AT_MOST.
# Prints how many connections are left: those of clients that keep an idle connection.

PATH=$PATH:/usr/sbin:/sbin
filter=
for port in $PORTS; do filter="${filter:+$filter or }dport = :$port"; done
deadline=$(($(date +%s) + SECONDS_AT_MOST))
while :; do
    left=$(ss -Htn state established "( $filter )" | wc -l)
    [ "$left" -gt 0 ] && [ "$(date +%s)" -lt "$deadline" ] || break
    sleep 0.3
done
echo "left: $left"
