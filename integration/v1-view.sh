#!/bin/bash
# Runs a command where /sys/fs/cgroup shows cgroup v1 alone. crun refuses a host that has both
# versions; a mount over the second is not enough, for a runtime looks for the directory.
#
#   integration/v1-view.sh COMMAND [ARGUMENT...]
set -euo pipefail
if [ "${V1_VIEW:-}" != inside ]; then
  V1_VIEW=inside exec unshare --mount --propagation private "$0" "$@"
fi
unset V1_VIEW
view=$(mktemp -d)
mount -t tmpfs -o mode=755 none "$view"
for entry in /sys/fs/cgroup/*; do
  name=${entry##*/}
  if [ "$name" = unified ]; then
    continue
  elif [ -L "$entry" ]; then
    cp -P "$entry" "$view/$name"
  else
    mkdir "$view/$name"
    mount --bind "$entry" "$view/$name"
  fi
done
umount -R /sys/fs/cgroup
mount --move "$view" /sys/fs/cgroup
rmdir "$view"
exec "$@"
