# Reads which long work runs on the host now, for how long, and what each wrote last. Changes nothing.
#
# Input: none, but the functions of sections.sh.
# Output: the section `uptime` with the seconds since the boot; then the section `work`: for each unit a part with its name, the
# microseconds since the boot at which it was started, and the end of its journal.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

. ./sections.sh
section uptime
cut -d ' ' -f 1 /proc/uptime
section work
for unit in $(systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*' 2>/dev/null | cut -d ' ' -f 1); do
    part "$unit"
    systemctl show --property=InactiveExitTimestampMonotonic --value "$unit" 2>/dev/null
    # a line of a download may be long, and is written again and again
    journalctl --quiet --no-pager --output=cat --unit="$unit" --lines=3 2>/dev/null | tail -c 2000
    echo
done
section end
exit 0
