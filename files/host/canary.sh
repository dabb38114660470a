# Gives one host of a load balancer a share of all requests, or (SHARE=0) its part as every other. Input: SOCKET, MAP (haproxy's name of the list
# that says so), HOST, SHARE (ten-thousandths), RECORD. Prints the time from which requests are counted.

umask 077
python=/usr/libexec/platform-python
[ -x "$python" ] || python=$(command -v python3) || {
    echo "canary: found no Python, expected $python" >&2
    exit 1
}
tell() {
    answer=$("$python" -c '
import socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.settimeout(10)
asked.connect(sys.argv[1])
asked.sendall(sys.argv[2].encode() + b"\n")
print(b"".join(iter(lambda: asked.recv(65536), b"")).decode().strip())
' "$SOCKET" "$1" 2>&1) || answer=${answer##*
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
if [ "$SHARE" = 0 ]; then rm -f "$RECORD"; else printf '%s %s\n' "$HOST" "$SHARE" >"$RECORD"; fi
echo "since: $(date +%s)"
