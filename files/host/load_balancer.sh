# Installs what haproxy reads, once haproxy itself has checked it, and lets it read that. Input: DIRECTORY, FRESH (a name in it), CONFIGURATION (a
# name), UNIT, PORT (one that it listens on), RECORD, SOCKET; on standard input a base64 tar archive with all files, for root alone.
#
# A reload costs no connection. What was there before comes back if haproxy does not take the new files.

. ./haproxy.sh
set -u
PATH=$PATH:/usr/sbin:/sbin
umask 077
fresh=$DIRECTORY/$FRESH
before=$DIRECTORY/.before
mkdir -p "$DIRECTORY" && rm -rf "$fresh" "$before" && mkdir "$fresh" && base64 -d | tar -xzf - -C "$fresh" || {
    echo "load balancer: its files could not be written to $fresh; see the disk and the lines above" >&2
    exit 1
}
# as it will be, but for where its files are
sed "s#$DIRECTORY/#$fresh/#g" "$fresh/$CONFIGURATION" >"$fresh/check"
said=$(haproxy -c -f "$fresh/check" 2>&1) || {
    rm -rf "$fresh"
    why=$(printf '%s\n' "$said" | grep -m 1 -i alert)
    echo "load balancer: haproxy refuses its configuration: ${why:-no word of haproxy}; what runs was left as it is" >&2
    exit 1
}
rm -f "$fresh/check"
mkdir "$before"
for file in "$fresh"/*; do
    name=${file##*/}
    [ ! -e "$DIRECTORY/$name" ] || cp -p "$DIRECTORY/$name" "$before/$name" || exit 1
    mv -T "$file" "$DIRECTORY/$name" || exit 1
done
rmdir "$fresh"
began=$(date +%s)
up() { printf '%s\n' "$(members)" | grep -c ' UP '; }
were_up=$(up)
last_word() { journalctl --quiet --no-pager --output=cat --unit="$UNIT" --since="@$began" | grep -m 1 -F '[ALERT]'; }
put_back() {
    for file in "$before"/*; do
        [ ! -e "$file" ] || mv -T "$file" "$DIRECTORY/${file##*/}"
    done
    rmdir "$before"
}
# where clients were served before, somebody serves them afterwards
uses_a_host() {
    [ "$were_up" -gt 0 ] || return 0
    sleep 5
    [ "$(up)" -gt 0 ] && return 0
    attempt=100
    lost="no host is up with them, and $were_up were before"
    return 1
}
# taken by the one that runs, or by none
read_it() {
    if ! systemctl is-active --quiet "$UNIT"; then
        systemctl reset-failed "$UNIT" 2>/dev/null
        systemctl enable --quiet "$UNIT" && systemctl start "$UNIT"
        return
    fi
    systemctl enable --quiet "$UNIT" || return
    main=$(systemctl show --property=MainPID --value "$UNIT")
    old=$(cat "/proc/$main/task/$main/children")
    systemctl reload "$UNIT" || return
    attempt=0
    while [ "$attempt" -lt 100 ]; do
        sleep 0.1
        attempt=$((attempt + 1))
        listening=$(ss -Hltnp "sport = :$PORT")
        still=
        for process in $old; do
            case $listening in *"pid=$process,"*) still=$process ;; esac
        done
        [ -n "$listening" ] && [ -z "$still" ] && uses_a_host && return 0
    done
    return 1
}
if read_it; then
    rm -rf "$before"
    exit 0
fi
why=${lost:-$(last_word)}
put_back
if systemctl is-active --quiet "$UNIT"; then
    systemctl reload "$UNIT"
    then="the files before it are back"
else
    systemctl stop "$UNIT" 2>/dev/null
    then="it does not run"
fi
rm -f "$RECORD"
echo "load balancer: haproxy does not run with its new files: ${why:-no word of haproxy}; $then; see journalctl --unit $UNIT" >&2
exit 1
