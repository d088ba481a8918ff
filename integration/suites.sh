#!/bin/bash
# Runs the suites and counts: every suite's seconds, and at the end one line
# "N passed, N failed, N skipped". Ends with 1 if anything failed.
#
#   integration/suites.sh quick|check|test|v2|integration|containerd|docker-shim|engines-new|peers|bench|soak|fuzz|sanitize|sweep
#   integration/suites.sh runtime|built|shim     the path of the runtime under test / of our builds
#
# RUNTIME, SHIM       another runtime or shim for `integration`, `containerd`; the default is our release build
# CONTAINERD, ENGINES another containerd, or the root of another Debian with engines (integration/engines.sh)
# CI=true             a skip fails, unless EXPECTED_SKIPS, a list with commas, names it; in a virtual
#                     machine EXPECTED_SKIPS_UML, EXPECTED_SKIPS_QEMU or EXPECTED_SKIPS_SELINUX does
set -uo pipefail
# Started in the background, or by nohup, some signals are ignored, and every container would inherit that.
[ "${DEFAULT_SIGNALS:-}" = yes ] || DEFAULT_SIGNALS=yes exec env --default-signal "$0" "$@"
cd "$(dirname "$0")/.." || exit 1

export CARGO_TERM_COLOR=never # the counting reads the output
PATH=$PWD/.cache/bin:$PATH:/usr/sbin:/sbin
max_bytes=2500000
max_shim_bytes=3000000

target=${CARGO_TARGET_DIR:-$PWD/target}
triple=$(rustc -vV | sed -n 's/^host: //p')
built=$target/$triple/release/tare
guarded=$target/$triple/guard/tare
built_shim=$target/$triple/release/containerd-shim-tare-v2
runtime=${RUNTIME:-$built}
logs=$target/suites

passed=0 failed=0 skipped=0
table=()

# suite NAME COMMAND...: runs it, counts by what the test runners printed. A command that is no
# test runner counts as one test.
suite() {
  local name=$1 start=$SECONDS status=0 counts ok bad skips
  shift
  printf '\n== %s\n' "$name"
  export SKIPS=$logs/$name.skips
  : > "$SKIPS"
  # Into a file, and shown from there: the end of a pipe would be the end of the last process that a
  # failing test has left behind, too.
  : > "$logs/$name.log"
  tail -n +1 -f "$logs/$name.log" &
  local shown=$!
  "$@" < /dev/null > "$logs/$name.log" 2>&1 || status=1
  sleep 0.5
  kill $shown
  wait $shown
  counts=$(count "$logs/$name.log")
  read -r ok bad <<< "$counts"
  skips=$(sort -u "$SKIPS" | wc -l)
  # A test that skipped itself returned, so its runner counted it as passed.
  ok=$((ok > skips ? ok - skips : 0))
  if [ $status != 0 ]; then
    bad=$((bad > 0 ? bad : 1))
  elif [ $((ok + bad + skips)) = 0 ]; then
    ok=1
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skips))
  table+=("$(printf '%-22s %5d s %6d passed %4d failed %4d skipped' "$name" $((SECONDS - start)) $ok "$bad" "$skips")")
  return $status
}

# Sums libtest's "test result" lines. A test binary with a main of its own prints none: it is one
# test, and if it failed, cargo's status says so.
count() {
  awk '
    /^ +Running (unittests )?[^ ]+ \(/ || /^ +Doc-tests / { binaries++ }
    /^test result: / {
      results++
      for (i = 2; i <= NF; i++) {
        if ($i == "passed;") ok += $(i - 1)
        if ($i == "failed;") bad += $(i - 1)
      }
    }
    END { print ok + (binaries > results ? binaries - results : 0), bad + 0 }' "$1"
}

# skip WHAT REASON: for what no test runner runs.
skip() {
  echo "SKIP $1: $2" | tee -a "$SKIPS"
  [ "${CI:-}" != true ] || case ",${EXPECTED_SKIPS:-}," in *",$1,"*) ;; *) return 1 ;; esac
}

finish() {
  printf '\n'
  printf '%s\n' "${table[@]}"
  printf '%-22s %5d s\n' all $SECONDS
  if [ $skipped -gt 0 ]; then
    printf '\n'
    cat "$logs"/*.skips | sort -u
  fi
  printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
  [ $failed = 0 ]
}

# --- what is checked without running a container

lints() {
  cargo clippy --version > /dev/null 2>&1 || { skip clippy "cargo clippy is not installed"; return; }
  cargo clippy --workspace --all-targets --all-features -- -D warnings
}

dependencies() {
  cargo deny --all-features check --hide-inclusion-graph bans licenses sources
}

# Advisories stand in a database on GitHub.
advisories() {
  cargo deny fetch db > "$logs/advisories.fetch" 2>&1 ||
    { skip advisories "the advisory database cannot be fetched"; return; }
  cargo deny check --disable-fetch advisories
}

scripts() {
  git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck
}

# One static file, and small; and without the functions for which glibc loads libraries of the
# host at run time (getpwnam, getgrnam, getaddrinfo), which a static program must not do. The
# binary is stripped; each of them brings the path of its configuration along, and that the path
# shows is proved on a program that calls one.
binary() { # FILE BYTES
  local size nss=/etc/nsswitch.conf control=$logs/nss-control
  size=$(stat -c %s "$1") || return 1
  echo "$1: $size bytes"
  [ "$size" -le "$2" ] || { echo "more than $2 bytes"; return 1; }
  if readelf -lW "$1" | grep -E 'INTERP|DYNAMIC'; then
    echo "not static"
    return 1
  fi
  printf '#include <pwd.h>\nint main(void) { return getpwnam("root") == 0; }\n' |
    gcc -static -x c - -o "$control" 2> /dev/null || return 1
  grep -qaF $nss "$control" || { echo "the control does not show $nss"; return 1; }
  if grep -qaF $nss "$1"; then
    echo "getpwnam, getgrnam, getaddrinfo or another function of NSS is linked (it reads $nss)"
    return 1
  fi
}

# --- what runs on control groups v2, all of them, in virtual machines

# In the order in which they run; cgroups_v1 would skip all its tests.
stage_tests() {
  local package=$1 binary
  mkdir -p "$stage/$package/deps"
  cargo test -p "$package" --no-run "${@:2}" 2>&1 | tee "$logs/stage.$package" |
    sed -n 's/^ *Executable \(unittests \)\?\([^ ]*\) (\(.*\))$/\3/p' | while read -r binary; do
    # Most of a test binary is for a debugger.
    strip -o "$stage/$package/deps/$(basename "${binary%-*}")" "$binary"
  done
  [ "${PIPESTATUS[0]}" = 0 ] || { cat "$logs/stage.$package"; return 1; }
}

# programs FOLDER: the C programs of the benchmark.
programs() {
  local name
  mkdir -p "$1"
  for name in floor idle; do
    gcc -O2 -Wall -static "integration/bench/$name.c" -o "$1/$name" || return 1
  done
}

# By itself: it is no part of the specification.
stage_faults() {
  mv "$stage/spec-tests" "$stage/spec-tests.all" &&
    stage_tests spec-tests --features faults --test faults &&
    mv "$stage/spec-tests" "$stage/faults" && mv "$stage/spec-tests.all" "$stage/spec-tests"
}

# What goes into the machines, in a folder that any user may read: the test binaries, the runtime.
stage() {
  chmod 755 "$stage"
  stage_tests spec-tests && stage_tests tare && stage_faults && stage_tests integration --test leaks \
    --test small_limits --test soak --test shim_stories --test shim_cgroups --test shim_systemd || return 1
  rm "$stage/spec-tests/deps/cgroups_v1"
  # For one who is not root, and skipped by root.
  mkdir -p "$stage/of-user/deps"
  mv "$stage/spec-tests/deps/delegated" "$stage/of-user/deps/"
  cp "$stage/spec-tests/deps/cgroups_systemd" "$stage/of-user/deps/"
  strip -o "$stage/spec-tests/probe" "$target/$triple/debug/probe" &&
    cp "$stage/spec-tests/probe" "$stage/of-user/" && cp "$stage/spec-tests/probe" "$stage/faults/" &&
    programs "$stage/bin" && cp "$built" "$built_shim" "$stage/bin/" && cp integration/vm/tests.sh "$stage/"
}

# in_vm RUNTIME uml|qemu OPTIONS... -- BINARY...: the binaries as patterns below the stage. What `need`
# finds missing there must be expected of that machine.
in_vm() {
  local runtime=$1 vm=$2 machine=$2 options=() expected skips=$SKIPS status=0
  shift 2
  while [ "$1" != -- ]; do
    [ "$1" != --selinux ] || machine=selinux
    options+=("$1")
    shift
  done
  shift
  expected=EXPECTED_SKIPS_${machine^^}
  # Where an ordinary user can write to it.
  : > "$stage/skips"
  chmod 666 "$stage/skips"
  SKIPS=$stage/skips RUNTIME=$runtime SHIM=$stage/bin/containerd-shim-tare-v2 EXPECTED_SKIPS=${!expected:-} \
    BENCH_PROGRAMS=$stage/bin integration/vm/run.sh --vm "$vm" --share "$stage" --share "$PWD" "${options[@]}" --env SKIPS --env RUNTIME \
    --env SHIM --env CI --env FAULTS --env EXPECTED_SKIPS --env BENCH_PROGRAMS --env SOAK -- \
    "$stage/tests.sh" "$stage" "$@" || status=1
  cat "$stage/skips" >> "$skips"
  return $status
}

# What has to do with neither control groups nor systemd nor what UML lacks; emulated it takes minutes.
elsewhere='attacks|bad_input|cli|hooks|masked_paths|mounts|musts|process_*|races|rlimits|rootfs|sealed|sysctl'

# The kernel's part of our own tests, next to those of the specification. UML goes down when a process is killed in
# the middle of clone(2) (flush_tlb_mm of an address space that is half made), so `leaks` is for the other kernel.
kernel_tests=('tare/deps/cgroup*' tare/deps/child tare/deps/foreground tare/deps/seal)

# Each of these ends within its seconds on two busy processors, or hangs.
v2() {
  suite v2-stage stage || return 1
  suite v2-uml in_vm "$stage/bin/tare" uml --seconds 1200 -- \
    'spec-tests/deps/!(cgroups_systemd)' "${kernel_tests[@]}" integration/deps/small_limits integration/deps/soak \
    'integration/deps/shim_!(systemd)'
  FAULTS=${FAULTS:-5} suite v2-faults in_vm "$stage/bin/tare" uml --seconds 360 -- faults/deps/faults
  suite v2-systemd in_vm "$stage/bin/tare" qemu --init systemd --seconds 1500 -- \
    "spec-tests/deps/!($elsewhere)" "${kernel_tests[@]}" integration/deps/leaks 'integration/deps/shim_!(stories)'
  suite v2-selinux in_vm "$stage/bin/tare" qemu --selinux --seconds 180 -- spec-tests/deps/labels
  suite v2-user in_vm "$stage/bin/tare" uml --user --seconds 120 -- of-user/deps/delegated
  suite v2-user-systemd in_vm "$stage/bin/tare" qemu --init systemd --user --seconds 480 -- 'of-user/deps/*'
}

# --- groups of suites

# Nothing is judged by an older binary when the build fails.
build() { suite build cargo build --release -p tare -p containerd-shim-tare-v2 || { finish; exit 1; }; }

check() {
  suite format cargo fmt --all --check
  suite lints lints
  suite layers cargo test --quiet -p tare --test layers --test unsafe_code
  suite dependencies dependencies
  suite advisories advisories
  suite scripts scripts
  suite binary binary "$built" $max_bytes
  suite binary-shim binary "$built_shim" $max_shim_bytes
}

spec() { RUNTIME=$1 cargo test -p spec-tests --no-fail-fast "${@:2}"; }
engines() { RUNTIME=$runtime cargo test -p integration --no-fail-fast "$@"; }

# A fault for each system call in turn; FAULTS=full: every fault for every one of them.
faults() {
  RUNTIME=$built cargo test -p spec-tests --features faults --test faults
}

guard() {
  cargo build -p tare --profile guard --features alloc-guard && spec "$guarded"
}

# On a host of cgroup v1 the other version is tried too, as far as it can be shown there.
spec_v2() {
  RUNTIME=$built integration/v2-view.sh cargo test -p spec-tests --no-fail-fast
}

# Each target so many seconds, in a build that tells where an input leads. The tests of the engine first: a search
# that finds nothing because it is blind would look like success.
fuzz() {
  export RUSTC_WRAPPER=$PWD/integration/fuzz/instrument.sh CARGO_TARGET_DIR=$target/fuzz
  # Not the fuzzer's own tests: they are of a search that no counters guide, and `test` has them.
  FUZZ_SECONDS=${FUZZ_SECONDS:-60} cargo test --profile fuzz --no-fail-fast -p tare -p containerd-shim-tare-v2 --lib -- \
    fuzz:: --test-threads=1 --nocapture
}

# nightly NAME COMPONENT COMMAND...: what only a nightly compiler can do, where there is one.
nightly() {
  rustup +nightly component list 2> /dev/null | grep -q "^$2.*(installed)" ||
    { skip "$1" "there is no nightly compiler with $2 (rustup component add --toolchain nightly $2)"; return; }
  "${@:3}"
}

# The tests whose code makes no system call that Miri lacks: parsers, packets, control messages, programs of BPF.
# What reads golden files or waits for others is left out, and targets of fuzzing are too long for an interpreter.
miri_tests=(sys::bpf sys::slots sys::scm::tests::what_is_put sys::keyctl::tests::the_permissions process::protocol
  cgroup::systemd::wire::tests::values cgroup::systemd::wire::tests::the_bytes cgroup::systemd::annotation::tests::values
  cgroup::stats::tests cgroup::devices::tests state::time::tests::moments config::id host::mounts::tests::escapes
  host::mounts::tests::of_proc privilege::tests privilege::apply::tests rootfs::options)
miri() {
  MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p tare --lib --no-fail-fast -- "${miri_tests[@]}" \
    --skip fuzz:: &&
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p containerd-shim-tare-v2 --lib --no-fail-fast -- \
      wire:: options:: io::uri mount::options bootstrap::params bootstrap::words sys::memory::tests::only --skip fuzz:: --skip too_long
}

# AddressSanitizer is no part of a static program; and it finds what is not given back.
address() {
  RUSTFLAGS='-Zsanitizer=address' CARGO_TARGET_DIR=$target/asan \
    cargo +nightly test -p tare -p containerd-shim-tare-v2 --lib --no-fail-fast
}

on_crun() {
  local view=()
  [ ! -d /sys/fs/cgroup/unified ] || view=(integration/v1-view.sh)
  RUNTIME=$(command -v crun) "${view[@]}" cargo test -p spec-tests --no-fail-fast
}

# By `cargo install` (integration/install.sh); the known attacks alone.
on_youki() {
  command -v youki > /dev/null || { skip youki "it could not be built"; return; }
  spec "$(command -v youki)" --test attacks
}

# Where Debian's containerd is there; crun wants one version of cgroups.
bench_shim() {
  command -v containerd > /dev/null || return 0
  # containerd's state is on a tmpfs (/run), wherever this machine has its /tmp.
  local view=() TMPDIR=${TMPDIR:-/tmp}
  [ "$(stat -fc %T /dev/shm)" != tmpfs ] || TMPDIR=/dev/shm
  export TMPDIR
  [ ! -d /sys/fs/cgroup/unified ] || view=(integration/v1-view.sh)
  cargo build --quiet --release -p containerd-shim-tare-v2 &&
    cargo build --quiet -p integration --bin bench-shim &&
    SHIM=${SHIM:-$built_shim} "${view[@]}" "$target/$triple/debug/bench-shim" --rounds "${ROUNDS:-100}" \
      --idle "$stage/idle" "$(command -v runc)" "$(command -v crun)"
}

[ "${1:-}" = runtime ] && { echo "$runtime"; exit; }
[ "${1:-}" = built ] && { echo "$built"; exit; }
[ "${1:-}" = shim ] && { echo "$built_shim"; exit; }
rm -rf "$logs"
mkdir -p "$logs"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

case ${1:-} in
  check)
    build
    check
    ;;
  quick)
    suite unit cargo test -p tare --no-fail-fast
    build
    suite spec-smoke spec "$built" --test lifecycle --test state
    ;;
  test)
    runtime=$built
    build
    check
    suite unit cargo test -p tare -p containerd-shim-tare-v2 -p fuzz --no-fail-fast
    suite spec spec "$built"
    [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || suite spec-v2 spec_v2
    suite spec-guard guard
    suite faults faults
    v2
    suite integration engines
    ;;
  v2)
    build
    v2
    ;;
  integration)
    [ -n "${RUNTIME:-}" ] || build
    suite integration engines
    ;;
  containerd)
    [ -n "${RUNTIME:-}" ] || build
    suite containerd engines --test containerd --test cri
    ;;
  docker-shim)
    [ -n "${RUNTIME:-}" ] || build
    export DOCKER_CASES=${DOCKER_CASES:-.}
    suite docker-shim engines --test docker with_the_shim
    ;;
  engines-new)
    [ -n "${RUNTIME:-}" ] || build
    ENGINES=$(integration/engines.sh "${SUITE:-trixie}") || exit 1
    export ENGINES
    suite "containerd-${SUITE:-trixie}" engines --test containerd --test cri --test readme
    suite "docker-${SUITE:-trixie}" engines --test docker with_the_shim
    ;;
  peers)
    suite spec-runc spec "$(command -v runc)"
    suite spec-crun on_crun
    suite attacks-youki on_youki
    if suite v2-stage stage; then
      for peer in runc crun; do
        suite v2-uml-$peer in_vm $peer uml --seconds 900 -- 'spec-tests/deps/!(cgroups_systemd)'
      done
    fi
    ;;
  fuzz)
    suite fuzz fuzz
    ;;
  sanitize)
    suite miri nightly miri miri miri
    suite address nightly address rust-src address
    ;;
  sweep)
    build
    export FAULTS=full
    suite faults faults
    ;;
  soak)
    build
    export SOAK=${SOAK:-1000}
    suite soak engines --test soak
    suite soak-shim engines --test shim_soak
    export ATTACK_SECONDS=${ATTACK_SECONDS:-30}
    suite soak-attacks spec "$built" --test attacks
    suite v2-stage stage && suite soak-uml in_vm "$stage/bin/tare" uml --seconds 900 -- integration/deps/soak
    ;;
  bench)
    cargo build --quiet --release -p tare && cargo build --quiet -p integration --bin bench &&
      programs "$stage" && cp "$target/$triple/debug/bench" "$stage/" && cp "$runtime" "$stage/tare" || exit 1
    chmod 755 "$stage"
    # How long the filter of Docker's default profile takes to be made.
    cargo test --quiet --profile guard -p tare --test seccomp docker_s_profile -- --nocapture |
      grep ' instructions in '
    options=(--floor "$stage/floor" --idle "$stage/idle" --rounds "${ROUNDS:-100}")
    # The state of containers is on a tmpfs (/run), wherever this machine has its /tmp; in the other one it is.
    (
      [ "$(stat -fc %T /dev/shm)" != tmpfs ] || export TMPDIR=/dev/shm
      "$stage/bench" "${options[@]}" --listed 500 "$runtime" "$(command -v crun)" "$(command -v runc)"
    ) && bench_shim && integration/vm/run.sh --vm uml --share "$stage" --seconds 1200 -- "$stage/bench" "${options[@]}" \
      --machine "User Mode Linux: read the ratios" "$stage/tare" /usr/bin/crun /usr/sbin/runc
    exit
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
finish
