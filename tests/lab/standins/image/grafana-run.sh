#!/bin/sh
# As the entrypoint of Grafana's image: what is in the file that GF_…__FILE names becomes GF_…, then the server begins.
set -e

[ -w "$GF_PATHS_DATA" ] || echo "GF_PATHS_DATA='$GF_PATHS_DATA' is not writable."
[ -d "$GF_PATHS_PLUGINS" ] || mkdir "$GF_PATHS_PLUGINS"

for name in $(env | sed -n 's/^\(GF_[A-Za-z0-9_]*\)__FILE=..*/\1/p'); do
    value='' path=''
    eval "value=\${$name-} path=\$${name}__FILE"
    if [ -n "$value" ]; then
        echo "ERROR: Both $name and ${name}__FILE are set (but are exclusive)" >&2
        exit 1
    fi
    echo "Getting secret $name from $path"
    # a file that cannot be read is an empty setting, which is the default: the real one goes on, too
    export "$name=$(cat "$path")"
    unset "${name}__FILE"
done

exec grafana server --homepath="$GF_PATHS_HOME" --config="$GF_PATHS_CONFIG" --packaging=docker "$@"
