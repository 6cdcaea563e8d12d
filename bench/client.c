/* The clients of `make bench`: open answers through a proxy, check each for completeness, measure from the stamps in the events.
 *
 *   client PORT hold COUNT SPEC      COUNT answers open at once; each until the upstream ends it
 *   client PORT loop COUNT SPEC      COUNT answers, one after another, on each of conns=N connections
 *
 * Further words of the form NAME=VALUE: conns=8, keep=1 (loop: the connection is kept between answers), pending=64 (hold: connects on
 * their way at once), rate=BYTES (bytes a second that each client reads; 0: all it gets), path=/v1/..., header=NAME:VALUE (repeated).
 * SPEC is what upstream.c reads; "id=I of=N" is added to it.
 *
 * stdin:  "mark" prints the figures since the last mark as a line of JSON and begins anew, "leave" closes the connections, one each
 *         5 ms, and says when; "quit" (or end of file) gives up what is open.
 * stdout: "ready" when every stream has had its first event, "left I NS", JSON for each mark, and {"end": ...} when all is over. */
#include "times.h"
#include "wire.h"

enum { HEAD_ROOM = 8192, READ_ROOM = 262144, TAIL = 16, SLOW_READ = 4096 };
enum { FREE, CONNECTING, HEAD, SIZE, DATA, AFTER_DATA, TRAILER, FIXED, UNTIL_CLOSE };
enum { COMPLETE, DISORDERED, NO_LAST, NO_DONE, CUT, STATUS, REFUSED, UNFINISHED, LEFT, ENDS };
static const char *const end_names[ENDS] = {"complete", "disordered", "events_missing", "no_done", "cut", "status", "refused", "unfinished", "left"};

typedef struct {
    int fd, state, id, epoll_out, closes, stream, status, line;
    int scan, digits, last, disordered;
    int64_t began, left, next, number, sent, wake;
    size_t head_used, tail_used;
    char tail[TAIL], head[HEAD_ROOM];
} Client;

static Client *clients;
static int client_count, epoll, timer, looping, keep, pending_limit = 64, leaving, quitting, status_seen;
static int64_t to_start, started, waiting, over, events, bytes, rate, ends[ENDS], open_now;
static int said_ready;
static char refusal[240]; /* the beginning of the first body whose status was not 200 */
static size_t refusal_used;
static char host_port[64], path[256] = "/v1/chat/completions", headers[2048], spec[256];
static uint16_t port;
static Times delays, first_tokens, whole;

static void print_times(const char *name, const Times *times) {
    printf(",\"%s\":{\"count\":%lld,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"max\":%.4f}", name, (long long)times->total, percentile(times, .5),
           percentile(times, .9), percentile(times, .99), (double)times->most / 1e6);
}

static void report(const char *what) {
    printf("{\"%s\":%lld,\"events\":%lld,\"bytes\":%lld,\"over\":%lld,\"open\":%lld,\"status\":%d,\"refusal\":\"%s\"", what, (long long)now_ns(), (long long)events, (long long)bytes,
           (long long)over, (long long)open_now, status_seen, refusal);
    print_times("delay", &delays);
    print_times("first", &first_tokens);
    print_times("whole", &whole);
    printf(",\"ends\":{");
    for (int i = 0; i < ENDS; i++) printf("%s\"%s\":%lld", i ? "," : "", end_names[i], (long long)ends[i]);
    printf("}}\n");
    events = bytes = 0;
    memset(&delays, 0, sizeof delays);
    memset(&first_tokens, 0, sizeof first_tokens);
    memset(&whole, 0, sizeof whole);
}

/* --- one answer --- */

static void start(Client *client);

static void watch(Client *client, uint32_t wanted, int operation) {
    struct epoll_event change = {.events = wanted, .data.fd = (int)(client - clients)};
    epoll_ctl(epoll, operation, client->fd, &change);
}

static void end_answer(Client *client, int how) {
    if (client->state == FREE) return;
    if (how == STATUS) status_seen = client->status;
    if (!client->next) waiting--;
    ends[how]++;
    over++;
    open_now--;
    add_time(&whole, now_ns() - client->began);
    int reusable = how == COMPLETE && keep && !client->closes;
    if (!reusable) {
        close(client->fd);
        client->fd = -1;
    }
    client->state = FREE;
    if (looping && to_start > 0 && !quitting) start(client);
    else if (reusable) {
        close(client->fd);
        client->fd = -1;
    }
}

static void end_of_message(Client *client) {
    if (client->status != 200) end_answer(client, STATUS);
    else if (client->disordered) end_answer(client, DISORDERED);
    else if (!client->last) end_answer(client, NO_LAST);
    else if (client->stream && !memmem(client->tail, client->tail_used, "[DONE]", 6)) end_answer(client, NO_DONE);
    else end_answer(client, COMPLETE);
}

static void event_arrived(Client *client, int64_t now) {
    if (client->sent < 0 || client->number != client->next || client->last) client->disordered = 1;
    if (client->next == 0) {
        waiting--;
        add_time(&first_tokens, now - client->began);
    }
    client->next++;
    events++;
    add_time(&delays, now - client->sent);
}

/* Look for ~NUMBER@TIME~ in a piece of the body; a piece may begin and end anywhere. */
static void scan(Client *client, const char *at, size_t size, int64_t now) {
    const char *end = at + size;
    bytes += (int64_t)size;
    if (client->status != 200) {
        for (; at < end && refusal_used < sizeof refusal - 1 && !status_seen; at++)
            refusal[refusal_used++] = *at < ' ' || *at == '"' || *at == '\\' ? ' ' : *at;
        return;
    }
    if (size >= TAIL) {
        memcpy(client->tail, end - TAIL, TAIL);
        client->tail_used = TAIL;
    } else {
        size_t kept = client->tail_used + size > TAIL ? TAIL - size : client->tail_used;
        memmove(client->tail, client->tail + client->tail_used - kept, kept);
        memcpy(client->tail + kept, at, size);
        client->tail_used = kept + size;
    }
    while (at < end) {
        if (client->scan == 0) {
            if (!(at = memchr(at, '~', (size_t)(end - at)))) return;
            at++;
            client->scan = 1;
            client->number = client->sent = 0;
            continue;
        }
        char c = *at++;
        if (c >= '0' && c <= '9') {
            if (client->scan == 1) client->number = client->number * 10 + c - '0';
            else client->sent = client->sent * 10 + c - '0';
        } else if (c == '@' && client->scan == 1) {
            client->scan = 2;
        } else {
            if (client->scan == 2 && (c == '~' || c == '!')) {
                event_arrived(client, now);
                client->last = c == '!';
            } else client->disordered = 1;
            client->scan = 0;
        }
    }
}

/* The head is complete: what kind of body follows. Returns 0 when the answer ended with it. */
static int take_head(Client *client) {
    char *head = client->head;
    client->status = head[0] && strchr(head, ' ') ? atoi(strchr(head, ' ') + 1) : 0;
    client->closes = strcasestr(head, "\nconnection: close") != NULL;
    client->stream = strcasestr(head, "\ncontent-type: text/event-stream") != NULL;
    char *length = strcasestr(head, "\ncontent-length:");
    client->left = length ? strtoll(length + 16, NULL, 10) : 0;
    client->head_used = 0;
    client->state = strcasestr(head, "\ntransfer-encoding: chunked") ? SIZE : length ? FIXED : UNTIL_CLOSE;
    if (client->state == UNTIL_CLOSE) client->closes = 1;
    if (client->state == FIXED && !client->left) {
        end_of_message(client);
        return 0;
    }
    if (client->state == SIZE) client->left = 0;
    return 1;
}

static void feed(Client *client, const char *at, size_t size) {
    const char *end = at + size;
    int64_t now = now_ns();
    int fd = client->fd;
    while (at < end && client->state != FREE && client->fd == fd) {
        size_t rest = (size_t)(end - at), take;
        switch (client->state) {
        case HEAD: /* a byte at a time: once for each answer */
            if (client->head_used == HEAD_ROOM - 1) {
                end_answer(client, CUT);
                return;
            }
            client->head[client->head_used++] = *at++;
            if (client->head_used > 3 && !memcmp(client->head + client->head_used - 4, "\r\n\r\n", 4)) {
                client->head[client->head_used] = 0;
                if (!take_head(client)) return;
            }
            break;
        case SIZE: {
            char c = *at++;
            if (c == '\n') {
                client->state = client->left ? DATA : TRAILER;
                client->digits = client->line = 0;
            } else if (c == ';') client->digits = -1;
            else if (c != '\r' && client->digits >= 0) {
                int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
                if (digit < 0) {
                    end_answer(client, CUT);
                    return;
                }
                client->left = client->left * 16 + digit;
            }
            break;
        }
        case AFTER_DATA:
            if (*at++ == '\n') {
                client->state = SIZE;
                client->left = 0;
            }
            break;
        case TRAILER:
            if (*at == '\n') {
                if (!client->line) {
                    end_of_message(client);
                    return;
                }
                client->line = 0;
            } else if (*at != '\r') client->line = 1;
            at++;
            break;
        default:
            take = client->state == UNTIL_CLOSE || rest < (size_t)client->left ? rest : (size_t)client->left;
            scan(client, at, take, now);
            at += take;
            if (client->state == UNTIL_CLOSE) break;
            if ((client->left -= (int64_t)take) == 0) {
                if (client->state == FIXED) {
                    end_of_message(client);
                    return;
                }
                client->state = AFTER_DATA;
            }
        }
    }
}

static void send_request(Client *client) {
    char request[4096], body[512];
    int size = snprintf(body, sizeof body, "{\"model\":\"bench\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"bench %s id=%d of=%d\"}]}",
                        strstr(spec, "json") ? "false" : "true", spec, client->id, looping ? 1 : client_count);
    int all = snprintf(request, sizeof request, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAuthorization: Bearer bench\r\n%sContent-Length: %d\r\n\r\n%s",
                       path, host_port, headers, size, body);
    client->state = HEAD;
    if (send(client->fd, request, (size_t)all, MSG_NOSIGNAL) != all) end_answer(client, REFUSED);
}

static void start(Client *client) {
    int fd = client->fd, id = client->id;
    memset(client, 0, offsetof(Client, tail));
    client->id = id;
    client->began = now_ns();
    to_start--;
    started++;
    waiting++;
    open_now++;
    client->fd = fd;
    if (fd >= 0) {
        send_request(client);
        return;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(client->fd >= 0, "socket");
    no_delay(client->fd);
    if (rate) {
        int room = SLOW_READ;
        setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    }
    client->state = CONNECTING;
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        end_answer(client, REFUSED);
        return;
    }
    watch(client, EPOLLOUT, EPOLL_CTL_ADD);
}

static void ready(Client *client, uint32_t happened) {
    static char data[READ_ROOM];
    if (client->state == FREE) return;
    if (client->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || happened & EPOLLERR) {
            end_answer(client, REFUSED);
            return;
        }
        watch(client, EPOLLIN, EPOLL_CTL_MOD);
        send_request(client);
        return;
    }
    ssize_t got = recv(client->fd, data, rate ? SLOW_READ : READ_ROOM, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (got == 0 && client->state == UNTIL_CLOSE) end_of_message(client);
        else end_answer(client, CUT);
        return;
    }
    if (rate) { /* not again before these bytes are due */
        client->wake = now_ns() + got * 1000000000 / rate;
        watch(client, 0, EPOLL_CTL_MOD);
    }
    feed(client, data, (size_t)got);
}

/* --- the driver --- */

static void obey(const char *word) {
    if (!strcmp(word, "mark")) report("mark");
    else if (!strcmp(word, "leave")) leaving = 1;
    else if (!strcmp(word, "quit")) quitting = 1;
}

static void every_5_ms(void) {
    static int next;
    int64_t now = now_ns();
    if (leaving && next < client_count) {
        Client *client = &clients[next++];
        if (client->state != FREE) {
            int64_t left = now_ns();
            int id = client->id;
            end_answer(client, LEFT);
            printf("left %d %lld\n", id, (long long)left);
        }
    }
    for (int i = 0; rate && i < client_count; i++)
        if (clients[i].state != FREE && clients[i].wake && clients[i].wake <= now) {
            clients[i].wake = 0;
            watch(&clients[i], EPOLLIN, EPOLL_CTL_MOD);
        }
}

int main(int count, char **arguments) {
    if (count < 5) {
        fprintf(stderr, "client PORT hold|loop COUNT SPEC [NAME=VALUE ...]\n");
        return 2;
    }
    raise_fd_limit();
    setvbuf(stdout, NULL, _IOLBF, 0);
    port = (uint16_t)atoi(arguments[1]);
    looping = !strcmp(arguments[2], "loop");
    to_start = atoll(arguments[3]);
    snprintf(spec, sizeof spec, "%s", arguments[4]);
    snprintf(host_port, sizeof host_port, "127.0.0.1:%d", port);
    client_count = looping ? 8 : (int)to_start;
    for (int i = 5; i < count; i++) {
        char *name = arguments[i], *value = strchr(name, '=');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(name, "conns") && looping) client_count = atoi(value);
        else if (!strcmp(name, "keep")) keep = atoi(value);
        else if (!strcmp(name, "pending")) pending_limit = atoi(value);
        else if (!strcmp(name, "rate")) rate = atoll(value);
        else if (!strcmp(name, "path")) snprintf(path, sizeof path, "%s", value);
        else if (!strcmp(name, "header")) snprintf(headers + strlen(headers), sizeof headers - strlen(headers), "%s\r\n", value);
    }
    int64_t all = to_start;
    clients = calloc((size_t)client_count, sizeof *clients);
    must(clients != NULL, "memory");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    struct epoll_event in = {.events = EPOLLIN, .data.fd = -1}, tick = {.events = EPOLLIN, .data.fd = -2};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &in);
    int ticking = 0;
    for (int i = 0; i < client_count; i++) {
        clients[i].id = i;
        clients[i].fd = -1;
    }
    int next = 0;
    while (over < all && !quitting) {
        while (to_start > 0 && next < client_count && (looping || waiting < pending_limit)) start(&clients[next++]);
        if (!looping && !said_ready && to_start == 0 && waiting == 0) {
            printf("ready\n");
            said_ready = 1;
        }
        if ((leaving || rate) && !ticking) { /* only then: ticks cost what the events of others then wait for */
            struct itimerspec each = {.it_interval = {.tv_nsec = 5000000}, .it_value = {.tv_nsec = 5000000}};
            timerfd_settime(timer, 0, &each, NULL);
            epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &tick);
            ticking = 1;
        }
        struct epoll_event happened[TURN];
        int number = epoll_wait(epoll, happened, TURN, -1);
        for (int i = 0; i < number; i++) {
            int who = happened[i].data.fd;
            if (who == -1) { if (!commands(obey)) quitting = 1; }
            else if (who == -2) { uint64_t times; if (read(timer, &times, sizeof times) > 0) every_5_ms(); }
            else ready(&clients[who], happened[i].events);
        }
    }
    for (int i = 0; i < client_count; i++) end_answer(&clients[i], UNFINISHED);
    ends[UNFINISHED] += to_start > 0 ? to_start : 0;
    if (!said_ready) printf("ready\n");
    report("end");
    return ends[COMPLETE] + ends[LEFT] == all ? 0 : 1;
}
