#!/bin/busybox sh
# In the guest, first of all: finds the disks, and starts PID 1 of the root file system.
# shellcheck shell=dash disable=SC1091,SC2154
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
disk=/dev/ubd
if [ ! -e ${disk}a ]; then
  disk=/dev/vd
  for module in /lib/*.ko; do
    $b insmod "$module"
  done
fi
$b mount -t ext4 ${disk}a /root || exec $b poweroff -f
$b mount -t tmpfs -o mode=755 tmpfs /root/run
$b mkdir /root/run/vm
$b tar -xf ${disk}b -C /root/run/vm
. /root/run/vm/conf
for dir in proc sys dev; do
  $b mount --move /$dir /root/$dir
done
if [ "$init" = systemd ]; then
  exec $b switch_root /root /sbin/init
fi
exec $b switch_root /root /usr/lib/vm/init.sh
