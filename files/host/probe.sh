# Reads everything that a release depends on, in one round trip, and changes nothing.
#
# Input, as shell variables set before this text:
#   DATA_ROOT, STATE_ROOT (of the service: links, database, gateway), SERVICE, GPU_FIELDS
#   DATABASE_STATE, GUARD_STATE, FIREWALL_STATE   commands, or empty
#   GATEWAY_RECORD, DOOR_RECORD                   files
#   GATEWAY_DIRECTORY, GATEWAY_MODES              a directory, and a format of find
#   MOUNT_UNIT                                    of the local disks, or empty
#   PACKAGES, FILES, UNITS, URLS, BOOLEANS        lists, one word per line
#   EXPORTERS                                     a list of names of files in /run
#   SEALED, MEASURED                              lists of directories under the data root
# and the functions of disks.sh and ownership.sh, with the lists of the latter.
# Output: sections, each a line of the ASCII record separator and the section's name, then the tool's untouched output;
# operations/facts/host_state.py parses them. Raw tool output rather than JSON made here: a shell cannot quote it safely, and
# captured output tests the parser. Absent things give empty sections: the script succeeds on a bare host.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

. ./sections.sh
IFS='
'
set -f

# directories of the data root, one per line
under() { for name in $1; do printf '%s\n' "$DATA_ROOT/$name"; done; }

# The programs that take longest, in lanes beside each other. A lane's output waits in a pipe until those before it are done.
of_docker() {
    section container
    has docker && docker container inspect --format '{{json .}}' "$SERVICE" 2>/dev/null

    section images
    has docker && docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}}	{{.ID}}' --filter 'reference=tritonhost/*' 2>/dev/null

    section database
    [ -n "$DATABASE_STATE" ] && has docker && sh -c "$DATABASE_STATE" </dev/null 2>/dev/null
    section end-docker
}

of_services() {
    section gpus
    # its standard error, to which libraries write too, only if there is no other output
    has nvidia-smi && {
        said=$(nvidia-smi --query-gpu="$GPU_FIELDS" --format=csv,noheader,nounits 2>/dev/null)
        [ -n "$said" ] || said=$(nvidia-smi --query-gpu="$GPU_FIELDS" --format=csv,noheader,nounits 2>&1)
        printf '%s\n' "$said"
    }

    section units
    systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,NeedDaemonReload $UNITS 2>/dev/null

    section detached
    systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*' 2>/dev/null

    section ready
    [ -n "$URLS" ] && has curl && for url in $URLS; do
        printf '%s\t%s\n' "$url" "$(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' "$url" 2>/dev/null)"
    done

    section guard
    sh -c "$GUARD_STATE" </dev/null 2>/dev/null

    section firewall
    sh -c "$FIREWALL_STATE" </dev/null 2>/dev/null
    section end-services
}

of_files() {
    section os-release
    { cat /etc/os-release && echo; } 2>/dev/null

    section architecture
    uname -m

    section kernel
    uname -r

    section packages
    has rpm && rpm -q --qf '%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' $PACKAGES 2>/dev/null

    section files
    sha256sum -- $FILES 2>/dev/null

    section version-locks
    { cat /etc/dnf/plugins/versionlock.list && echo; } 2>/dev/null

    section daemon-json
    # a file that was edited by hand may end without a line break, and the next section must begin on a new line
    [ ! -e /etc/docker/daemon.json ] || { cat /etc/docker/daemon.json && echo; } 2>/dev/null

    section image-records
    find "$DATA_ROOT/images" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

    section owners
    exposed

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
        printf '%s\t%s\n' "$link" "$(readlink "$STATE_ROOT/$link" 2>/dev/null)"
    done

    [ "$STATE_ROOT" = "$DATA_ROOT" ] || printf 'alone\t%s\n' "$(readlink "$DATA_ROOT/current" 2>/dev/null)"

    section verdicts
    find "$DATA_ROOT/verdicts" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

    section measurements
    find "$DATA_ROOT/measurements" -type f ! -name '.*' -printf '%f\t' -exec cat {} \; 2>/dev/null

    section listening
    # address:port in hexadecimal; 0A: LISTEN. A busy host has thousands of others.
    awk '$4 == "0A" { print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null

    section release-files
    release=$(readlink -f "$STATE_ROOT/current" 2>/dev/null)
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
    nearest "$DATA_ROOT"
    df --block-size=1024 --output=avail "${place:-/}" 2>/dev/null | sed -n 's/^ *\([0-9][0-9]*\)$/free\t\1/p'

    section door
    [ ! -e "$DOOR_RECORD" ] || { cat "$DOOR_RECORD" && echo; } 2>/dev/null

    section exporters
    for name in $EXPORTERS; do
        [ ! -e "/run/$name" ] || printf '%s\t%s\n' "$name" "$(cat "/run/$name")"
    done 2>/dev/null

    section gateway
    [ ! -e "$GATEWAY_RECORD" ] || { cat "$GATEWAY_RECORD" && echo; } 2>/dev/null

    section gateway-modes
    find "$GATEWAY_DIRECTORY" -maxdepth 1 -printf "$GATEWAY_MODES" 2>/dev/null

    section selinux
    if [ -e /sys/fs/selinux/enforce ]; then
        printf 'enforce\t%s\n' "$(cat /sys/fs/selinux/enforce)"
        for boolean in $BOOLEANS; do
            # "1 1": the current value, and the pending one
            [ ! -e "/sys/fs/selinux/booleans/$boolean" ] ||
                printf 'boolean:%s\t%s\n' "$boolean" "$(cut -c 1 "/sys/fs/selinux/booleans/$boolean")"
        done
        has matchpathcon && printf 'rule\t%s\n' "$(matchpathcon -n "$DATA_ROOT" 2>/dev/null)"
        [ ! -e "$DATA_ROOT" ] || printf 'label\t%s\n' "$(stat -c %C "$DATA_ROOT" 2>/dev/null)"
    fi
}

of_docker | {
    of_services </dev/null | {
        of_files </dev/null
        cat
    }
    cat
}
section end
exit 0
