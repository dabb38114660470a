# Starts the unit that hands this host's artifacts to others, unless it runs with the same certificate, and opens firewalld for one of them.
#
# Input: UNIT, DATA_ROOT, ADDRESS (by which it is reached), PORT, IDLE (seconds after which it ends by itself), KINDS (words), RECEIVER (an address),
# OPEN (seconds for which firewalld admits it), CERTIFICATE (the SHA-256 of its certificate); on standard input a base64 tar archive with share.py,
# certificate.pem, key.pem and token, which are on tmpfs and are removed when the unit ends.

umask 077
directory=/run/$UNIT
refuse() {
    echo "$1" >&2
    exit 1
}
numbers() { getent ahostsv4 "$1" | awk '{ print $1; exit }'; }
receiver=$(numbers "$RECEIVER")
[ -n "$receiver" ] || refuse "found no IPv4 address of $RECEIVER, expected one; see share.address"
own=$(numbers "$ADDRESS")
interface=$(ip -oneline -4 address show | awk -v a="$own" '{ split($4, found, "/") } found[1] == a { print $2; exit }')
# behind a translation of addresses the host itself does not have the one by which it is reached
[ -n "$interface" ] && [ "$interface" != lo ] || own=0.0.0.0
if systemctl is-active --quiet firewalld.service; then
    # of the running firewall alone, which takes it back by itself
    zone=$(firewall-cmd --get-zone-of-interface="$interface" 2>/dev/null) || zone=$(firewall-cmd --get-default-zone)
    rule="rule family=ipv4 source address=$receiver port port=$PORT protocol=tcp accept"
    firewall-cmd --quiet --zone="$zone" --query-rich-rule="$rule" 2>/dev/null ||
        firewall-cmd --quiet --zone="$zone" --timeout="$OPEN" --add-rich-rule="$rule" ||
        refuse "found that firewalld does not admit $receiver to port $PORT, expected it to"
fi
if systemctl is-active --quiet "$UNIT.service"; then
    if [ "$(sha256sum <"$directory/certificate.pem" | cut -c -64)" = "$CERTIFICATE" ]; then
        touch "$directory/token"
        cat >/dev/null
        exit 0
    fi
    [ ! -e "$directory/busy" ] || refuse "found that the host gives to another run, expected it to be free"
fi
systemctl stop "$UNIT.service" 2>/dev/null
systemctl reset-failed "$UNIT.service" 2>/dev/null
rm -rf "$directory"
trap 'rm -rf "$directory"' EXIT
trap 'exit 143' HUP INT TERM
mkdir -p "$directory" && base64 -d | tar -xzf - -C "$directory" || exit 1
python=/usr/libexec/platform-python
[ -x "$python" ] || python=$(command -v python3) || {
    echo "found no Python, expected $python" >&2
    exit 1
}
# shellcheck disable=SC2086 # words
systemd-run --quiet --unit="$UNIT" --property=ExecStopPost="/bin/rm -rf $directory" --property=Nice=10 \
    "$python" "$directory/share.py" "$DATA_ROOT" "$own" "$PORT" "$IDLE" $KINDS || exit 1
trap - EXIT # the unit owns it now
listening=$(printf ':%04X' "$PORT")
waited=0
until awk '$4 == "0A" { print $2 }' /proc/net/tcp | grep -q "$listening\$"; do
    systemctl is-active --quiet "$UNIT.service" && [ "$waited" -lt 100 ] || {
        echo "found port $PORT closed, expected $UNIT.service to listen: $(journalctl --quiet --no-pager --output=cat --lines=1 --unit="$UNIT")" >&2
        exit 1
    }
    sleep 0.1
    waited=$((waited + 1))
done
