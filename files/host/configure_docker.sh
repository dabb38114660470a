# Replaces daemon.json atomically and restarts docker, in one command, so that no connection can be lost between the two.
# docker validates the new file before it replaces the old one. If docker still does not start with it, the old file is
# restored, docker starts with it, and so do the units that stopped with docker.
#
# Standard input: the new file, without NVIDIA's runtime. Input: FILE (daemon.json), UNREAD (a file that exists while docker
# has not read FILE), NEW and BEFORE (files beside it), SHA256 of the new file, START_SECONDS (how long servers may take to start),
# NVIDIA (empty on a host without GPUs).

set -e
umask 022
# One line, without the part of a URL before an @, and without docker's prefix that names the tested file.
line() {
    tr '\n\t' '  ' | sed 's#//[^/@ ]*@#//#g; s#unable to configure the Docker daemon with file [^ ]*: ##; s/  */ /g; s/ $//' | cut -c 1-600
}
refuse() {
    rm -f "$NEW"
    echo "daemon.json: $1; docker and its file were left as they are; correct docker_daemon_settings, or $FILE on the host" >&2
    exit 65
}

mkdir -p "${FILE%/*}"
cat >"$NEW"
# a lost connection also ends the text
[ -s "$NEW" ] && { [ -z "${SHA256:-}" ] || [ "$(sha256sum <"$NEW" | cut -c -64)" = "$SHA256" ]; } || {
    rm -f "$NEW"
    echo "daemon.json: found another text than was sent, expected all of it; it was left as it is; run again" >&2
    exit 65
}
[ -z "$NVIDIA" ] || said=$(nvidia-ctk runtime configure --runtime=docker --config="$NEW" 2>&1) ||
    refuse "nvidia-ctk does not enter its runtime: $(printf '%s\n' "$said" | tail -n 1 | line)"

# With the options of docker's own unit, because an option in both the unit and the file is refused too; not if the options
# need a shell. --validate came with 23.0: an older docker reports an unknown flag, and starts nothing.
argv=$(systemctl show --property=ExecStart --value docker.service 2>/dev/null |
    sed -n 's/^{ path=[^ ]* ; argv\[\]=\(.*\) ; ignore_errors=.*/\1/p' | head -n 1)
case $argv in
    *[\"\'\\\$\*?[]*) argv=dockerd ;;
    dockerd | */dockerd | 'dockerd '* | /*/'dockerd '*) ;;
    *) argv=dockerd ;;
esac
# shellcheck disable=SC2086 # words
said=$(timeout 60 $argv --validate --config-file="$NEW" 2>&1 </dev/null) || case $said in
    *'unknown flag: --validate'*) ;;
    *)
        # its log is printed with its final message
        why=$(printf '%s\n' "$said" | grep -v '^time=' | line)
        refuse "dockerd refuses it: ${why:-$(printf '%s\n' "$said" | tail -n 1 | line)}"
        ;;
esac

# BEFORE is what docker has read last. A run that ended before docker had read the new file has left it.
if [ ! -e "$UNREAD" ] || { [ ! -e "$BEFORE" ] && [ ! -h "$BEFORE" ]; }; then
    rm -f "$BEFORE"
    if [ -e "$FILE" ] || [ -h "$FILE" ]; then cp -a -T "$FILE" "$BEFORE"; else : >"$BEFORE"; fi
fi
# exists until docker has read the new file: after a power loss in between, the host does not count as configured
touch "$UNREAD"
sync -f "$NEW"
# systemd stops these units with docker, and starts them again only if docker starts
served=
for unit in $(systemctl show --property=RequiredBy --property=BoundBy --value docker.service 2>/dev/null); do
    case $(systemctl show --property=ActiveState --value "$unit") in
        active | activating | reloading) served="$served $unit" ;;
    esac
done
mv -T "$NEW" "$FILE"
# After a bad daemon.json the unit may have reached its start limit.
systemctl reset-failed docker.service 2>/dev/null || :
began=$(date +%s)
if failed=$(systemctl restart docker.service 2>&1); then
    rm -f "$UNREAD" "$BEFORE"
    exit 0
fi

# docker's own last message; systemd knows only that it ended
reason() {
    journalctl --sync >/dev/null 2>&1 || :
    why=$(journalctl --quiet --no-pager --output=cat --since="@$began" --unit=docker.service _TRANSPORT=stdout 2>/dev/null |
        grep -v -E '^time=[^ ]* level=(debug|info|warning) ' | tail -n 1 | line)
    echo "${why:-$(printf '%s\n' "$failed" | line)}"
}
why=$(reason)
if [ -s "$BEFORE" ]; then mv -T "$BEFORE" "$FILE"; else rm -f "$FILE" "$BEFORE"; fi
systemctl reset-failed docker.service 2>/dev/null || :
began=$(date +%s)
if failed=$(systemctl restart docker.service 2>&1); then
    rm -f "$UNREAD"
    again=docker
    down=
    if [ -n "$served" ]; then
        # shellcheck disable=SC2086 # words
        {
            systemctl reset-failed $served 2>/dev/null || :
            timeout "$START_SECONDS" systemctl start $served 2>/dev/null || :
        }
        for unit in $served; do
            if systemctl is-active --quiet "$unit"; then again="$again, $unit"; else down="$down $unit"; fi
        done
    fi
    then="the old file is back, and with it run: $again${down:+; not yet:$down, see systemctl status}"
else
    then="the old file is back, and docker does not start with it either: $(reason)"
fi
echo "daemon.json: docker did not start with the new file: $why; $then; correct docker_daemon_settings, or $FILE on the host," \
    "before the next run" >&2
exit 1
