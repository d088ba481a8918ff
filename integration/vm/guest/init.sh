#!/bin/bash
# In the guest without systemd: PID 1.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# With the options that systemd gives it.
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
  ln -s "fd/${number%:*}" "/dev/${number#*:}"
done
mount --make-rshared /
ip link set lo up
hostname vm
read -ra controllers < /sys/fs/cgroup/cgroup.controllers
for controller in "${controllers[@]}"; do
  echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
/usr/lib/vm/job.sh &
# Orphans come here.
while :; do
  wait -n || sleep 0.2
done
