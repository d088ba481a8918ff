#!/bin/bash
# Runs one command in a virtual machine whose only control groups are v2, and ends as it ended; its
# stdout and stderr come apart. What it writes is dropped, but for what it writes in shared folders.
#
#   integration/vm/run.sh [--vm uml|qemu] [--init systemd|none] [--user] [--share FOLDER]...
#                         [--selinux] [--env NAME]... [--seconds N] [--memory MIB] [--] COMMAND [ARGUMENT]...
#
# --vm uml         User Mode Linux: fast; one processor; no cpuset, hugetlb, PSI, time namespaces
# --vm qemu        Debian's cloud kernel, emulated: all of them, and two processors. This is the default
# --init systemd   systemd is PID 1, the command is a service with a delegated cgroup
# --init none      PID 1 is a script, the command is in the root cgroup. This is the default
# --user           the command runs as user 1000 (subordinate ids 100000-165535): with systemd in a
#                  delegated scope of the user's manager, else in the delegated cgroup /user/job
# --selinux        SELinux, permissive, with the policy of guest/selinux.conf, where AppArmor would be (qemu only)
# --share FOLDER   is there too, at the same path, to read and to write; with uml this host's one is meant
# --env NAME       the command gets this variable of ours
# --seconds N      how long the command may take, 300 otherwise
#
# Ends with 124 if the time was over, 123 if the machine ended before the command, 125 if it did not
# boot, twice. No /dev/kvm, and no root but what mmdebstrap needs when the machine is made (prepare.sh).
# shellcheck disable=SC2317 # cleanup, as_uml and as_qemu are called by name
set -euo pipefail
here=$(dirname "$(realpath "$0")")

die() {
  echo "vm: $*" >&2
  exit 125
}

vm=qemu init=none user='' selinux='' seconds=300 memory=1024
shares=() variables=()
while [ $# -gt 0 ]; do
  case $1 in
    --vm) vm=$2 ;;
    --init) init=$2 ;;
    --user)
      user=yes
      shift
      continue
      ;;
    --selinux)
      selinux=yes
      shift
      continue
      ;;
    --share) shares+=("$(realpath -e "$2")") ;;
    --env) variables+=("$2") ;;
    --seconds) seconds=$2 ;;
    --memory) memory=$2 ;;
    --)
      shift
      break
      ;;
    -*) die "unknown option $1" ;;
    *) break ;;
  esac
  shift 2
done
case $vm in uml | qemu) ;; *) die "--vm uml or --vm qemu" ;; esac
[ "$vm-$selinux" != uml-yes ] || die "--selinux needs --vm qemu"
case $init in systemd | none) ;; *) die "--init systemd or --init none" ;; esac
[ $# -gt 0 ] || {
  sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//p}' "$0" >&2
  exit 125
}
# No boot that went well took a quarter of this, emulated on a busy machine.
boot_seconds=150

cache=$("$here/prepare.sh") || exit 125
tools=$cache/tools
libraries=$tools/usr/lib/x86_64-linux-gnu
loader=$tools/usr/lib64/ld-linux-x86-64.so.2
exec 4< "$cache/ready"
flock --shared 4 # prepare.sh removes no machine that runs

# A run that was killed outright could not remove its folder.
for pid in "${TMPDIR:-/tmp}"/vm.*/pid; do
  [ -O "$pid" ] || continue
  kill -0 "$(cat "$pid")" 2> /dev/null || rm -rf "${pid%/pid}"
done
run=$(mktemp -d "${TMPDIR:-/tmp}/vm.XXXXXX")
# Whole as soon as it has its name: others look at it, above.
echo $$ > "$run/pid.new"
mv "$run/pid.new" "$run/pid"
started=()
cleanup() {
  local pid
  for pid in "${started[@]}"; do
    kill "$pid" 2> /dev/null || true
  done
  rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# What is to be run goes in as a disk that is a tar archive.
mkdir "$run/job"
printf 'vm=%q\ninit=%q\nuser=%q\nselinux=%q\nfolder=%q\n' "$vm" "$init" "$user" "$selinux" "$PWD" > "$run/job/conf"
{
  for name in "${variables[@]}"; do
    [ -z "${!name+x}" ] || printf 'export %s=%q\n' "$name" "${!name}"
  done
  printf 'exec'
  printf ' %q' "$@"
  echo
} > "$run/job/command"
printf '%s\n' "${shares[@]}" | sed '/^$/d' > "$run/job/shares"
chmod -R a+rX "$run/job"
tar -C "$run/job" --owner=0 --group=0 -cf "$run/job.tar" .
truncate -s %512 "$run/job.tar"

append="quiet panic=-1 random.trust_cpu=1 audit=0 psi=1 systemd.show_status=0"
[ -z "$selinux" ] || append+=" security=selinux enforcing=0"
# A pid namespace, where one may be had, ends with all the processes of the machine. UML ends itself by
# signals that the first process of one would not get, so that is another.
own=(unshare --pid --fork --kill-child)
[ "$(id -u)" = 0 ] || own=(unshare --user --map-current-user --pid --fork --kill-child)
if "${own[@]}" true 2> /dev/null; then
  # shellcheck disable=SC2016
  own+=(sh -c '"$@"; exit $?' sh)
else
  own=()
fi

# Sets `machine`. UML's terminals are descriptors, and so is its loader.
as_uml() {
  # shellcheck disable=SC2016,SC2054
  machine=(bash -c 'exec 5> "$1/out" 6> "$1/err" 7> "$1/status" 9< "$2"
      LD_LIBRARY_PATH=$3 exec "${@:4}"' uml "$run" "$loader" "$libraries"
    "$cache/linux.uml" mem="${memory}M" umid=vm uml_dir="$run/uml/" initrd="$cache/initrd"
    ubd0="$run/cow,$cache/root.img" ubd1r="$run/job.tar"
    con=null con0=null,fd:1 con1=null,fd:5 con2=null,fd:6 con3=null,fd:7 ssl=null "$append")
}

# Sets `machine`, and starts a server for each share.
as_qemu() {
  local devices=() count=0 share
  for share in "${shares[@]}"; do
    setpriv --pdeathsig KILL "$loader" --library-path "$libraries" "$tools/usr/libexec/virtiofsd" \
      --socket-path="$run/share$count" --shared-dir="$share" --sandbox=none --cache=auto \
      --log-level=error > "$run/share$count.log" 2>&1 &
    started+=($!)
    devices+=(-chardev "socket,id=share$count,path=$run/share$count"
      -device "vhost-user-fs-pci,chardev=share$count,tag=share$count,queue-size=256")
    for _ in {1..100}; do
      [ ! -S "$run/share$count" ] || break
      sleep 0.05
    done
    [ -S "$run/share$count" ] || die "virtiofsd: $(cat "$run/share$count.log")"
    count=$((count + 1))
  done
  # No lock on the disk, to which nobody writes: that of a UML, of another kind, would be in its way.
  # An old processor, without what costs most when it is emulated. /dev/kvm is not tried: it may be there
  # and not work.
  # shellcheck disable=SC2054
  machine=("$loader" --library-path "$libraries" "$tools/usr/bin/qemu-system-x86_64"
    -L "$tools/usr/share/qemu" -L "$tools/usr/share/seabios"
    -nodefaults -no-user-config -no-reboot -display none
    -M q35,memory-backend=ram,usb=off,smm=off -accel tcg,thread=multi,tb-size=256
    -cpu "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm" -smp 2 -m "$memory"
    -object memory-backend-memfd,id=ram,share=on,size="${memory}M"
    -chardev file,id=console,path="$run/console" -serial chardev:console
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd"
    -append "console=ttyS0 mitigations=off nokaslr $append"
    -drive "file.driver=file,file.filename=$cache/root.img,file.locking=off,format=raw,if=none,id=root,snapshot=on,cache=unsafe"
    -device virtio-blk-pci,drive=root
    -drive "file=$run/job.tar,format=raw,if=none,id=job,readonly=on" -device virtio-blk-pci,drive=job
    -device virtio-rng-pci -device virtio-serial-pci,max_ports=8
    -chardev file,id=out,path="$run/out",append=on -device virtserialport,chardev=out,name=out
    -chardev file,id=err,path="$run/err",append=on -device virtserialport,chardev=err,name=err
    -chardev file,id=status,path="$run/status" -device virtserialport,chardev=status,name=status
    "${devices[@]}")
}

# One life of the machine. Its end is in the file `status`: nothing, "up", or "up" and "ended N".
live() {
  local copying pid deadline room folder=$run
  rm -f "$run/status" "$run/cow" "$run/out" "$run/err"
  "as_$vm"
  mkfifo "$run/out" "$run/err"
  cat "$run/out" &
  copying=($!)
  cat "$run/err" >&2 &
  copying+=($!)
  # The file that is UML's memory; a small /dev/shm would kill it half-way.
  room=$(df --output=avail -k /dev/shm 2> /dev/null | tail -n 1)
  if [ "$vm" = uml ] && [ -w /dev/shm ] && [ "${room:-0}" -gt $((memory * 1024)) ]; then folder=/dev/shm; fi
  TMPDIR=$folder setpriv --pdeathsig KILL "${own[@]}" "${machine[@]}" \
    < /dev/null > "$run/machine.log" 2>&1 &
  pid=$!
  started+=("$pid")
  deadline=$((SECONDS + boot_seconds))
  until is_up; do
    if [ $SECONDS -ge $deadline ] || ! kill -0 $pid 2> /dev/null; then break; fi
    sleep 0.1
  done
  if is_up; then
    deadline=$((SECONDS + seconds))
    while kill -0 $pid 2> /dev/null; do
      [ $SECONDS -lt $deadline ] || over=yes
      [ -z "$over" ] || break
      sleep 0.1
    done
  fi
  # What is killed here is unshare, and the kernel then kills what it started.
  kill -KILL $pid 2> /dev/null || true
  wait $pid 2> /dev/null || true
  # If nothing was ever opened for writing, the readers still wait for that.
  exec 5<> "$run/out" 6<> "$run/err" 5>&- 6>&-
  wait "${copying[@]}" || true
}

is_up() { grep -qs up "$run/status"; }

# console WHY: what the machine said.
console() {
  echo "vm: $1" >&2
  tail -n 40 "$run/machine.log" "$run/console" >&2 2> /dev/null || true
}

over=''
live
if ! is_up; then
  console "$vm DID NOT BOOT; it is tried once more"
  live
fi
ended=$(sed -n 's/^ended \([0-9]*\).*/\1/p' "$run/status" 2> /dev/null || true)
if [ -n "$ended" ]; then
  exit "$ended"
elif ! is_up; then
  console "$vm did not boot"
  exit 125
elif [ -n "$over" ]; then
  console "no end within $seconds seconds"
  exit 124
fi
console "the machine ended before the command"
exit 123
