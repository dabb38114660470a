# Removes installed packages by their full names, and with them those that require them and may be removed too.
#
# Usage: sh remove_packages.sh RUN SECONDS WITH INSTEAD NAME...    RUN: the path of run_unlocked.sh; SECONDS: for its locks;
# WITH: names, separated by commas, of packages that may be removed too because they require a removed one; INSTEAD: a file with
# the words, one per line, of a dnf command that only checks whether the replacement could be installed
#
# dnf removes every package that requires a removed one, without a question. So rpm is queried first, and other packages are
# refused. A removal is also refused if the replacement cannot be installed: the host would have neither.

run=$1 seconds=$2 along=$3 instead=$4
shift 4

refuse() {
    echo "tritonhost: refused: $1"
    exit 65
}

running=
if command -v podman >/dev/null 2>&1; then running=$(podman ps --format '{{.Names}}' 2>/dev/null); fi
# root's podman does not see the containers of other users; each has a conmon
others=$(ps -C conmon -o args= 2>/dev/null | sed -n 's/.* -n \([^ ]*\).*/\1/p')
running=$(printf '%s\n%s\n' "$running" "$others" | sort -u | paste -s -d ' ' | sed 's/^ *//')
if [ -n "$running" ]; then
    refuse "podman containers run on this host: $running; expected none, because podman has to make room for docker-ce; stop them first"
fi

# FORMAT NAME...: the installed ones of them
installed() {
    format=$1
    shift
    rpm -q --qf "$format\n" "$@" | grep -v 'is not installed'
}

# The packages that require the removed ones, and those that require them in turn. Not every rpm finds a package by its epoch.
while going=$(installed '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}' "$@") && [ -n "$going" ]; do
    said=$({ LC_ALL=C sh "$run" "$seconds" rpm --erase --test $going || echo "exit code $?"; } 2>&1 |
        awk '/^tritonhost:/ { print >"/dev/stderr" } { print }')
    more=$(printf '%s\n' "$said" | sed -n 's/.* is needed by (installed) \(.*\)-[^-]*-[^-]*$/\1/p' | sort -u)
    if [ -z "$more" ]; then
        case $said in
            *'exit code 75'*) exit 75 ;;
            *'exit code'*) refuse "found no answer of rpm to what requires $*: $(echo $said | cut -c 1-300); nothing was changed" ;;
        esac
        break
    fi
    for name in $more; do
        case ",$along," in *",$name,"*) continue ;; esac
        refuse "removing $* would take $name along, which requires it; expected nothing that does but: $(echo "$along" | sed 's/,/, /g'); dnf remove $name yourself if it may go, then run again; nothing was changed"
    done
    echo "tritonhost: removed as well, because they require it:" $more
    set -- "$@" $more
done
full=$(installed '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}' "$@")
[ -n "$full" ] || exit 0
if [ -s "$instead" ]; then
    said=$(LC_ALL=C xargs -d '\n' -a "$instead" sh "$run" "$seconds" 2>&1 |
        awk '/^tritonhost:/ { print >"/dev/stderr" } { print }')
    case $said in
        # dnf's answer to its own question, with something to install and without
        *'Operation aborted'* | *'Nothing to do'*) ;;
        *'tritonhost: refused'*) exit 75 ;;
        *)
            why=$(printf '%s\n' "$said" | grep -E '^ *(- |Error|Problem|Failed|Curl error)' | head -n 4)
            refuse "found nothing that dnf could install in the place of $*: $(echo ${why:-${said:-no word of dnf}} | sed 's#//[^/@ ]*@#//#g' | cut -c 1-400); expected docker's packages at their versions; see docker_packages, docker_repository_url and the rows above; nothing was changed"
            ;;
    esac
fi
# noautoremove: otherwise container-selinux, which came with podman, would be removed with it, and its labels too
exec sh "$run" "$seconds" dnf remove --assumeyes --noautoremove --setopt=exit_on_lock=True $full
