# Checks a monitoring server's configuration and lets its programs read it. Standard input: a tar archive in base64.
#
# Input: ROOT (the data root), KEY (the configuration's name), SHA256 of the standard input, MOUNT (where the programs find what they read), LABEL (of their volumes, for SELinux), ALERTS_FILE;
# PROMETHEUS, ALERTMANAGER (the containers), each with _IMAGE (a file that holds the image's id), _USER, _URL (its page of metrics)
# and _KEY (what its container is to be made from).

set -u
config=$ROOT/config
fresh=$config/.new
# on tmpfs: secrets are in it
sent=/run/monitoring-config.sent
refuse() {
    rm -rf "$fresh" "$sent"
    echo "monitoring: $1; what the programs read was left as it is" >&2
    exit 65
}
# One line of what a program says.
line() {
    tr '\n\t' '  ' | sed 's#//[^/@ ]*@#//#g; s/  */ /g; s/ $//' | cut -c 1-600
}

umask 022
mkdir -p "$config" || exit 1
(umask 077 && cat >"$sent")
[ "$(sha256sum <"$sent" | cut -c -64)" = "$SHA256" ] ||
    refuse "configuration: found another text than was sent, expected all of it; run again"
rm -rf "$fresh"
mkdir "$fresh" && base64 -d <"$sent" | tar -C "$fresh" -xpf - --same-owner --numeric-owner ||
    refuse "configuration: it could not be unpacked to $fresh; see whether the disk is full"
rm -f "$sent"

# NAME of the program's tool, its arguments; runs it in the image that will read the files
checked() {
    image=$(cat "$1") || refuse "image: found no record $1, expected the id of a pulled image; run again"
    user=$2
    shift 2
    tool=$1
    shift
    docker rm --force monitoring-check >/dev/null 2>&1
    said=$(timeout 120 docker run --rm --name monitoring-check --network none --read-only --cap-drop ALL --security-opt no-new-privileges --pull never \
        --user "$user:$user" --volume "$config:$MOUNT:ro$LABEL" --entrypoint "$tool" "$image" "$@" 2>&1) ||
        refuse "configuration: ${tool##*/} says: $({ printf '%s\n' "$said" | grep -i -E 'fail|error' || printf '%s\n' "$said" | tail -n 1; } | line)"
}
checked "$PROMETHEUS_IMAGE" "$PROMETHEUS_USER" /bin/promtool check config "$MOUNT/.new/prometheus.yml"
checked "$ALERTMANAGER_IMAGE" "$ALERTMANAGER_USER" /bin/amtool check-config "$MOUNT/.new/$ALERTS_FILE"

before=$(readlink "$config/current") || before=
# a configuration that was changed on the host is replaced by another directory of its name
rm -rf "$config/.old"
[ ! -e "$config/$KEY" ] || mv -T "$config/$KEY" "$config/.old" || exit 1
mv -T "$fresh" "$config/$KEY" || exit 1
if [ "$before" = "$KEY" ] && [ -e "$config/.old" ]; then
    # to go back to, if a program does not take the new one
    before=.old
fi
point() {
    ln -sfn "$1" "$config/.current" && mv -T "$config/.current" "$config/current" && sync -f "$config"
}
point "$KEY" || exit 1

# NAME, its page, its metrics' prefix, its key: tells a program that runs to read its files, and waits for its word
told() {
    # one of another image, or on another port, is started again by the steps after this one, and reads them then
    [ "$(cat "/run/$1" 2>/dev/null)" = "$4" ] || return 0
    [ "$(docker inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ] || return 0
    asked=$(date +%s)
    docker kill --signal HUP "$1" >/dev/null || return 1
    end=$((asked + 60))
    until page=$(curl --silent --fail --max-time 10 "$2") &&
        when=$(printf '%s\n' "$page" | sed -n "s/^$3_config_last_reload_success_timestamp_seconds //p") &&
        [ -n "$when" ] && awk -v when="$when" -v asked="$asked" 'BEGIN { exit !(when + 1 > asked) }'; do
        # a word of the last reload is not one of this
        [ "$(date +%s)" -lt $((asked + 3)) ] ||
            ! printf '%s\n' "$page" | grep -q "^$3_config_last_reload_successful 0" || return 1
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.5
    done
}
failed=
told "$PROMETHEUS" "$PROMETHEUS_URL" prometheus "$PROMETHEUS_KEY" || failed=$PROMETHEUS
[ -n "$failed" ] || told "$ALERTMANAGER" "$ALERTMANAGER_URL" alertmanager "$ALERTMANAGER_KEY" || failed=$ALERTMANAGER
if [ -n "$failed" ]; then
    then="there was none before"
    if [ -n "$before" ] && point "$before"; then
        told "$PROMETHEUS" "$PROMETHEUS_URL" prometheus "$PROMETHEUS_KEY"
        told "$ALERTMANAGER" "$ALERTMANAGER_URL" alertmanager "$ALERTMANAGER_KEY"
        then="the configuration before it is back"
    fi
    echo "monitoring: $failed did not take the new configuration; $then; see: journalctl --unit $failed" >&2
    exit 1
fi
# of earlier ones nothing is kept but the last
for path in "$config"/* "$config/.old"; do
    case ${path##*/} in
        current | "$KEY" | "$before") ;;
        *) rm -rf "$path" ;;
    esac
done
[ "$before" != .old ] || rm -rf "$config/.old"
