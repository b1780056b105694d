#!/bin/busybox sh
# The guest's first and only program. It counts its boots and keeps a history on its disk, so that a moved disk can be
# told from a fresh one; reads the config drive; at an instance's first boot runs user data that begins with "#!", as
# cloud-init does, and at later boots starts the service that this has left in /srv/machine; tells all that on the
# console; and powers off when the ACPI button is pressed.
/bin/busybox --install -s /bin
ln -sf sh /bin/bash
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 2 > /proc/sys/kernel/printk
for module in virtio_pci virtio_blk virtio_net virtio_scsi sd_mod ata_piix sr_mod isofs button evdev; do
  modprobe $module 2> /dev/null
done
tries=0
until [ -b /dev/vda2 ] || [ -b /dev/sda2 ] || [ $tries -ge 50 ]; do sleep 0.1; tries=$((tries + 1)); done
disk=/dev/vda
[ -b ${disk}2 ] || disk=/dev/sda
mount -t ext4 ${disk}2 /data || echo "LAB-GUEST data-mount-failed"
mkdir -p /srv /data/machine
ln -s /data/machine /srv/machine
boots=$(($(cat /data/boots 2> /dev/null || echo 0) + 1))
echo $boots > /data/boots
[ -s /data/id ] || head -c 12 /dev/urandom | hexdump -e '12/1 "%02x" "\n"' > /data/id

for drive in /dev/sr0 /dev/vdb /dev/vdc /dev/sdb; do
  [ -b $drive ] && mount -t iso9660 -o ro $drive /cfg 2> /dev/null && break
done
given=/cfg/openstack/latest
uuid=$(sed -n 's/.*"uuid": "\([^"]*\)".*/\1/p' $given/meta_data.json 2> /dev/null)
host=$(sed -n 's/.*"hostname": "\([^"]*\)".*/\1/p' $given/meta_data.json 2> /dev/null)
echo "$(date +%s) uuid=${uuid:-none} host=${host:-none}" >> /data/history
sync
disks=
for drive in /dev/vdb /dev/vdc /dev/vdd; do
  [ -b $drive ] && disks="$disks $(basename $drive):$(blockdev --getsize64 $drive)"
done
nic=$(ls /sys/class/net | grep -v lo | head -1)
mac=$(cat /sys/class/net/$nic/address 2> /dev/null)
echo "LAB-GUEST up boots=$boots id=$(cat /data/id) uuid=${uuid:-none} host=${host:-none} mac=${mac:-none} disks=[$disks ]"
sed 's/^/LAB-HISTORY /' /data/history
grep -o '"public_keys": {[^}]*}' $given/meta_data.json 2> /dev/null | sed 's/^/LAB-KEYS /'

if [ "$(cat /data/instance 2> /dev/null)" != "${uuid:-none}" ]; then
  echo "${uuid:-none}" > /data/instance
  if head -c 2 $given/user_data 2> /dev/null | grep -q '^#!'; then
    cp $given/user_data /tmp/first-boot
    chmod +x /tmp/first-boot
    /tmp/first-boot < /dev/null 2>&1
    echo "LAB-FIRST-BOOT status=$?"
  fi
elif [ -x /srv/machine/.start ]; then
  /srv/machine/.start > /dev/console 2>&1 &
fi
sync
for event in /dev/input/event*; do
  [ -c $event ] && (head -c 1 $event > /dev/null; sync; umount /data; poweroff -f) &
done
echo "LAB-READY"
while :; do sleep 3600; done
