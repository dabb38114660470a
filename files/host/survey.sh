# Reads what this tool has put on a host, and what stands in the way of taking it off. Changes nothing.
#
# Input: RECORD (the host's record), PLACES (lines of service, tab, data root: the inventory's), FILES (paths
# of files that this tool may have written outside its data root), HEADER (the first words of those that say so themselves),
# KNOWN (names that it makes in a data root), WITHOUT_MODEL (lines of a service, tab, the names of such a host), LOCK_LIST.
# Output: sections, as probe.sh has them; operations/plan/teardown.py reads them.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

. ./sections.sh
IFS='
'
set -f

for name in began going there places came went booleans; do
    section "$name"
    cat "$RECORD/$name" 2>/dev/null
done

section copies
find "$RECORD/files" -type f -printf '/%P\n' 2>/dev/null

section files
for path in $FILES; do
    [ -e "$path" ] || [ -h "$path" ] || continue
    case $path in
        # one of that name may be the site's own
        /etc/systemd/* | /etc/yum.repos.d/* | *.nft | *.cfg) grep -q -s -e "^$HEADER" "$path" || continue ;;
    esac
    printf '%s\n' "$path"
done
# what an earlier inventory named otherwise
find /etc /etc/systemd/system /etc/yum.repos.d -maxdepth 1 -type f -exec grep -l -s -e "^$HEADER" {} + 2>/dev/null

section active
systemctl list-units --state=active,activating,deactivating,reloading --plain --no-legend 2>/dev/null | cut -d ' ' -f 1

section busy
systemctl list-units --state=active,activating,deactivating --plain --no-legend 'tritonhost-*' 2>/dev/null | cut -d ' ' -f 1
if [ -e /run/tritonhost/lock ] && ! flock --nonblock /run/tritonhost/lock true; then cat /run/tritonhost/lock.holder; fi

section roots
all=$(printf '%s\n' "$PLACES" "$(cat "$RECORD/places" 2>/dev/null)")
printf '%s\n' "$all" | cut -s -f 2 | sort -u | while read -r root; do
    [ -d "$root" ] || continue
    mount=
    unit=$(systemd-escape --path --suffix=mount "$root")
    if grep -q -s -e "^$HEADER" "/etc/systemd/system/$unit"; then
        mount=$unit
        mountpoint -q "$root" || mount="absent:$unit"
    fi
    known=$KNOWN
    for line in $WITHOUT_MODEL; do
        if printf '%s\n' "$all" | grep -q -x -F -e "${line%%	*}	$root"; then known=$(printf '%s' "${line#*	}" | tr ' ' '\n'); fi
    done
    # what was there before the first deploy is somebody else's, whatever it is called
    others=$(find "$root/" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | while read -r name; do
        if ! printf '%s\n' "$known" | grep -q -x -F -e "$name" || grep -q -s -x -F -e "$root/$name" "$RECORD/there"; then
            printf '%s\n' "$name"
        fi
    done | paste -s -d ,)
    documents=
    set +f
    for each in "$root"/database "$root"/services/*/database; do [ ! -d "$each" ] || documents=$each; done
    set -f
    size=$(du -s --block-size=1 --one-file-system "$root" 2>/dev/null | cut -f 1)
    printf '%s\t%s\t%s\t%s\t%s\n' "$root" "$size" "$mount" "$documents" "$others"
done

section tables
has nft && nft list tables inet 2>/dev/null | sed -n 's/^table inet \(tritonhost_.*\)$/\1/p'

section locks
cat "$LOCK_LIST" 2>/dev/null

section docker
# half an answer is none: what it does not name would be taken for nothing
if has docker && docker info >/dev/null 2>&1 &&
    containers=$(docker container ls --all --format 'container	{{.Names}}	{{.Labels}}' 2>/dev/null) &&
    volumes=$(docker volume ls --format 'volume	{{.Name}}' 2>/dev/null) &&
    images=$(docker image ls --format 'image	{{.Repository}}:{{.Tag}}	{{.ID}}' 2>/dev/null); then
    printf '%s\n' "$containers" "$volumes" "$images"
    # the volumes that our containers' images have asked for
    for label in release gateway door exporter database; do
        docker container ls --all --quiet --filter "label=tritonhost.$label" | xargs -r docker inspect --format '{{range .Mounts}}{{if eq .Type "volume"}}own	{{.Name}}
{{end}}{{end}}' 2>/dev/null
    done
    printf 'answers\n'
fi

# what other packages need of those that came: it stays
section needed
came=
for name in $(cat "$RECORD/came" 2>/dev/null); do
    if rpm -q --quiet "$name" 2>/dev/null; then came="$came$name
"; fi
done
[ -z "$came" ] || rpm --erase --test $came 2>&1 |
    sed -n 's/.* is needed by (installed) \(.*\)-[^-]*-[^-]*$/\1/p' | sort -u

section installed
[ -z "$came" ] || printf '%s' "$came"

section selinux
[ ! -e /sys/fs/selinux/enforce ] || printf 'yes\n'
section end
exit 0
