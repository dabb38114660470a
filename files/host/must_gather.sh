# Prints what a report of a fault needs, in sections, and changes nothing. A missing program, or one that does not answer, is a
# line of its section. What is read may hold secrets: operations/plan/audit/redaction.py takes them out before they are written.
#
# Input, as shell variables set before this text:
#   DATA_ROOT, STATE_ROOT, SERVICE (the server's unit), TABLE (of nftables)
#   UNITS      the units of the service, one per line
#   LINES      of each journal, at most
#   BYTES      of each section, at most: the end is kept

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

. ./sections.sh

# NAME COMMAND...: a section with what the command prints
tell() {
    section "$1"
    shift
    timeout 20 "$@" 2>&1 </dev/null | tail -c "$BYTES"
    echo
}

tell system sh -c 'cat /etc/os-release; uname -a; uptime; timedatectl; cat /proc/cmdline'
tell disks sh -c "df -h; df -i; lsblk -o NAME,SIZE,TYPE,FSTYPE,MOUNTPOINT; findmnt -T '$DATA_ROOT'"
tell memory sh -c 'free -m; grep -i huge /proc/meminfo; cat /proc/pressure/memory'
tell gpus sh -c 'nvidia-smi; nvidia-smi topo -m; nvidia-smi -q'
tell kernel sh -c "dmesg --time-format iso | grep -i -E 'nvrm|xid|oom|killed process|i/o error|xfs|nvme|segfault' | tail -n $LINES"
tell packages sh -c "rpm -qa --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE} %{INSTALLTIME:date}\n' | grep -i -E '^(docker|containerd|nvidia|libnvidia|kernel|haproxy|nftables|selinux|container-selinux|git)' | sort"
tell unit-list systemctl list-units --all --no-pager --plain 'tritonhost-*' "$SERVICE*" docker.service containerd.service
section unit-files
for unit in $UNITS docker.service; do timeout 20 systemctl cat --no-pager "$unit" 2>&1 | tail -c "$BYTES"; done
section unit-states
for unit in $UNITS docker.service; do timeout 20 systemctl status --no-pager --full --lines=0 "$unit" 2>&1; done
for unit in $UNITS docker.service; do
    tell "journal-$unit" journalctl --quiet --no-pager --output=short-iso --lines="$LINES" --unit="$unit"
done
tell journal-work journalctl --quiet --no-pager --output=short-iso --lines="$LINES" --unit='tritonhost-*'
tell docker sh -c 'docker version; docker info; docker ps --all --no-trunc; docker image ls --digests; docker network ls'
tell containers sh -c "docker container inspect $SERVICE $SERVICE-next $SERVICE-database $SERVICE-gateway $SERVICE-door; docker network inspect $SERVICE-network"
tell daemon-json cat /etc/docker/daemon.json
tell releases sh -c "cd '$DATA_ROOT' && ls -la --time-style=long-iso . '$STATE_ROOT' releases images verdicts measurements; tail -n 3 verdicts/* measurements/*"
tell release sh -c "cd '$STATE_ROOT/current/' && pwd -P && for file in release.json golden.json serve wait-ready; do echo \"== \$file\"; cat \$file; done"
tell model-repository sh -c "cd '$STATE_ROOT/current/model_repository' && find . -ls && find . -type f -size -64k \( -name '*.pbtxt' -o -name model.yaml \) -exec sh -c 'echo \"== \$1\"; cat \"\$1\"' - {} \;"
tell ports ss --listening --tcp --numeric --processes
tell network sh -c "nft list table inet $TABLE; firewall-cmd --list-all; ip -brief address; cat /etc/resolv.conf"
tell selinux sh -c 'getenforce; ls -Zd /var/lib/tritonhost; ausearch --message avc --start recent | tail -n 50'
tell lock sh -c 'ls -la /run/tritonhost; cat /run/tritonhost/lock.holder'
section end
