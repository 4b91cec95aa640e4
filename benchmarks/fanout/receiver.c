/* The client of the fan-out benchmark, the same for all servers: many WebSockets, every frame counted.
 *
 * receiver PORT COUNT REQUESTS WAITS_FOR_FIRST
 * REQUESTS holds COUNT upgrade requests, each after its length (32 bits, this machine's order).
 * Prints "connected" when every connection has its 101 (and, if asked, its first message).
 * Each line on stdin is answered with "text-frames payload-bytes lost-connections"; at its end we end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTING_MAX = 64, EVENTS_MAX = 512, READ_BYTES = 1 << 16, STDIN = -1 };
enum { SHAKING, WAITING, OPEN, LOST };

struct connection {
    int fd, stage, tail; /* tail: how much of the end of the handshake has been seen */
    unsigned char header[10];
    int header_bytes;
    uint64_t payload_bytes; /* of the frame, still to come */
};

static struct connection *connections;
static uint64_t frames, payload, lost;
static int poll_fd, port, count, started, done, waits_for_first;
static char **requests;
static uint32_t *request_bytes;

static void fail(const char *what) { perror(what); exit(1); }

static void start_next(void) {
    struct connection *c = &connections[started];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    int yes = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (send(c->fd, requests[started], request_bytes[started], 0) != (ssize_t)request_bytes[started]) fail("send");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)started};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    started++;
}

static void finished_one(struct connection *c) {
    c->stage = OPEN;
    if (++done == count) { printf("connected\n"); fflush(stdout); }
    if (started < count) start_next();
}

static void lose(struct connection *c) {
    if (c->stage != OPEN) { fprintf(stderr, "a connection was refused\n"); exit(1); }
    c->stage = LOST;
    lost++;
    close(c->fd);
}

/* The length of the frame behind a header, or -1 while the header is not whole. */
static int64_t frame_length(const struct connection *c) {
    if (c->header_bytes < 2) return -1;
    int length = c->header[1] & 0x7f, need = length == 126 ? 4 : length == 127 ? 10 : 2;
    if (c->header_bytes < need) return -1;
    if (need == 2) return length;
    int64_t long_length = 0;
    for (int i = 2; i < need; i++) long_length = long_length << 8 | c->header[i];
    return long_length;
}

static void got_header(struct connection *c, int64_t length) {
    int opcode = c->header[0] & 0x0f;
    c->header_bytes = 0;
    c->payload_bytes = (uint64_t)length;
    if (opcode == 1) {
        frames++;
        payload += (uint64_t)length;
        if (c->stage == WAITING) finished_one(c);
    } else if (opcode == 9) { /* our servers' pings are empty */
        static const unsigned char pong[6] = {0x8a, 0x80, 0, 0, 0, 0};
        (void)!send(c->fd, pong, sizeof pong, MSG_NOSIGNAL);
    }
}

static void take(struct connection *c, const unsigned char *bytes, ssize_t n) {
    ssize_t at = 0;
    while (c->stage == SHAKING && at < n) {
        c->tail = bytes[at] == "\r\n\r\n"[c->tail] ? c->tail + 1 : bytes[at] == '\r';
        at++;
        if (c->tail == 4) {
            c->stage = WAITING;
            if (!waits_for_first) finished_one(c);
        }
    }
    while (at < n) {
        if (c->payload_bytes) {
            uint64_t skipped = c->payload_bytes < (uint64_t)(n - at) ? c->payload_bytes : (uint64_t)(n - at);
            c->payload_bytes -= skipped;
            at += (ssize_t)skipped;
            continue;
        }
        c->header[c->header_bytes++] = bytes[at++];
        int64_t length = frame_length(c);
        if (length >= 0) got_header(c, length);
    }
}

static void readable(struct connection *c) {
    static unsigned char bytes[READ_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n > 0) {
        if (c->stage == SHAKING && c->tail == 0 && n > 12 && memcmp(bytes, "HTTP/1.1 101", 12)) {
            fprintf(stderr, "no upgrade: %.*s\n", (int)(n < 200 ? n : 200), bytes);
            exit(1);
        }
        take(c, bytes, n);
    } else if (n == 0 || errno != EAGAIN) {
        lose(c);
    }
}

static void asked(void) {
    char line[64];
    ssize_t n = read(0, line, sizeof line);
    if (n <= 0) exit(0);
    printf("%llu %llu %llu\n", (unsigned long long)frames, (unsigned long long)payload, (unsigned long long)lost);
    fflush(stdout);
}

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    requests = calloc((size_t)count, sizeof *requests);
    request_bytes = calloc((size_t)count, sizeof *request_bytes);
    for (int i = 0; i < count; i++) {
        if (fread(&request_bytes[i], 4, 1, file) != 1) fail("requests");
        requests[i] = malloc(request_bytes[i]);
        if (fread(requests[i], 1, request_bytes[i], file) != request_bytes[i]) fail("requests");
    }
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "receiver PORT COUNT REQUESTS WAITS_FOR_FIRST\n"); return 2; }
    port = atoi(argv[1]);
    count = atoi(argv[2]);
    waits_for_first = atoi(argv[4]);
    connections = calloc((size_t)count, sizeof *connections);
    read_requests(argv[3]);
    poll_fd = epoll_create1(0);
    struct epoll_event of_stdin = {.events = EPOLLIN, .data.u64 = (uint64_t)STDIN};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &of_stdin)) fail("stdin");
    while (started < count && started < CONNECTING_MAX) start_next();
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(poll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == (uint64_t)STDIN) asked();
            else readable(&connections[events[i].data.u64]);
        }
    }
}
