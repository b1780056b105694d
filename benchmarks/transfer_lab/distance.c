// distance SITE SITE DEVICE RATE DELAY BUFFER: joins two network namespaces (files) by a TUN device in each, with a rate
// (bits per second), a delay one way (microseconds) and a buffer before the bottleneck (microseconds) that drops what
// comes when it is full. For kernels without netem. Prints "ready".
//
// Frames cross as large as TCP makes them (IFF_VNET_HDR, TSO), which is what makes a gigabit in user space cheap; the
// time that one takes on the link is that of the Ethernet frames it stands for.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 70000, ETHERNET_HEADER = 14 };

static int64_t delay, buffer; // nanoseconds
static double bits_per_nanosecond;

struct frame {
    struct frame *next;
    int64_t due;
    ssize_t length;
    char bytes[];
};

struct direction {
    int from, to;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int device(const char *site, const char *name) {
    int namespace = open(site, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET)) fail(site);
    close(namespace);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(tun, TUNSETIFF, &request) || ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) fail(name);
    return tun;
}

static int64_t time_on_link(const char *bytes, ssize_t length) {
    const struct virtio_net_hdr *header = (const void *)bytes;
    int64_t size = length - (ssize_t)sizeof *header + ETHERNET_HEADER;
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE && header->gso_size) {
        int64_t content = length - (ssize_t)sizeof *header - header->hdr_len;
        int64_t more = (content + header->gso_size - 1) / header->gso_size - 1;
        size += more * (header->hdr_len + ETHERNET_HEADER);
    }
    return (int64_t)(size * 8 / bits_per_nanosecond);
}

static void *carry(void *argument) {
    struct direction *direction = argument;
    struct frame *first = NULL, **last = &first;
    int64_t link_free = 0;
    static _Thread_local _Alignas(8) char bytes[LARGEST];
    prctl(PR_SET_TIMERSLACK, 1000);
    for (;;) {
        ssize_t length = read(direction->from, bytes, sizeof bytes);
        int64_t time = now();
        if (length < 0 && errno != EAGAIN && errno != EINTR) fail("read");
        if (length > 0) {
            if (link_free < time) link_free = time;
            if (link_free - time <= buffer) { // else the buffer is full, and the frame is lost
                link_free += time_on_link(bytes, length);
                struct frame *frame = malloc(sizeof *frame + length);
                if (!frame) fail("malloc");
                *frame = (struct frame){.due = link_free + delay, .length = length};
                memcpy(frame->bytes, bytes, length);
                *last = frame;
                last = &frame->next;
            }
        }
        while (first && first->due <= time) {
            struct frame *frame = first;
            // EINVAL: a packet that the kernel itself does not want; EIO: the device is not up yet
            if (write(direction->to, frame->bytes, frame->length) < 0 && errno != EINVAL && errno != EIO) fail("write");
            if (!(first = frame->next)) last = &first;
            free(frame);
        }
        if (length > 0) continue;
        int64_t wait = first ? first->due - time : 1000000000LL;
        struct timespec timeout = {wait / 1000000000LL, wait % 1000000000LL};
        struct pollfd input = {.fd = direction->from, .events = POLLIN};
        if (ppoll(&input, 1, &timeout, NULL) < 0 && errno != EINTR) fail("ppoll");
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    bits_per_nanosecond = atof(arguments[4]) / 1e9;
    delay = atoll(arguments[5]) * 1000;
    buffer = atoll(arguments[6]) * 1000;
    setpriority(PRIO_PROCESS, 0, -10); // a link is no competitor for the processor of those who use it
    int one = device(arguments[1], arguments[3]), other = device(arguments[2], arguments[3]);
    struct direction there = {one, other}, back = {other, one};
    pthread_t thread;
    if (pthread_create(&thread, NULL, carry, &there)) fail("pthread_create");
    printf("ready\n");
    fflush(stdout);
    carry(&back);
}
