# Replaces daemon.json at once and restarts docker, in one command: no connection can be lost between the two.
# Standard input: the new file, but for NVIDIA's runtime. Input: UNREAD, a file that is there while docker has not read it.

set -e
umask 022
mkdir -p /etc/docker
# there until docker has read the new file: a host that lost its power in between is not taken for configured
touch "$UNREAD"
new=/etc/docker/.daemon.json.new
cat >"$new"
nvidia-ctk runtime configure --runtime=docker --config="$new"
sync -f "$new"
mv -T "$new" /etc/docker/daemon.json
if systemctl is-active --quiet docker.service; then
    systemctl restart docker.service
else
    # After a bad daemon.json the unit may have used up its starts.
    systemctl reset-failed docker.service 2>/dev/null || :
fi
rm -f "$UNREAD"
