# Prints what firewalld says, as it says it, in parts that begin with the ASCII unit separator and a name; nothing where it
# does not run. Input: MARK, which our rules bear; ASK, empty where none is wanted: then it is only asked if a zone has one.

part() { printf '\037%s\n' "$1"; }
if systemctl is-active --quiet firewalld.service; then
    part running
    if [ -n "$ASK" ] || grep -qs -e "$MARK" /etc/firewalld/zones/*.xml; then
        part default
        timeout 10 firewall-cmd --get-default-zone
        part addresses
        ip -oneline -4 address show
        part runtime
        timeout 10 firewall-cmd --list-all-zones
        part permanent
        timeout 10 firewall-cmd --permanent --list-all-zones
    fi
fi
