#!/bin/busybox sh
# The first process of the guests that the labs start: the little of cloud-init that clouds rely on, on busybox, in a
# virtual machine as in a container. The first boot of an instance runs user data that is a script; later boots start
# what the script installed. The seed is a disk labelled "cidata" (NoCloud), or the files that LXD's templates write.

export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8
seed=/var/lib/cloud/seed/nocloud
state=/var/lib/cloud/instance

mounted() { grep -q " $1 " /proc/mounts; }
say() { echo "lab-guest: $*" > /dev/console; }

finish() { # stop the programs, write everything out, end; $* ends the machine
    say "switching off"
    kill -TERM -1
    sleep 0.2
    kill -KILL -1
    sync
    [ -e /.container ] && exit 0
    mount -o remount,ro /
    poweroff -f
}
trap finish TERM PWR INT USR2

[ -e /proc/mounts ] || mount -t proc proc /proc
mounted /sys || mount -t sysfs sys /sys
mounted /dev || mount -t devtmpfs dev /dev
mounted /tmp || mount -t tmpfs tmpfs /tmp
mounted /run || mount -t tmpfs tmpfs /run
ip link set lo up

if [ ! -e /.container ]; then
    for button in /dev/input/event*; do
        [ -c "$button" ] && (head -c 1 "$button" > /dev/null && kill -USR2 1) &
    done
    for card in /sys/class/net/eth*; do
        ip link set "$(basename "$card")" up
        udhcpc -i "$(basename "$card")" -q -n -t 5 -T 1 -s /etc/dhcp.sh > /dev/null 2>&1
    done
    for disk in /dev/sr0 /dev/vd?; do
        [ "$(dd if="$disk" bs=1 skip=32808 count=6 2> /dev/null | tr A-Z a-z)" = cidata ] || continue
        mkdir -p /run/seed
        mount -t iso9660 -o ro "$disk" /run/seed && seed=/run/seed && break
    done
fi

instance=$(sed -n 's/^instance-id: *//p' "$seed/meta-data" 2> /dev/null)
if [ -s "$seed/user-data" ] && [ "$instance" != "$(cat "$state/id" 2> /dev/null)" ]; then
    say "first boot of $instance"
    mkdir -p "$state"
    echo "$instance" > "$state/id"
    cp "$seed/user-data" "$state/script"
    chmod 700 "$state/script"
    if [ "$(head -c 2 "$state/script")" = "#!" ]; then "$state/script"; fi
elif [ -x /srv/machine/.start ]; then
    /srv/machine/.start > /dev/console 2>&1 &
fi
say "up"
while :; do
    sleep 2147483647 &
    wait $!
done
