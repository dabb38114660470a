# Reads everything a release cares about, in one round trip, and changes nothing.
#
# Input, as shell variables set in front of this text: DATA_ROOT SERVICE GPU_FIELDS DATABASE_STATE (a
# command, or empty; so are GUARD_STATE and FIREWALL_STATE) GATEWAY_RECORD (a file) GATEWAY_DIRECTORY GATEWAY_MODES (a format of find) MOUNT_UNIT (of the local disks, or empty), the functions of disks.sh, and the lists PACKAGES FILES UNITS URLS BOOLEANS, and SEALED and MEASURED (directories under the data root),
# one word each line. Output: sections, each a line of the ASCII record separator and the section's
# name, then the untouched output of the tool that was asked; operations/facts/host_state.py reads them. Raw tool
# output rather than JSON made here: a shell cannot quote it safely, and captured output tests the reader.
# Absent things give empty sections: the script succeeds on a host that has nothing of ours.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

section() { printf '\036%s\n' "$1"; }
part() { printf '\037%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }
IFS='
'
set -f

# directories of the data root, one a line
under() { for name in $1; do printf '%s\n' "$DATA_ROOT/$name"; done; }

section os-release
{ cat /etc/os-release && echo; } 2>/dev/null
section architecture
uname -m

section packages
has rpm && rpm -q --qf '%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' $PACKAGES 2>/dev/null

section files
sha256sum -- $FILES 2>/dev/null

section version-locks
{ cat /etc/dnf/plugins/versionlock.list && echo; } 2>/dev/null

section daemon-json
# a person's file may end without a line break, and the next section must begin on a line of its own
[ ! -e /etc/docker/daemon.json ] || { cat /etc/docker/daemon.json && echo; } 2>/dev/null

section units
systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,NeedDaemonReload $UNITS 2>/dev/null

section detached
systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*' 2>/dev/null

section container
has docker && docker container inspect --format '{{json .}}' "$SERVICE" 2>/dev/null
section images
has docker && docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}}	{{.ID}}' --filter 'reference=tritonhost/*' 2>/dev/null

section image-records
find "$DATA_ROOT/images" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

section manifests
for manifest in $(find $(under "$SEALED") -mindepth 2 -maxdepth 2 -name manifest.json -type f ! -path '*/.*' 2>/dev/null); do
    part "$manifest"
    cat "$manifest"
done

section sizes
find $(under "$MEASURED") -type f ! -path '*/.*' \
    -printf '%p\t%s\t%Ts\n' 2>/dev/null

section links
for link in current previous; do
    printf '%s\t%s\n' "$link" "$(readlink "$DATA_ROOT/$link" 2>/dev/null)"
done

section verdicts
find "$DATA_ROOT/verdicts" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

section measurements
find "$DATA_ROOT/measurements" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

section listening
# address:port in hexadecimal; 0A: LISTEN. A busy host has thousands of others.
awk '$4 == "0A" { print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null

section release-files
release=$(readlink -f "$DATA_ROOT/current" 2>/dev/null)
[ -n "$release" ] && [ -d "$release" ] && (cd "$release" && find . -type f ! -name manifest.json -exec sha256sum {} + 2>/dev/null)

section inodes
find $(under "$SEALED") -mindepth 1 -maxdepth 1 -type d ! -name '.*' \
    -printf '%p\t%i\n' 2>/dev/null

section root
root_disk

section data-root
data_root

section local-disks
[ -z "$MOUNT_UNIT" ] || local_disks

section resources
sed -n 's/^MemTotal: *\([0-9]*\) kB$/memory\t\1/p' /proc/meminfo 2>/dev/null
# of the nearest directory that is there already
place=$DATA_ROOT
while [ ! -e "$place" ] && [ -n "$place" ]; do place=${place%/*}; done
df --block-size=1024 --output=avail "${place:-/}" 2>/dev/null | sed -n 's/^ *\([0-9][0-9]*\)$/free\t\1/p'

section gpus
has nvidia-smi && nvidia-smi --query-gpu="$GPU_FIELDS" --format=csv,noheader,nounits 2>&1

section database
[ -n "$DATABASE_STATE" ] && has docker && sh -c "$DATABASE_STATE" </dev/null 2>/dev/null

section ready
[ -n "$URLS" ] && has curl && for url in $URLS; do
    printf '%s\t%s\n' "$url" "$(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' "$url" 2>/dev/null)"
done

section gateway
[ ! -e "$GATEWAY_RECORD" ] || { cat "$GATEWAY_RECORD" && echo; } 2>/dev/null
section gateway-modes
find "$GATEWAY_DIRECTORY" -maxdepth 1 -printf "$GATEWAY_MODES" 2>/dev/null

section guard
sh -c "$GUARD_STATE" </dev/null 2>/dev/null
section firewall
sh -c "$FIREWALL_STATE" </dev/null 2>/dev/null

section selinux
if [ -e /sys/fs/selinux/enforce ]; then
    printf 'enforce\t%s\n' "$(cat /sys/fs/selinux/enforce)"
    for boolean in $BOOLEANS; do
        # "1 1": as it is, and as it will be when a transaction is committed
        [ ! -e "/sys/fs/selinux/booleans/$boolean" ] ||
            printf 'boolean:%s\t%s\n' "$boolean" "$(cut -c 1 "/sys/fs/selinux/booleans/$boolean")"
    done
    has matchpathcon && printf 'rule\t%s\n' "$(matchpathcon -n "$DATA_ROOT" 2>/dev/null)"
    [ ! -e "$DATA_ROOT" ] || printf 'label\t%s\n' "$(stat -c %C "$DATA_ROOT" 2>/dev/null)"
fi

section end
exit 0
