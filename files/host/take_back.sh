# Makes root the owner of the files that it runs or the server reads, and lets no other user write there: DATA_ROOT, SEALED,
# OWNED, SITE, DROPINS (ownership.sh). What another user could have written is compared with its manifest first. If it differs,
# the manifest is removed, and the run makes the artifact again.

set -u
IFS='
'
set -f
umask 022

# MANIFEST: digest, two spaces and name of each file that it lists; fails for an invalid manifest. Its text is not trusted, so
# platform-python, which dnf needs, parses the JSON.
listed_in() {
    python=/usr/libexec/platform-python
    [ -x "$python" ] || python=python3
    "$python" -I -c '
import json, re, sys
with open(sys.argv[1], encoding="utf-8") as file:
    files = json.load(file)["files"]
for name, entry in files.items():
    if not re.match("[0-9a-f]{64}$", entry["sha256"]) or not name.isprintable():
        sys.exit(1)
    print(entry["sha256"] + "  " + name)
' "$1" 2>/dev/null
}

# DIRECTORY: what differs from its manifest, or a manifest that another user could have written; nothing: unchanged
changed() {
    [ -f "$1/manifest.json" ] && [ ! -h "$1/manifest.json" ] || { echo manifest.json; return; }
    find "$1/manifest.json" \( ! -uid 0 -o -perm /022 \) -printf 'manifest.json\n'
    listed=$(listed_in "$1/manifest.json") || { echo manifest.json; return; }
    # files that are not listed, such as all those of a checkout
    { printf '%s\n' "$listed" | cut -c 67-; echo /; find "$1" ! -type d ! -path "$1/manifest.json" -printf '%P\n'; } |
        awk '$0 == "/" { there = 1; next } !there { known[$0]; next } !($0 in known) { print; exit }'
    [ -z "$listed" ] || printf '%s\n' "$listed" | (cd "$1" && sha256sum --check --quiet --strict - 2>&1)
}

found=$(exposed)
for kind in $SEALED; do
    for directory in $(find "$DATA_ROOT/$kind" -mindepth 1 -maxdepth 1 -type d ! -name '.*' 2>/dev/null); do
        of_it=$(printf '%s\n' "$found" | awk -F '\t' -v place="$directory" '$1 == place || index($1, place "/") == 1 { print $2 }')
        [ -n "$of_it" ] || continue
        # empty if only reading was restricted, so that no other user could write
        written=$(printf '%s\n' "$of_it" | awk -F : '$2 != 0 || $1 ~ /[2367].$/ || $1 ~ /[2367]$/')
        what=
        [ -z "$written" ] || what=$(changed "$directory") || :
        if [ -n "$what" ]; then
            printf 'tritonhost: %s: found %s changed, expected it as it was made; it is made again\n' "$directory" \
                "$(printf '%s\n' "$what" | head -n 1 | tr -cd '[:print:]')"
            rm -rf "$directory/manifest.json"
        fi
        chown -hR 0:0 "$directory" && chmod -R u-s,g-s,o-t,a+rX,go-w "$directory" || exit 1
    done
    [ ! -d "$DATA_ROOT/$kind" ] || { chown 0:0 "$DATA_ROOT/$kind" && chmod u-s,g-s,o-t,a+rX,go-w "$DATA_ROOT/$kind"; } || exit 1
done
# the image ids and the verdicts cannot be trusted if another user could have written them
printf '%s\n' "$found" | cut -f 1 | while read -r path; do
    case $path in
        "$DATA_ROOT/images" | "$DATA_ROOT/verdicts" | "$DATA_ROOT/measurements")
            rm -rf "$path"
            ;;
        "$DATA_ROOT/images/"* | "$DATA_ROOT/verdicts/"* | "$DATA_ROOT/measurements/"*) rm -f "$path" ;;
        "$DATA_ROOT/database" | "$DATA_ROOT/services/"*/database) chown 0:0 "$path" && chmod 700 "$path" ;;
        "$DATA_ROOT" | "$DATA_ROOT/caches" | "$DATA_ROOT/services" | "$DATA_ROOT/services/"*) chown 0:0 "$path" && chmod go-w "$path" ;;
        *) printf '%s\n' "$OWNED" | grep -qxF -e "$path" || continue
            if [ -h "$path" ]; then rm -f "$path"; else chown 0:0 "$path" && chmod go-w "$path"; fi
            ;;
    esac || exit 1
done || exit 1
sync -f "$DATA_ROOT" 2>/dev/null || :
