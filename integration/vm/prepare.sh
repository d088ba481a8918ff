#!/bin/bash
# Makes what run.sh starts, once, and prints where it is: an emulator, two kernels and a small Debian
# with systemd and other runtimes. All of it comes by apt from Debian; nothing is installed on this host.
#
#   integration/vm/prepare.sh
#
# VM_CACHE     where it is kept; the default is .cache/vm of the repository
# VM_MIRROR    the archive, up to the folder that holds debian/; the default is what apt uses here
set -euo pipefail
here=$(dirname "$(realpath "$0")")
suite=trixie # Debian 12's own qemu and crun are too old to be peers, and it has no UML with io or BPF.

packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod,procps,iproute2,busybox-static
packages+=,uidmap,strace,runc,crun,apparmor,checkpolicy

base=${VM_CACHE:-$here/../../.cache/vm}
mkdir -p "$base"
base=$(realpath "$base")
# Another text of these files is another machine.
key=$(cd "$here" && cat prepare.sh guest/*.sh guest/selinux.conf guest/units/* | sha256sum | cut -c1-12)
cache=$base/$suite-$key

die() {
  echo "vm: $*" >&2
  exit 1
}

if [ -e "$cache/ready" ]; then
  echo "$cache"
  exit
fi
# One of two callers prepares, and the other one waits for it.
exec 9> "$base/lock"
flock 9
if [ -e "$cache/ready" ]; then
  echo "$cache"
  exit
fi

for program in perl apt-get dpkg-deb tar xz unshare; do
  command -v $program > /dev/null || die "$program is missing (integration/install.sh vm)"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || die "$keyring is missing (integration/install.sh vm)"
echo "vm: making $cache, once; two minutes" >&2

umask 022
new=$base/new
rm -rf "$new"
mkdir "$new"
exec 3>&1 4>&2 > "$base/log" 2>&1
trap 'exec >&4 2>&4; tail -n 20 "$base/log"; echo "vm: could not be made; all is in $base/log"' EXIT

# again COMMAND...: a download fails at times for no reason that stays.
again() {
  local try
  for try in 1 2 3; do
    "$@" && return
    echo "vm: try $try failed: $*"
    sleep $((try * 5))
  done
  return 1
}

# --- an apt of its own: another suite, nothing installed, this host's proxies

apt=$new/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: > "$apt/status"
# shellcheck disable=SC2016
uris=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages')
mirror=${VM_MIRROR:-$(sed -n 's,/debian/*$,,p' <<< "$uris" | grep -v docker | head -n 1 || true)}
mirror=${mirror:-http://deb.debian.org}
cat > "$apt/sources.list" << END
deb [signed-by=$keyring] $mirror/debian $suite main
deb [signed-by=$keyring] $mirror/debian-security $suite-security main
END
apt-config dump | grep -E '^Acquire::(http|https|ForceIPv4)' > "$apt/acquire.conf" || true
cat >> "$apt/acquire.conf" << END
Acquire::Languages "none";
Acquire::Retries "5";
END
cat - "$apt/acquire.conf" > "$apt/apt.conf" << END
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
END
export APT_CONFIG=$apt/apt.conf
again apt-get update -qq

# download PACKAGE...: into $apt.
download() { (cd "$apt" && again apt-get download -qq "$@"); }

# --- programs that run on this host: with their own loader and libraries

tools=$new/tools
mkdir "$tools"
again apt-get install -y -qq --download-only qemu-system-x86 virtiofsd e2fsprogs libarchive13t64 busybox-static
download mmdebstrap user-mode-linux
mv "$apt"/mmdebstrap_*.deb "$apt/archives/"
for package in "$apt"/archives/*.deb; do
  dpkg-deb -x "$package" "$tools"
done
rm "$apt"/archives/*.deb

# --- two kernels: the cloud's in an emulator, and User Mode Linux

guest=$new/guest
mkdir -p "$guest/usr/lib/modules" "$new/kernel" "$new/uml"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$kernel" ] || die "no kernel in $suite"
version=${kernel#linux-image-}
download "$kernel"
dpkg-deb -x "$apt/$kernel"_*.deb "$new/kernel"
cp "$new/kernel/boot/vmlinuz-$version" "$new/vmlinuz"
cp -a "$(find "$new/kernel" -type d -path "*/modules/$version")" "$guest/usr/lib/modules/"

# UML is a program of this host, and its loader's path is compiled in: it becomes descriptor 9, on
# which run.sh opens the one that came with it.
dpkg-deb -x "$apt"/user-mode-linux_*.deb "$new/uml"
perl -0777 -pe 's{/lib64/ld-linux-x86-64\.so\.2\0}{"/proc/self/fd/9" . "\0" x 13}e or die' \
  "$new/uml/usr/bin/linux.uml" > "$new/linux.uml"
chmod 755 "$new/linux.uml"
uml_version=$(basename "$new"/uml/usr/lib/uml/modules/*)
uml_modules=$guest/usr/lib/modules/$uml_version
mkdir "$uml_modules"
(
  cd "$new/uml/usr/lib/uml/modules/$uml_version"
  cp modules.* "$uml_modules/"
  find . -regextype egrep -regex '.*/(overlay|fuse|veth|dummy|tun)\.ko.*' -exec cp --parents -t "$uml_modules" {} +
)

# --- the first root file system: busybox, and the modules that the disk needs

first=$new/first
mkdir -p "$first/"{bin,lib,proc,sys,dev,root}
cp "$tools/usr/bin/busybox" "$first/bin/"
for module in virtio_blk overlay; do
  xz -dc "$(find "$guest/usr/lib/modules/$version" -name $module.ko.xz)" > "$first/lib/$module.ko"
done
install -m 755 "$here/guest/initramfs.sh" "$first/init"
(cd "$first" && find . | "$tools/usr/bin/busybox" cpio -o -H newc) > "$new/initrd"

# containerd's own shim, against which ours is compared, and nothing else of containerd.
download containerd
dpkg-deb --fsys-tarfile "$apt"/containerd_*.deb | tar -C "$guest" -x ./usr/bin/containerd-shim-runc-v2

# --- Debian, and our few files in it

units=$guest/etc/systemd/system
mkdir -p "$guest/usr/lib/vm" "$units/user@.service.d"
install -m 755 "$here/guest/job.sh" "$here/guest/init.sh" "$guest/usr/lib/vm/"
cp "$here/guest/selinux.conf" "$guest/usr/lib/vm/"
cp "$here"/guest/units/vm.* "$units/"
cp "$here/guest/units/delegate.conf" "$units/user@.service.d/vm.conf"
while read -r unit; do
  ln -s /dev/null "$units/$unit"
done < "$here/guest/units/masked"
tar -C "$guest" --owner=0 --group=0 -cf "$new/guest.tar" .
cat > "$new/finish.sh" << END
set -e
useradd -m -u 1000 -s /bin/bash user
echo user:100000:65536 | tee /etc/subuid > /etc/subgid
mkdir -p /var/lib/systemd/linger
: > /var/lib/systemd/linger/user
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
echo vm > /etc/hostname
systemctl set-default vm.target
checkpolicy -M -U allow -c 33 -o /usr/lib/vm/selinux /usr/lib/vm/selinux.conf
depmod $version
depmod $uml_version
END
# shellcheck disable=SC2016
debian() {
  rm -f "$new/root.tar"
  perl "$tools/usr/bin/mmdebstrap" --quiet --format=tar --variant=minbase --include="$packages" \
    --aptopt="$apt/acquire.conf" \
    --customize-hook='rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*' \
    --customize-hook="tar-in $new/guest.tar /" \
    --customize-hook="chroot \"\$1\" sh < $new/finish.sh" \
    $suite "$new/root.tar" "$apt/sources.list" < /dev/null 3>&- 4>&- 9>&-
}
again debian
truncate -s 4G "$new/root.img"
"$tools/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tools/usr/lib/x86_64-linux-gnu" \
  "$tools/usr/sbin/mke2fs" -q -t ext4 -F -E root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1 \
  -O ^metadata_csum_seed -d "$new/root.tar" "$new/root.img"

rm -rf "$new"/{root.tar,guest.tar,finish.sh,guest,uml,kernel,first,apt}
: > "$new/ready"
# Machines of an older text go, unless one of them runs: then the next time.
for old in "$base/$suite-"*; do
  [ ! -d "$old" ] || flock --exclusive --nonblock "$old/ready" rm -rf "$old" || true
done
mv "$new" "$cache"
trap - EXIT
echo "$cache" >&3
