# Removes installed packages by their full names; input: NAMES, one exact package name a line.

running=
if command -v podman >/dev/null 2>&1; then running=$(podman ps --format '{{.Names}}' 2>/dev/null | paste -s -d ' '); fi
if [ -n "$running" ]; then
    echo "podman containers run on this host: $running; expected none, because podman has to make room for docker-ce; stop them first" >&2
    exit 65
fi
full=$(rpm -q --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\n' $NAMES | grep -v 'is not installed')
[ -z "$full" ] || dnf remove --assumeyes $full
