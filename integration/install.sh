#!/bin/bash
# Installs what a purpose needs and this machine lacks; silent when nothing is missing.
#
#   integration/install.sh build|check|test|engines|peers|bench|vm
#
# Debian's packages only (apt-get, as root); cargo-deny and youki come from crates.io. Without root,
# or on another distribution, it says what is missing and ends with 1.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-}
packages=()

# need COMMAND PACKAGE...: the packages, unless the command is there.
need() {
  local command=$1
  shift
  PATH=$PATH:/usr/sbin:/sbin command -v "$command" > /dev/null || packages+=("$@")
}

# need_file FILE PACKAGE: for what is no command, or must be Debian's one.
need_file() {
  [ -e "$1" ] || packages+=("$2")
}

at_least() {
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

need_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version 2> /dev/null | cut -d' ' -f2 || true)
  if [ -z "$found" ] || ! at_least "$wanted" "$found"; then
    # Debian 12's own rustc is 1.63; the -web packages follow the browsers and are recent.
    packages+=(rustc-web cargo-web)
    debian_rust=1
  fi
  need_file /etc/ssl/certs/ca-certificates.crt ca-certificates # for crates.io
  need gcc gcc
  # The static libc, against which the runtime is linked.
  [ -n "$(find /usr/lib /usr/lib64 -name libc.a -print -quit 2> /dev/null)" ] || packages+=(libc6-dev)
}

need_check() {
  if [ -n "${debian_rust:-}" ]; then
    packages+=(rustfmt-web rust-web-clippy)
  else
    need cargo-fmt rustfmt-web
    need cargo-clippy rust-web-clippy
  fi
  need shellcheck shellcheck
}

need_deny() {
  command -v cargo-deny > /dev/null || [ -x .cache/bin/cargo-deny ] && return
  echo "install: cargo-deny, once" >&2
  # Unoptimized it takes seconds more to run and minutes less to build.
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
    --root .cache --target-dir .cache/cargo-deny cargo-deny
  rm -rf .cache/cargo-deny
}

need_engines() {
  need_file /usr/bin/docker docker.io # not another client of that name
  need dockerd docker.io
  need docker-registry docker-registry
  need containerd containerd
  need containerd-shim-runc-v2 containerd
  need podman podman
  need conmon conmon
  need newuidmap uidmap
  need slirp4netns slirp4netns
  need iptables iptables
  need ip iproute2
  need busybox busybox-static
  need mmdebstrap mmdebstrap
  need curl curl
  need_file /usr/bin/python3 python3
  need unshare util-linux
  need_peers
}

# The machines themselves are fetched by integration/vm/prepare.sh; this is what that needs.
need_vm() {
  need_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
  need perl perl
  need tar tar
  need xz xz-utils
  need unshare util-linux
  need setpriv util-linux
  need strip binutils
}

# The oracle of our own filters (runtime/tests/seccomp/oracle.py).
need_seccomp() {
  [ -n "$(find /usr/lib /usr/lib64 /lib -name libseccomp.so.2 -print -quit 2> /dev/null)" ] || packages+=(libseccomp2)
}

need_peers() {
  need runc runc
  need crun crun
}

# No distribution here has it. Without seccomp, so without a C library; what it is wanted for needs none.
need_youki() {
  local wanted=0.7.0
  [ "$(.cache/bin/youki --version 2> /dev/null | awk 'NR == 1 { print $NF }')" = $wanted ] && return
  echo "install: youki, once" >&2
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --force \
    --version $wanted --no-default-features --features v1,v2,systemd \
    --root .cache --target-dir .cache/youki youki || echo "install: youki cannot be built" >&2
  rm -rf .cache/youki
}

case $purpose in
  build) need_rust ;;
  check) need_rust; need_check ;;
  peers | bench) need_rust; need_peers; need_vm ;;
  vm) need_rust; need_vm ;;
  engines) need_rust; need_engines ;;
  test) need_rust; need_check; need_engines; need_vm; need_seccomp; need strace strace ;;
  *)
    echo "usage: $0 build|check|test|engines|peers|bench|vm" >&2
    exit 2
    ;;
esac

if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "install: missing here: ${packages[*]} (names of Debian 12's packages; as root they are installed)" >&2
    exit 1
  fi
  echo "install: ${packages[*]}" >&2
  mkdir -p .cache
  log=.cache/install.log
  # No service of an engine may start: the tests start their own daemons, in their own namespaces.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get -qq update && apt-get -qq -y --no-install-recommends install "${packages[@]}"; } > $log 2>&1; then
    tail -n 20 $log >&2
    echo "install: apt-get failed" >&2
    exit 1
  fi
fi

case $purpose in
  check | test) need_deny ;;
  peers) need_youki ;;
esac
