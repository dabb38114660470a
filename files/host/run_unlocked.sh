# Runs a command of the package manager once no other process holds its locks, and until then prints the holder.
#
# Usage: sh run_unlocked.sh SECONDS COMMAND [ARGUMENT]...
#
# dnf 4 and rpm wait for their locks without a limit, and without naming the holder. This script waits at most SECONDS, names the
# holder every 15 s, then gives up with exit code 75. It never ends another process or removes another program's file.
# https://dnf.readthedocs.io/en/latest/conf_ref.html#exit-on-lock-label
#
# It checks cloud-init's first boot, which installs packages; dnf's lock files, which contain the holder's process id; and the
# lock of rpm's database, which is a kernel lock.

limit=$1
shift
TOLD_EACH=15
DNF_LOCKED=200 # dnf's exit code if exit_on_lock is set and another process has a lock: nothing was changed
DNF_LOCKS=${DNF_LOCKS:-/var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /var/lib/dnf/rpmdb_lock.pid /var/log/log_lock.pid}
RPM_LOCK=$(rpm --eval '%{?_rpmlock_path}' 2>/dev/null)
RPM_LOCK=${RPM_LOCK:-/var/lib/rpm/.rpm.lock}
LOOK_EACH=${LOOK_EACH:-2} # seconds

say() { printf '%s\n' "tritonhost: $*"; }
refuse() {
    say "refused: $*; nothing was changed"
    exit 75
}

# PID: its command and start; only the beginning of the command line, without user and password of a URL
process() {
    about=$(ps -o args= -p "$1" 2>/dev/null | sed 's#//[^/@ ]*@#//#g' | cut -c 1-160)
    [ -n "$about" ] || about=$(cat "/proc/$1/comm" 2>/dev/null)
    since=$(ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ')
    case $(ps -o stat= -p "$1" 2>/dev/null) in T* | t*) stopped=", stopped" ;; *) stopped= ;; esac
    printf 'pid %s (%s, since %s%s)' "$1" "$about" "${since:-?}" "$stopped"
}

# PID: its start, in seconds since 1970; the number may be a thread's, which ps does not list
began() {
    ticks=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20)
    booted=$(sed -n 's/^btime //p' "/proc/stat")
    echo $((booted + ${ticks:-0} / $(getconf CLK_TCK)))
}

# PID FILE: the process is younger than the file that names it, and not a package manager: its number was reused, and the
# process that wrote the file is gone (https://github.com/rpm-software-management/dnf/issues/2273). Both conditions, because
# setting the clock after the boot makes every process look younger.
reused() {
    [ "$(began "$1")" -gt $(($(stat -c %Y "$2") + 2)) ] || return 1
    case "$(cat "/proc/$1/comm" 2>/dev/null) $(ps -o args= -p "$1" 2>/dev/null)" in
        *dnf* | *yum* | *rpm* | *ackage*) return 1 ;;
        # it has ended by now: the next check finds neither it nor, as a rule, its file
        ' ') return 1 ;;
    esac
}

# processes that hold the database's lock for writing; with "->": those that wait for it
rpm_lock_of() {
    inode=$(stat -L -c %i "$RPM_LOCK" 2>/dev/null) || return 0
    awk -v waits="$1" -v inode="$inode" '
        { first = $2 == "->" ? 3 : 2; last = split($(first + 4), place, ":") }
        ($2 == "->") == (waits == "->") && $first == "POSIX" && $(first + 2) == "WRITE" && place[last] == inode { print $(first + 3) }
    ' "/proc/locks" 2>/dev/null
}

# an inode number is unique only within a file system: a process can hold the lock only if it has the file open
opened() {
    for descriptor in "/proc/$1"/fd/*; do [ "$descriptor" -ef "$RPM_LOCK" ] && return 0; done
    return 1
}

# [PID]: whether a process other than PID holds a lock; sets `holder`, and `stale` if waiting does not help
held() {
    holder= stale=
    for lock in $DNF_LOCKS; do
        pid=$(cat "$lock" 2>/dev/null) || continue
        case $pid in '' | *[!0-9]*) continue ;; esac
        # dnf itself takes over the file of a process that is gone
        [ "$pid" != "${1:-}" ] && [ -e "/proc/$pid/stat" ] || continue
        holder="$lock is held by $(process "$pid")"
        if reused "$pid" "$lock"; then
            stale="$lock: found pid $pid, which is $(cat "/proc/$pid/comm") and not the dnf that wrote the file: $(process "$pid"); expected no file that a dnf left behind, for which dnf waits without end; remove it: rm $lock"
        fi
        return 0
    done
    for pid in $(rpm_lock_of holds); do
        if [ "$pid" != "${1:-}" ] && opened "$pid"; then
            holder="$RPM_LOCK is held by $(process "$pid")"
            return 0
        fi
    done
    return 1
}

waited=0 told=-$TOLD_EACH
# called when a check has found a holder
wait_more() {
    [ "$waited" -lt "$limit" ] ||
        refuse "$1; expected it to end within $limit s (package_lock_wait_s); look at it, then run the same command again"
    if [ $((waited - told)) -ge "$TOLD_EACH" ]; then
        say "waiting for $waited s of $limit s at most: $1"
        told=$waited
    fi
    sleep "$LOOK_EACH"
    waited=$((waited + LOOK_EACH))
}

# PID: our own command, which waits silently for rpm's lock if another process took it after the check
watch() {
    nap=
    trap 'kill $nap 2>/dev/null; exit 0' TERM
    while :; do
        sleep "$LOOK_EACH" >/dev/null 2>&1 & # it must not keep our output pipe open
        nap=$!
        wait "$nap"
        case " $(rpm_lock_of '->' | paste -s -d ' ') " in *" $1 "*) ;; *) continue ;; esac
        held "$1" || continue
        if [ "$waited" -ge "$limit" ]; then
            # it waits, so it has not started
            kill "$1"
            sleep "$LOOK_EACH"
            kill -KILL "$1" 2>/dev/null
            exit 0
        fi
        if [ $((waited - told)) -ge "$TOLD_EACH" ]; then
            say "waiting for $waited s of $limit s at most: $holder"
            told=$waited
        fi
        waited=$((waited + LOOK_EACH))
    done
}

if command -v cloud-init >/dev/null 2>&1; then
    while cloud-init status 2>/dev/null | grep -q -x 'status: running'; do
        wait_more "cloud-init is at work on the first boot (cloud-init status --long)"
    done
fi

while :; do
    while held; do
        [ -z "$stale" ] || refuse "$stale"
        wait_more "$holder"
    done
    "$@" &
    command=$!
    watch "$command" &
    watcher=$!
    wait "$command"
    code=$?
    { kill "$watcher" && wait "$watcher"; } 2>/dev/null
    case $code in
        "$DNF_LOCKED") wait_more "dnf found one of its locks held, see its own line above" ;;
        137 | 143)
            if held; then refuse "$holder; expected it to end within $limit s (package_lock_wait_s); look at it, then run the same command again"; fi
            exit "$code"
            ;;
        *) exit "$code" ;;
    esac
done
