# Gives one host of a load balancer a share of all requests, or (SHARE=0) its part as every other. Input: SOCKET, MAP (haproxy's name of the list
# that says so), HOST, SHARE (ten-thousandths). Prints the time from which requests are counted.

. ./haproxy.sh
tell() {
    answer=$(ask_haproxy "$1" 2>&1) || answer=${answer##*
}
    # silent where it does as it is told
    [ -z "$answer" ] || {
        echo "canary: found $answer of haproxy, expected it to take: $1" >&2
        exit 1
    }
}
weight=0
[ "$SHARE" != 0 ] || weight=100%
tell "set map $MAP $HOST $SHARE"
for backend in http grpc; do
    tell "set weight $backend/$HOST $weight"
done
echo "since: $(date +%s)"
