#!/bin/bash
# Runs a command where /sys/fs/cgroup is cgroup v2 alone: a mount of it in a mount namespace of its
# own. On a host of v1 it has the controllers that v1 does not use, so hardly any limits.
#
#   integration/v2-view.sh COMMAND [ARGUMENT...]
set -euo pipefail
# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -c '
  umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' sh "$@"
