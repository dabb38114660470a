# Prints firewalld's own output, in parts that begin with the ASCII unit separator and a name; nothing if it does not run.
# Input: MARK, which our rules have; ASK, empty if no rule is wanted: then firewalld is only queried if a zone has one of ours.

part() { printf '\037%s\n' "$1"; }
if systemctl is-active --quiet firewalld.service; then
    part running
    # Only checks whether its files may have one, in any XML form: firewalld itself lists the rules.
    number=${MARK#*\"}
    if [ -n "$ASK" ] || grep -qs -F -e "${number%\"*}" /etc/firewalld/zones/*.xml; then
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
