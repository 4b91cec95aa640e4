/* The floor: the least that a server can do. epoll for the handshake, then send() of one ready frame to all.
 *
 * floor PORT PAYLOAD_BYTES INTERVAL_MS ACCEPT
 * ACCEPT answers the one Sec-WebSocket-Key that the benchmark's client sends. Sends while SIGUSR2 is on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 19000, EVENTS_MAX = 512 };

static volatile sig_atomic_t is_sending;
static int open_fds[CONNECTIONS_MAX], open_count;

static void toggle(int number) { (void)number; is_sending = !is_sending; }

static void fail(const char *what) { perror(what); exit(1); }

static int make_frame(unsigned char *frame, int bytes) {
    frame[0] = 0x81;
    frame[1] = 126;
    frame[2] = (unsigned char)(bytes >> 8);
    frame[3] = (unsigned char)bytes;
    memset(frame + 4, 'x', (size_t)bytes);
    return bytes + 4;
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) fail("listen");
    return fd;
}

static int timer_every(int ms) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{ms / 1000, ms % 1000 * 1000000L}, {ms / 1000, ms % 1000 * 1000000L}};
    timerfd_settime(fd, 0, &every, NULL);
    return fd;
}

static void watch(int poll_fd, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

static void accept_all(int poll_fd, int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(poll_fd, fd);
    }
}

static void readable(int fd, const char *answer) {
    char bytes[4096];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0) close(fd);
    else if (n >= 4 && !memcmp(bytes + n - 4, "\r\n\r\n", 4) && open_count < CONNECTIONS_MAX) {
        (void)!send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        open_fds[open_count++] = fd;
    }
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "floor PORT PAYLOAD_BYTES INTERVAL_MS ACCEPT\n"); return 2; }
    static unsigned char frame[65540];
    char answer[512];
    int frame_bytes = make_frame(frame, atoi(argv[2]));
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n\r\n", argv[4]);
    signal(SIGUSR2, toggle);
    int poll_fd = epoll_create1(0), listener = listen_on(atoi(argv[1])), timer = timer_every(atoi(argv[3]));
    watch(poll_fd, listener);
    watch(poll_fd, timer);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(poll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(poll_fd, listener);
            else if (fd == timer) {
                uint64_t ticks;
                (void)!read(timer, &ticks, sizeof ticks);
                for (int k = 0; is_sending && k < open_count; k++)
                    (void)!send(open_fds[k], frame, (size_t)frame_bytes, MSG_NOSIGNAL);
            } else readable(fd, answer);
        }
    }
}
