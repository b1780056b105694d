#!/bin/busybox sh
# The first process of a virtual machine that runs a bundle. The runtime (qemu.py) gives it, in /boot: the kernel modules
# in their order, the volumes ("SERIAL PATH" a line), and the commands. It says how things go on the second serial port:
#   booted | installed | up | failed TEXT | ended STATUS
# Programs see the read-only system disk as their root, and the machine's own disk at /app, their working directory.

/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /boot/modules/*; do insmod "$module"; done
stty -F /dev/ttyS1 raw

say() { echo "$*" > /dev/ttyS1; }

disk() { # the device whose serial is $1
    for serial in /sys/block/vd*/serial; do
        [ "$(cat "$serial")" = "$1" ] && echo "/dev/$(echo "$serial" | cut -d/ -f4)"
    done
}

finish() { # let go of the disks and switch the machine off; $* is the last thing to say
    kill -KILL -1
    while read -r _ path; do rm -f "/system/app/$path"; done < /boot/volumes
    umount /system/app
    say "$*"
    poweroff -f
}

run() { # a command line, as a program of the machine
    exec setsid env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/app TMPDIR=/app/tmp HOST=0.0.0.0 PORT=8080 LANG=C.UTF-8 \
        chroot /system /bin/sh -c "cd /app && exec $1"
}

mount -t ext4 -o ro "$(disk system)" /system || finish "failed the system disk cannot be mounted"
mount -t ext4 "$(disk app)" /system/app || finish "failed the machine's own disk cannot be mounted"
mount -t proc proc /system/proc
mount -t sysfs sys /system/sys
mount -t devtmpfs dev /system/dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /system/tmp
mount -t tmpfs tmpfs /system/run
mkdir -p /system/app/tmp

while read -r serial path; do
    mkdir -p "$(dirname "/system/app/$path")"
    rm -f "/system/app/$path"
    ln -s "$(disk "$serial")" "/system/app/$path" || finish "failed the volume at $path cannot be attached"
done < /boot/volumes
say booted

# 127.0.0.1 leads to the computer that runs the cloud, as it does for machines that are processes: see qemu.py.
ip link set lo up
ip addr del 127.0.0.1/8 dev lo
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
ip route add 127.0.0.0/8 via 10.0.2.2

for command in /boot/install-*; do
    [ -f "$command" ] || continue
    (run "$(cat "$command")") || finish "failed install command $(cat "$command") ended with exit status $?"
done
say installed

if [ -f /boot/start ]; then (run "$(cat /boot/start)") & else sleep 2147483647 & fi
service=$!
trap 'kill -TERM -$service $service 2> /dev/null' TERM
for button in /dev/input/event*; do (head -c 1 "$button" > /dev/null; kill -TERM 1) & done
( # up: it listens at port 8080 (hexadecimal 1F90), or has had 15 seconds, or is not asked to listen
    tries=0
    while [ -f /boot/start ] && [ $((tries += 1)) -le 150 ]; do
        grep -q ':1F90 0*:0000 0A' /proc/net/tcp /proc/net/tcp6 2> /dev/null && break
        sleep 0.1
    done
    say up
) &
wait "$service"
status=$?
while kill -0 "$service" 2> /dev/null; do # a signal ended the wait, not the service
    wait "$service"
    status=$?
done
finish "ended $status"
