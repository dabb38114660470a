# Runs a command of the package manager, and notes in the host's record which packages came and which went with it.
#
# Usage: sh record_packages.sh DIRECTORY COMMAND [ARGUMENT]...     DIRECTORY: the host's record; where there is none, nothing is noted
#
# `came` has the names of packages that this tool brought and nobody has removed since; a key of rpm by its full name. `went` has
# name, tab and full name of those that had to make room. A command that is killed, or has no
# room for the record, leaves the list from before it: the next one notes what became of both.

directory=$1
shift
[ -d "$directory" ] || exec "$@"

# FILE: what standard input says replaces it
replaced() { cat >"$directory/.$1.new" && mv -T "$directory/.$1.new" "$directory/$1"; }
# FILE: name, full name, time of the installation. Every key has the name gpg-pubkey. Half a list would make other people's packages
# ours: without all of rpm's words there is none.
listed() {
    rpm -qa --qf '%{NAME}\t%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\t%{INSTALLTIME}\n' >"$directory/.rpm" 2>/dev/null && [ -s "$directory/.rpm" ] &&
        sed 's/^gpg-pubkey\t\([^.\t]*\)\.[^\t]*/\1\t\1/' "$directory/.rpm" | LC_ALL=C sort -u | replaced "$1"
}

touch "$directory/came" "$directory/went" 2>/dev/null || exec "$@"
# seconds since 1970 in which a package must have come to be ours: a killed command's, and those of this one
now=$(date +%s)
killed=
if [ -s "$directory/.before" ]; then killed=$(stat -c %Y "$directory/.before"); fi
# on a full disk the command may be what makes room
[ -n "$killed" ] || listed .before || exec "$@"
"$@"
code=$?
listed .after || exit "$code"
# of each list, a line of its own: awk cannot tell one empty file from the next by its number
{
    sed 's/^/before\t/' "$directory/.before"
    sed 's/^/after\t/' "$directory/.after"
    sed 's/^/came\t/' "$directory/came"
    sed 's/^/went\t/' "$directory/went"
} | awk -F '\t' -v came="$directory/.came.next" -v went="$directory/.went.next" -v now="$now" -v killed="$killed" '
    { seen[$1, $2] = $3 == "" ? $2 : $3; time[$1, $2] = $4; names[$2] }
    # what an administrator has installed between a command that was killed and this one is not ours
    function ours(name) {
        if (killed == "") return 1
        at = time["after", name] + 0
        return at >= now || (at >= killed && at <= killed + 3600)
    }
    END {
        printf "" >came
        printf "" >went
        for (name in names) {
            had = (("before", name) in seen)
            has = (("after", name) in seen)
            if (has && ((("came", name) in seen) || (!had && !(("went", name) in seen) && ours(name)))) print name >came
            if (!has && (("went", name) in seen)) print name "\t" seen["went", name] >went
            else if (!has && had && !(("came", name) in seen)) print name "\t" seen["before", name] >went
        }
    }' || exit "$code"
for list in came went; do
    LC_ALL=C sort "$directory/.$list.next" | replaced "$list" || exit "$code"
    rm -f "$directory/.$list.next"
done
rm -f "$directory/.before" "$directory/.after" "$directory/.rpm"
exit "$code"
