#!/bin/bash
# In a guest: runs test binaries one after the other, and says so in cargo's words.
#
#   integration/vm/tests.sh STAGE BINARY...      the binaries as paths below STAGE, or patterns of such
set -uo pipefail
shopt -s extglob
stage=$1
shift
# From memory, where a bundle can have a link to the probe, and every user may read.
own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT
chmod 755 "$own"
cp -r "$stage/." "$own"
cd "$own" || exit 1
status=0
for pattern in "$@"; do
  for binary in $pattern; do
    started=$SECONDS
    echo "     Running ${binary##*/} ($binary)"
    "./$binary"
    ended=$?
    echo "     $((SECONDS - started)) s"
    [ $ended = 0 ] || { echo "error: $binary ended with $ended" && status=1; }
  done
done
exit $status
