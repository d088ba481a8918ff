#!/bin/bash
# In the guest, under either PID 1: runs what stands in /run/vm, and turns the machine off.
# shellcheck disable=SC1091,SC2154
. /run/vm/conf

# port NAME: the device behind which the host reads; a virtio port, or one of UML's terminals.
port() {
  local device
  case $vm-$1 in
    uml-out) device=/dev/tty1 ;;
    uml-err) device=/dev/tty2 ;;
    uml-status) device=/dev/tty3 ;;
    *)
      for device in /sys/class/virtio-ports/*; do
        [ "$(cat "$device/name")" != "$1" ] || echo "/dev/${device##*/}"
      done
      return
      ;;
  esac
  stty -F "$device" raw -echo
  echo "$device"
}

# A port takes one opener at a time, so two processes hold them, and the command has pipes.
out=/run/vm/out err=/run/vm/err
mkfifo $out $err
cat < $out > "$(port out)" &
copying=($!)
cat < $err > "$(port err)" &
copying+=($!)
exec 8> "$(port status)" 3> $out 4> $err
echo up >&8

# What the boot does to /tmp is over; bundles are made there, and must not wait for a disk.
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /tmp 2>&4
count=0
while read -r share; do
  mkdir -p "$share"
  case $vm in
    qemu) mount -t virtiofs "share$count" "$share" 2>&4 ;;
    uml) busybox mount -t hostfs -o "$share" none "$share" 2>&4 ;;
  esac
  count=$((count + 1))
done < /run/vm/shares

if [ -n "$selinux" ]; then
  mount -t selinuxfs selinuxfs /sys/fs/selinux 2>&4
  # The kernel takes a policy in one piece.
  dd if=/usr/lib/vm/selinux of=/sys/fs/selinux/load bs=1M status=none 2>&4
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
as=()
if [ -n "$user" ]; then
  as=(setpriv --reuid=1000 --regid=1000 --init-groups --)
  export HOME=/home/user USER=user LOGNAME=user XDG_RUNTIME_DIR=/run/user/1000
  if [ "$init" = systemd ]; then
    systemctl start user@1000.service 2>&4
    export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
    as+=(systemd-run --user --scope --quiet --property=Delegate=yes --)
  else
    # What the kernel's documentation calls delegation: these files of a cgroup, and no limit of it.
    top=/sys/fs/cgroup/user
    mkdir -p $top/job $XDG_RUNTIME_DIR
    read -ra controllers < $top/cgroup.controllers
    for controller in "${controllers[@]}"; do
      echo "+$controller" > $top/cgroup.subtree_control
    done
    for cgroup in $top $top/job; do
      chown 1000:1000 "$cgroup" "$cgroup"/cgroup.{procs,threads,subtree_control}
    done
    chown 1000:1000 $XDG_RUNTIME_DIR
    chmod 700 $XDG_RUNTIME_DIR
    echo $$ > $top/job/cgroup.procs
  fi
else
  export HOME=/root USER=root LOGNAME=root
fi
cd "$folder" 2> /dev/null || cd "$HOME" || cd /
# A command in the background of a shell ignores signals, and would hand that on to containers.
env --default-signal "${as[@]}" /bin/bash /run/vm/command < /dev/null >&3 2>&4 3>&- 4>&- 8>&-
status=$?

# Something that the command left may still hold a pipe; its words are waited for, but not for ever.
exec 3>&- 4>&-
for _ in {1..20}; do
  kill -0 "${copying[@]}" 2> /dev/null || break
  sleep 0.1
done
echo "ended $status" >&8
exec 8>&-
if [ "$init" = systemd ]; then
  exec systemctl poweroff --force --force
fi
exec /bin/busybox poweroff -f
