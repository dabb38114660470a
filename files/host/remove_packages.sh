# Removes installed packages by their full names, and nothing else.
#
# Usage: sh remove_packages.sh RUN SECONDS NAME...       RUN: the path of run_unlocked.sh; SECONDS: for its locks

run=$1 seconds=$2
shift 2

running=
if command -v podman >/dev/null 2>&1; then running=$(podman ps --format '{{.Names}}' 2>/dev/null); fi
# root's podman does not see the containers of other users; each has a conmon
others=$(ps -C conmon -o args= 2>/dev/null | sed -n 's/.* -n \([^ ]*\).*/\1/p')
running=$(printf '%s\n%s\n' "$running" "$others" | sort -u | paste -s -d ' ' | sed 's/^ *//')
if [ -n "$running" ]; then
    echo "tritonhost: refused: podman containers run on this host: $running; expected none, because podman has to make room for docker-ce; stop them first"
    exit 65
fi
full=$(rpm -q --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\n' "$@" | grep -v 'is not installed')
[ -n "$full" ] || exit 0
# noautoremove: container-selinux, which came with podman, would go with it, and with it the labels it gives
exec sh "$run" "$seconds" dnf remove --assumeyes --noautoremove --setopt=exit_on_lock=True $full
