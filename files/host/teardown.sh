# Takes off a host what this tool has put there, and puts back what had to make room. Runs as detached work, and may be interrupted at
# any point and run again: the record of what there was before goes last.
#
# Input, one word per line where a list: RECORD; DIRECTORY (of this work's files); UNITS in the order of their stop, FILES, TABLES (of nftables), MARKS
# (of firewalld's rules), ROOTS (lines of a data root, tab, the unit of its mount or nothing, tab, `stays` if the directory was there
# before, tab, what is ours there, where that is not KNOWN), KNOWN (what is ours in a data root), THERE (paths that were there before), FORGET
# (empty: the record stays, because docker does), PATTERNS and BOOLEANS (of SELinux), DOCKER (goes or stays), DAEMON (docker's settings, where
# there were none before), PACKAGES (to remove),
# BACK (full names of those to install again), OPTIONS (of dnf), COPIES (files to put back), STATE (what docker leaves behind), EMPTIED (what goes once it is empty), GROUP,
# REPOSITORIES (files that dnf needs until the end), LOCK_LIST, WAIT (seconds for other package managers), ARRAY_FILE,
# UNFINISHED, LABEL (of the disks that were made for it), CACHES (of dnf, for repositories of ours).

. ./sections.sh
set -u
LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin
IFS='
'
set -f

say() { printf '%s\n' "tritonhost: $1"; }
refuse() {
    say "refused: $1; what was not taken off yet is as it was; run the same command again"
    exit 65
}
step() { say "step: $1"; }
# whether a line of the second list is the first word
among() { printf '%s\n' "$2" | grep -q -x -F -e "$1"; }

rm -rf "$RECORD.gone"
mkdir -p "$RECORD" /run/tritonhost
exec 9>>/run/tritonhost/lock
flock --nonblock 9 || refuse "the host's lock is held by $(cat /run/tritonhost/lock.holder 2>/dev/null); expected nobody else at work on this host"
printf 'a teardown of this host\n' >/run/tritonhost/lock.holder

step "stop the services"
for unit in $UNITS; do
    [ "$(systemctl show --property=LoadState --value "$unit")" != not-found ] || continue
    # what has begun is finished: the units have the time for it
    systemctl disable --quiet --now "$unit" 2>&1
    case $(systemctl show --property=ActiveState --value "$unit") in
        active | activating | reloading | deactivating) refuse "$unit: found it running after it was stopped, expected it down; see systemctl status $unit" ;;
    esac
    systemctl reset-failed "$unit" 2>/dev/null
done

step "remove containers, images and networks"
if has docker && docker info >/dev/null 2>&1; then
    for label in release gateway door exporter database; do
        docker container ls --all --quiet --filter "label=tritonhost.$label" | xargs -r docker rm --force --volumes >/dev/null
    done
    images=$(docker image ls --quiet --no-trunc --filter 'reference=tritonhost/*' | sort -u)
    docker image ls --format '{{.Repository}}:{{.Tag}}' --filter 'reference=tritonhost/*' | xargs -r docker rmi >/dev/null
    for image in $images; do
        # one that somebody else has tagged stays; what is left was pulled by its digest
        [ "$(docker image inspect --format '{{len .RepoTags}}' "$image" 2>/dev/null)" != 0 ] || docker rmi --force "$image" >/dev/null
    done
    docker network ls --quiet --filter label=tritonhost.network | xargs -r docker network rm >/dev/null
fi

step "remove the guard and rules of the firewall"
# PROGRAM [SCOPE]: the rules that have one of our marks go. Asked once for all zones: each start of the program takes a third of a
# second.
admitted_no_longer() {
    "$@" --list-all-zones 2>/dev/null | awk '/^[^ \t]/ { zone = $1 } /rule priority=/ { sub(/^[ \t]+/, ""); print zone "\t" $0 }' |
        grep -F "$(printf ' %s \n' $MARKS)" | while read -r line; do
        "$@" --zone="${line%%	*}" --remove-rich-rule="${line#*	}" >/dev/null
    done
}
if systemctl is-active --quiet firewalld.service; then
    admitted_no_longer firewall-cmd
    admitted_no_longer firewall-cmd --permanent
elif has firewall-offline-cmd; then
    admitted_no_longer firewall-offline-cmd
fi
for table in $TABLES; do nft delete table inet "$table" 2>/dev/null; done

step "remove units and settings"
for path in $FILES; do
    among "$path" "$REPOSITORIES" || rm -f "$path" || refuse "$path: found it in place, expected to remove it"
done
systemctl daemon-reload

step "remove the data"
mounted=
for line in $ROOTS; do
    root=${line%%	*}
    line=${line#*	}
    unit=${line%%	*}
    line=${line#*	}
    before=${line%%	*}
    names=$KNOWN
    [ -z "${line#*	}" ] || names=$(printf '%s' "${line#*	}" | tr ' ' '\n')
    case $root in /*/*) ;; *) refuse "data root $root: expected a directory below another" ;; esac
    for name in $names; do
        if among "$root/$name" "$THERE"; then continue; fi
        rm -rf --one-file-system "${root:?}/$name" || refuse "$root/$name: found it in place, expected to remove it; see the line above"
    done
    if [ -n "$unit" ]; then
        rest=$(find "$root" -mindepth 1 -maxdepth 1 2>/dev/null | head -n 1)
        if mountpoint -q "$root" && [ -n "$rest" ]; then
            say "stays: the mount of $root, because of $rest, which is not tritonhost's"
            mounted=yes
            continue
        fi
        # from here on nothing of the disks is needed any more: a run after this one need not see them mounted
        printf 'disks\n' >>"$RECORD/going"
        systemctl disable --quiet --now "$unit" 2>&1
        ! mountpoint -q "$root" || refuse "$root: found it mounted, expected it free; see lsof +f -- $root"
        # by the label that only this tool gives, of the disks themselves: the mount may be gone since an interrupted run
        for name in $(lsblk --nodeps --noheadings --raw --output KNAME | grep -x 'nvme[0-9]*n1'); do
            wipefs --parsable "/dev/$name" | cut -s -d , -f 3 | grep -q -x -E "(.*:)?$LABEL" || continue
            for holder in $(find "/sys/class/block/$name/holders/" -mindepth 1 -maxdepth 1 -name 'md*' 2>/dev/null); do
                attempt=0
                until mdadm --quiet --stop "/dev/${holder##*/}"; do
                    attempt=$((attempt + 1))
                    [ "$attempt" -lt 5 ] || refuse "/dev/${holder##*/}: found it in use, expected to stop it; see cat /proc/mdstat"
                    udevadm settle 2>/dev/null
                    sleep 1
                done
            done
            wipefs --quiet --all "/dev/$name" || refuse "/dev/$name: found its signatures in place, expected it empty; see lsblk"
            # a disk without a signature that is not empty may be another program's: a later deploy would refuse it
            blkdiscard "/dev/$name" 2>/dev/null
        done
        rm -f "/etc/systemd/system/$unit" "$ARRAY_FILE" "$UNFINISHED"
        rmdir "${ARRAY_FILE%/*}" 2>/dev/null
        systemctl daemon-reload
    fi
    [ "$before" = stays ] || rmdir "$root" 2>/dev/null
done

step "take back what SELinux was told"
if [ -e /sys/fs/selinux/enforce ] && has semanage; then
    for pattern in $PATTERNS; do semanage fcontext --delete "$pattern" 2>/dev/null; done
    for name in $BOOLEANS; do setsebool -P "$name=off"; done
fi

step "remove packages"
[ ! -s "$DIRECTORY/versionlock.list" ] || [ ! -e "$LOCK_LIST" ] || {
    # the first line says that it is ours
    sed 1d "$DIRECTORY/versionlock.list" >"$LOCK_LIST.new" && mv -T "$LOCK_LIST.new" "$LOCK_LIST"
} || refuse "$LOCK_LIST: found it not writable"
remove=
keys=
for name in $PACKAGES; do
    rpm -q --quiet "$name" || continue
    # what stays on the array has to be found after a boot
    if [ -n "$mounted" ] && { [ "$name" = mdadm ] || [ "$name" = xfsprogs ]; }; then continue; fi
    case $name in gpg-pubkey-*) keys="$keys$name
" ;; *) remove="$remove$name
" ;; esac
done
while [ -n "$remove" ]; do
    said=$(rpm --erase --test $remove 2>&1) && break
    needed=$(printf '%s\n' "$said" | sed -n 's/^[[:space:]]*\(.*\) is needed by (installed) .*/\1/p' | sed 's/ [<>=].*//' | sort -u)
    [ -n "$needed" ] || refuse "found no answer of rpm to what requires the packages: $(printf '%s' "$said" | head -n 1)"
    stays=
    for capability in $needed; do
        for name in $(rpm -q --qf '%{NAME}\n' --whatprovides "$capability" 2>/dev/null); do
            if among "$name" "$remove"; then stays="$stays$name
"; fi
        done
    done
    [ -n "$stays" ] || refuse "found nothing that provides $(printf '%s' "$needed" | head -n 1), which an installed package needs"
    say "stays, because other packages need it: $(printf '%s' "$stays" | sort -u | paste -s -d ' ')"
    remove=$(printf '%s' "$remove" | grep -v -x -F "$(printf '%s' "$stays")")
    [ -z "$remove" ] || remove="$remove
"
done
if [ "$DOCKER" = goes ]; then
    if ! grep -q -s -x docker "$RECORD/going" && has docker; then
        # again, after the question: what came since then is not in the table
        rest=$(docker container ls --all --format 'container {{.Names}}') && more=$(docker volume ls --format 'volume {{.Name}}') &&
            tagged=$(docker image ls --format 'image {{.Repository}}:{{.Tag}}') ||
            refuse "docker: found no answer, expected it to say what it has; systemctl start docker"
        rest=$(printf '%s\n' "$rest" "$more" "$tagged" | grep -v -e '<none>' -e '^$' | head -n 1)
        [ -z "$rest" ] || refuse "docker: found $rest, which is not tritonhost's"
        printf 'docker\n' >>"$RECORD/going"
    fi
    systemctl stop docker.socket docker.service containerd.service 2>/dev/null
    ip link delete docker0 2>/dev/null
fi
if [ -n "$remove" ]; then
    sh "$DIRECTORY/run_unlocked.sh" "$WAIT" dnf remove --assumeyes --noautoremove --setopt=exit_on_lock=True $remove || exit $?
fi
if [ "$DOCKER" = goes ]; then
    for path in $STATE; do rm -rf --one-file-system "$path" || refuse "$path: found it in place, expected to remove it; see findmnt"; done
    if [ -n "$GROUP" ] && [ -z "$(getent group "$GROUP" | cut -d : -f 4)" ]; then groupdel "$GROUP" 2>/dev/null; fi
fi

step "put back what had to make room"
# each alone: one that is not to be had any more keeps no other away
for full in $BACK; do
    if rpm -q --quiet "$full"; then continue; fi
    code=0
    sh "$DIRECTORY/run_unlocked.sh" "$WAIT" dnf install --assumeyes --setopt=exit_on_lock=True --setopt=install_weak_deps=False $OPTIONS "$full" || code=$?
    [ "$code" != 0 ] || continue
    [ "$code" != 75 ] || exit 75
    dnf --quiet --refresh $OPTIONS makecache || refuse "dnf: found no answer of its repositories, expected $full to be put back; see the lines above"
    say "left: $full is not in the repositories any more, and was not put back; install what you need of it"
done
# docker reads its file when it starts, and a start ends the containers of others
settled() {
    systemctl is-active --quiet docker.service || return 0
    if [ -z "$(docker container ls --quiet 2>/dev/null)" ]; then
        systemctl restart docker.service
    else
        say "left: docker reads $1 when it is started again: containers run that are not tritonhost's"
    fi
}
for path in $COPIES; do
    if cmp -s "$RECORD/files$path" "$path"; then continue; fi
    mkdir -p "${path%/*}"
    cp -p "$RECORD/files$path" "$path.new" && mv -T "$path.new" "$path" || refuse "$path: found it not writable, expected to put it back"
    case $path in */daemon.json) settled "$path" ;; esac
done
if [ -n "$DAEMON" ] && [ -e "$DAEMON" ]; then
    rm -f "$DAEMON" || refuse "$DAEMON: found it in place, expected to remove it"
    settled "$DAEMON"
fi

step "remove repositories and keys"
for path in $REPOSITORIES; do rm -f "$path" || refuse "$path: found it in place, expected to remove it"; done
for name in $keys; do sh "$DIRECTORY/run_unlocked.sh" "$WAIT" rpm --erase "$name" || exit $?; done
for name in $CACHES; do find /var/cache/dnf -maxdepth 1 -name "$name*" -exec rm -rf {} + 2>/dev/null; done

for path in $EMPTIED; do
    if [ -d "$path" ]; then rmdir "$path" 2>/dev/null; elif [ -f "$path" ] && [ ! -s "$path" ]; then rm -f "$path"; fi
done

step "forget the host"
# in one move: half a record would say of files that were put back that nobody had them
if [ -n "$FORGET" ]; then mv -T "$RECORD" "$RECORD.gone" && rm -rf "$RECORD.gone" || exit 1; fi
say "done"
