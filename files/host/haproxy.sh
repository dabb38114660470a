# Functions for a load balancer's haproxy. Input: SOCKET.

# Sends one command and prints the answer.
ask_haproxy() {
    python=/usr/libexec/platform-python
    [ -x "$python" ] || python=$(command -v python3) || {
        echo "found no Python, expected /usr/libexec/platform-python" >&2
        return 1
    }
    "$python" -c '
import socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.settimeout(10)
asked.connect(sys.argv[1])
asked.sendall(sys.argv[2].encode() + b"\n")
print(b"".join(iter(lambda: asked.recv(65536), b"")).decode().strip())
' "$SOCKET" "$1"
}

# The hosts that it sends requests to, one a line: name, status, weight. None where it does not run yet.
members() {
    [ -S "$SOCKET" ] || return 0
    stat=$(ask_haproxy "show stat") || return 1
    # what these columns have is before every quoted one
    printf '%s\n' "$stat" | awk -F , '
        NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) column[$i] = i; next }
        $column["pxname"] == "http" && $column["svname"] != "BACKEND" {
            split($column["status"], status, " ")
            print $column["svname"], status[1], $column["weight"]
        }'
}
