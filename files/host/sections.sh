# Functions of the scripts that report in sections, as operations/facts/host_state.py and its neighbours read them. A script takes
# them with the line ". ./sections.sh", which operations/scripts.py replaces by this file when it sends the script.

section() { printf '\036%s\n' "$1"; }
part() { printf '\037%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }

# PATH: sets `place` to the nearest directory above it that exists; empty for none but /.
nearest() {
    place=$1
    while [ ! -e "$place" ] && [ -n "$place" ]; do place=${place%/*}; done
}
