# Records what was measured of a proven release: DATA_ROOT, RELEASE (an id), MEASURED (key=value, one line), GPUS (indices, or
# all). Runs when no other server of ours runs, so that the memory in use is this one's. Earlier values stay if they were not
# measured this time.

set -eu
mkdir -p "$DATA_ROOT/measurements"
cd "$DATA_ROOT/measurements"
memory=$(nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits 2>/dev/null | awk -F', *' -v wanted=",$GPUS," \
    '(wanted == ",all," || index(wanted, "," $1 ",")) && $2 ~ /^[0-9]+$/ && $2 > most { most = $2 } END { print most + 0 }') || :
[ -z "$memory" ] || MEASURED="$MEASURED gpu_mib=$memory"
for pair in $(cat "$RELEASE" 2>/dev/null); do
    case " $MEASURED " in *" ${pair%%=*}="*) ;; *) MEASURED="$MEASURED $pair" ;; esac
done
printf '%s\n' "${MEASURED# }" >".$RELEASE.new"
mv -T ".$RELEASE.new" "$RELEASE"
