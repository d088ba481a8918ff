#!/bin/bash
# The engines of another Debian: a root filesystem made by mmdebstrap, once, under .cache/. Tests lay its /usr over
# this machine's in namespaces of their own (ENGINES=DIR, docker_commands.sh --engines DIR).
#
#   integration/engines.sh trixie|sid      prints the directory
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:?a suite of Debian}
# Another text of this file is another root.
root=$PWD/.cache/engines-$suite-$(sha256sum < integration/engines.sh | cut -c1-8)
packages=containerd,docker.io,docker-cli,docker-buildx,docker-registry,podman,runc,crun,iptables,iproute2,ca-certificates
packages+=,busybox-static,curl,python3,procps,bsdutils,util-linux,mount,git
if [ ! -d "$root" ]; then
  mkdir -p .cache
  rm -rf --one-file-system .cache/engines-"$suite"*
  new=$(mktemp -d .cache/engines.XXXXXX)
  trap 'rm -rf --one-file-system "$new"' EXIT
  # As apt reaches archives here: by a proxy, or a mirror that lags.
  apt-config dump | grep -E '^Acquire::(http|https|ForceIPv4|Check-)' > "$new/apt.conf" || true
  mmdebstrap --quiet --variant=apt --include="$packages" --aptopt="$new/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$new/root" >&2 ||
    { echo "engines: no root of Debian $suite: does the archive that apt uses here have it?" >&2; exit 1; }
  mv "$new/root" "$root"
fi
echo "$root"
