# What a release was made of, as the host's own tools state it. Changes nothing.
#
# Input, as shell variables: TAGS (images, one per line), DIRECTORIES (artifacts, one per line), TREE (a git checkout, or
# empty). Output: sections, each a line of the ASCII record separator and the section's name;
# operations/facts/provenance.py parses them.

LC_ALL=C
export LC_ALL
IFS='
'
set -f

. ./sections.sh

section os-release
cat /etc/os-release 2>/dev/null && echo

section packages
# the header's SHA-256 covers the name, the version, every file's digest; the key is that of the signature rpm verified
has rpm && rpm --query --all --queryformat '%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{SHA256HEADER}\t[%{PAYLOADDIGEST}]\t%|RSAHEADER?{%{RSAHEADER:pgpsig}}:{%|SIGPGP?{%{SIGPGP:pgpsig}}|}|\n' 2>/dev/null | sort

section images
has docker && for tag in $TAGS; do
    docker image inspect --format "$tag	{{.Id}}	{{json .RepoDigests}}" "$tag" 2>/dev/null
done

section artifacts
for directory in $DIRECTORIES; do
    [ ! -e "$directory/manifest.json" ] || { part "$directory" && cat "$directory/manifest.json" && echo; }
done

section commit
[ -z "$TREE" ] || [ ! -e "$TREE/.git" ] || git -C "$TREE" rev-parse HEAD 'HEAD^{tree}' 2>/dev/null

section submodules
[ -z "$TREE" ] || [ ! -e "$TREE/.git" ] || git -C "$TREE" submodule --quiet foreach --recursive \
    'printf "%s\t%s\t%s\n" "$displaypath" "$(git rev-parse HEAD)" "$(git config remote.origin.url)"' 2>/dev/null

section end
exit 0
