# What is installed and what runs, of which a security bulletin may speak. Changes nothing.
#
# Input, as shell variables set before this text:
#   DATA_ROOT, STATE_ROOT (of the service)
#   SERVICE    the server's container; those of its database, its gateway and its door have its name in front of theirs
#   MODULE     the file that says the version of the driver's loaded module
#   PACKAGES   rpms, one per line
# Output: sections, each a line of the ASCII record separator and the section's name; operations/facts/versions.py parses them.

LC_ALL=C
export LC_ALL
IFS='
'
set -f

. ./sections.sh

section packages
has rpm && timeout 30 rpm --query --queryformat '%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' $PACKAGES 2>/dev/null

section driver
# the module that is loaded: after an update of its packages, until the next boot, nvidia-smi answers nothing
cat "$MODULE" 2>/dev/null || { has nvidia-smi && timeout 20 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1; }

section engine
has docker && timeout 20 docker version --format '{{.Server.Version}}' 2>&1

running=
section containers
# of the official images' variables only the versions: an environment may hold secrets
has docker && for name in "$SERVICE" "$SERVICE-database" "$SERVICE-gateway" "$SERVICE-door"; do
    said=$(timeout 20 docker container inspect --format '{{.State.Running}}	{{index .Config.Labels "tritonhost.release"}}{{range .Config.Env}}{{println}}{{.}}{{end}}' "$name" 2>/dev/null) || continue
    case $said in true*) ;; *) continue ;; esac
    part "$name"
    printf '%s\n' "$said" | grep -E '^(NGINX_VERSION|PG_VERSION|PYTHON_VERSION)='
    [ "$name" != "$SERVICE" ] || running=$(printf '%s\n' "$said" | sed -n '1s/^true	//p')
done

section release
# the release of the running container; where none runs, the one that starts at boot
case $running in
    '' | *[!0-9a-f]*) cat "$STATE_ROOT/current/release.json" 2>/dev/null ;;
    *) cat "$DATA_ROOT/releases/$running/release.json" 2>/dev/null || cat "$STATE_ROOT/current/release.json" 2>/dev/null ;;
esac
echo

section end
exit 0
