/* The upstream of `make bench`: answers every POST as the words in its body ask, and says when a peer left in the middle.
 *
 * Behind "bench " in the request's body, all optional:
 *   us=N     microseconds between two events (0: as fast as the socket takes them)
 *   n=K      events of the answer (0: until the driver says "stop")
 *   silent=K say nothing after K events
 *   id=I of=C  stream I of C: their events are spread evenly over the interval
 *   json     no stream: one JSON answer
 *
 * stdout: "listening PORT", then "closed I NS" for each answer whose peer was gone before its end.
 * stdin:  "stop" ends every open answer properly; end of file ends the process. */
#include "wire.h"

/* Events of one stream before the next has its turn; each is a write of its own, as model servers do it. */
enum { AT_ONCE = 16, EVENT_ROOM = 320, OUT_ROOM = 2 * EVENT_ROOM + 512 };

typedef struct {
    int fd, streaming, in_heap; /* in_heap: place + 1 */
    int64_t id, interval, due, number, most, silent;
    int held, ending; /* held: the event at hand waited for a full socket */
    int64_t epoll;
    size_t in_used, in_room, out_at, out_used;
    char *in;
    char out[OUT_ROOM];
} Peer;

typedef struct {
    char text[EVENT_ROOM];
    size_t size, word, number, time, mark;
} Template;

static Peer *peers[MOST_FDS], *heap[MOST_FDS];
static int heap_size, epoll, listener, timer;
static Template first_event, next_event;
static const char words[][7] = {"silver", "marble", "garden", "window", "branch", "castle", "meadow", "bridge", "copper", "temple",
                                "valley", "harbor", "pepper", "candle", "forest", "kettle", "ribbon", "saddle", "violet", "walnut", "anchor", "basket", "magnet"};
enum { WORDS = sizeof words / sizeof *words };

/* --- the heap of streams by the time of their next event --- */

static void place(int at, Peer *peer) {
    heap[at] = peer;
    peer->in_heap = at + 1;
}

static void sift_up(int at) {
    Peer *peer = heap[at];
    for (int up; at && heap[up = (at - 1) / 2]->due > peer->due; at = up) place(at, heap[up]);
    place(at, peer);
}

static void sift_down(int at) {
    Peer *peer = heap[at];
    for (int down; (down = 2 * at + 1) < heap_size; at = down) {
        if (down + 1 < heap_size && heap[down + 1]->due < heap[down]->due) down++;
        if (heap[down]->due >= peer->due) break;
        place(at, heap[down]);
    }
    place(at, peer);
}

static void schedule(Peer *peer) {
    if (peer->in_heap) return;
    heap[heap_size] = peer;
    sift_up(heap_size++);
}

static void unschedule(Peer *peer) {
    if (!peer->in_heap) return;
    int at = peer->in_heap - 1;
    peer->in_heap = 0;
    Peer *last = heap[--heap_size];
    if (last == peer) return;
    place(at, last);
    sift_up(at);
    sift_down(last->in_heap - 1);
}

/* --- events --- */

static void make_template(Template *made, const char *role, size_t body_size) {
    char body[EVENT_ROOM];
    int padding = 0;
    for (int pass = 0; pass < 2; pass++) { /* padded so that an event is as long as a usual one */
        int size = snprintf(body, sizeof body,
                            "data: {\"id\":\"chatcmpl-%.*s\",\"object\":\"chat.completion.chunk\",\"created\":1763800000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
                            "\"delta\":{%s\"content\":\" WWWWWW ~%0*d@%0*d~\"},\"finish_reason\":null}]}\n\n",
                            padding, "0123456789abcdefghijklmnopqrstuvwxyz", role, NUMBER_DIGITS, 0, TIME_DIGITS, 0);
        padding = (int)body_size - size > 0 ? (int)body_size - size : 0;
    }
    made->size = (size_t)snprintf(made->text, sizeof made->text, "%zx\r\n%s\r\n", strlen(body), body);
    made->word = (size_t)(strstr(made->text, "WWWWWW") - made->text);
    made->number = (size_t)(strchr(made->text, '~') + 1 - made->text);
    made->time = made->number + NUMBER_DIGITS + 1;
    made->mark = made->time + TIME_DIGITS;
}

static void add_event(Peer *peer, int64_t sent, int last) {
    const Template *event = peer->number ? &next_event : &first_event;
    char *at = peer->out + peer->out_used;
    memcpy(at, event->text, event->size);
    memcpy(at + event->word, words[(peer->number * 7 + peer->number / WORDS) % WORDS], 6);
    put_digits(at + event->number, (uint64_t)peer->number, NUMBER_DIGITS);
    put_digits(at + event->time, (uint64_t)sent, TIME_DIGITS);
    if (last) at[event->mark] = '!';
    peer->out_used += event->size;
    peer->number++;
}

static void add_end(Peer *peer) {
    static const char end[] = "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1763800000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},"
                              "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    peer->out_used += (size_t)sprintf(peer->out + peer->out_used, "%zx\r\n%s\r\n0\r\n\r\n", sizeof end - 1, end);
    peer->streaming = 0;
}

static void watch(Peer *peer, int64_t events) {
    if (peer->epoll == events) return;
    struct epoll_event change = {.events = (uint32_t)events, .data.fd = peer->fd};
    epoll_ctl(epoll, peer->epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, peer->fd, &change);
    peer->epoll = events;
}

static void drop(Peer *peer) {
    if (peer->streaming) printf("closed %lld %lld\n", (long long)peer->id, (long long)now_ns());
    unschedule(peer);
    peers[peer->fd] = NULL;
    close(peer->fd);
    free(peer->in);
    free(peer);
}

/* Send what is pending. Returns 1 when all of it went, 0 when the socket is full, -1 when the peer is gone (and dropped). */
static int flush(Peer *peer) {
    while (peer->out_at < peer->out_used) {
        ssize_t sent = send(peer->fd, peer->out + peer->out_at, peer->out_used - peer->out_at, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            watch(peer, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
            return 0;
        }
        if (sent < 0) {
            drop(peer);
            return -1;
        }
        peer->out_at += (size_t)sent;
    }
    peer->out_at = peer->out_used = 0;
    return 1;
}

static int is_last(const Peer *peer) {
    return peer->ending || (peer->most && peer->number + 1 >= peer->most);
}

/* Say what is due, and arrange for what comes next. */
static void advance(Peer *peer) {
    for (int turn = 0; peer->streaming && turn < AT_ONCE; turn++) {
        int sent = flush(peer);
        if (sent < 0) return;
        if (sent == 0) {
            peer->held = 1;
            unschedule(peer);
            return;
        }
        int64_t now = now_ns();
        if (!peer->ending && peer->silent && peer->number >= peer->silent) {
            watch(peer, EPOLLIN | EPOLLRDHUP);
            return;
        }
        if (!peer->ending && peer->interval && peer->due > now) {
            watch(peer, EPOLLIN | EPOLLRDHUP);
            schedule(peer);
            return;
        }
        int last = is_last(peer);
        /* An event that a full socket held back carries the time at which it was due: waiting for the proxy counts as its delay. */
        add_event(peer, peer->held && peer->interval && peer->due < now ? peer->due : now, last);
        if (last) add_end(peer);
        peer->held = 0;
        unschedule(peer);
        peer->due += peer->interval;
    }
    int sent = flush(peer);
    if (sent < 0) return;
    if (!peer->streaming) {
        unschedule(peer);
        if (sent) watch(peer, EPOLLIN | EPOLLRDHUP);
    } else if (!peer->interval) {
        watch(peer, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    } else if (sent) {
        schedule(peer);
    } else {
        peer->held = 1;
    }
}

/* --- requests --- */

static void answer(Peer *peer, const char *body) {
    const char *asked = strstr(body, "bench ");
    int64_t now = now_ns();
    if (!asked || strstr(asked, "json")) {
        char text[512];
        int size = snprintf(text, sizeof text,
                            "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1763800000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
                            "\"assistant\",\"content\":\"~%0*d@%0*lld!\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9,\"total_tokens\":18}}",
                            NUMBER_DIGITS, 0, TIME_DIGITS, (long long)now);
        peer->out_used += (size_t)sprintf(peer->out + peer->out_used, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, text);
        flush(peer);
        return;
    }
    int64_t of = value_of(asked, "of=", 1);
    peer->id = value_of(asked, "id=", 0);
    peer->interval = value_of(asked, "us=", 0) * 1000;
    peer->most = value_of(asked, " n=", 0);
    peer->silent = value_of(asked, "silent=", 0);
    peer->number = 0;
    peer->ending = peer->held = 0;
    peer->streaming = 1;
    peer->out_used += (size_t)sprintf(peer->out + peer->out_used, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                                                                  "transfer-encoding: chunked\r\n\r\n");
    int last = is_last(peer);
    add_event(peer, now, last); /* the first at once; the others at their place in the interval, if the answer is long enough to have one */
    if (last) add_end(peer);
    peer->due = now + peer->interval;
    if (peer->interval && of > 1) {
        int64_t phase = peer->interval * (peer->id % of) / of;
        peer->due += (phase - peer->due % peer->interval + peer->interval) % peer->interval;
    }
    if (!peer->streaming) flush(peer);
    else advance(peer);
}

/* Take one whole request out of what was read. Returns 0 when there is none yet. */
static int take_request(Peer *peer) {
    if (peer->streaming) return 0;
    peer->in[peer->in_used] = 0;
    char *end = strstr(peer->in, "\r\n\r\n");
    if (!end) return 0;
    char *body = end + 4, *rest;
    *end = 0; /* the head ends here for the searches below */
    char *length = strcasestr(peer->in, "\ncontent-length:");
    int chunked = strcasestr(peer->in, "\ntransfer-encoding: chunked") != NULL;
    *end = '\r';
    if (chunked) {
        if (!(rest = strstr(body, "\r\n0\r\n\r\n"))) return 0;
        rest += 7;
    } else {
        rest = body + (length ? strtoul(length + 16, NULL, 10) : 0);
        if (rest > peer->in + peer->in_used) return 0;
    }
    char kept = *rest;
    size_t left = (size_t)(peer->in + peer->in_used - rest);
    *rest = 0;
    int fd = peer->fd;
    answer(peer, body);
    if (peers[fd] != peer) return 0;
    *rest = kept;
    memmove(peer->in, rest, left);
    peer->in_used = left;
    return 1;
}

static void readable(Peer *peer) {
    if (peer->in_room - peer->in_used < 4096) {
        peer->in_room = peer->in_room * 2 + 8192;
        peer->in = realloc(peer->in, peer->in_room);
        must(peer->in != NULL, "memory");
    }
    ssize_t got = recv(peer->fd, peer->in + peer->in_used, peer->in_room - peer->in_used - 1, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        drop(peer);
        return;
    }
    peer->in_used += (size_t)got;
    int fd = peer->fd;
    while (peers[fd] == peer && take_request(peer)) {}
}

static void accept_all(void) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= MOST_FDS) {
            close(fd);
            continue;
        }
        no_delay(fd);
        Peer *peer = malloc(sizeof *peer);
        must(peer != NULL, "memory");
        memset(peer, 0, offsetof(Peer, out));
        peer->fd = fd;
        peers[fd] = peer;
        watch(peer, EPOLLIN | EPOLLRDHUP);
    }
}

static void obey(const char *word) {
    if (strcmp(word, "stop")) return;
    for (int fd = 0; fd < MOST_FDS; fd++)
        if (peers[fd] && peers[fd]->streaming) {
            peers[fd]->ending = 1;
            advance(peers[fd]);
        }
}

int main(int count, char **arguments) {
    raise_fd_limit();
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_template(&first_event, "\"role\":\"assistant\",", 220);
    make_template(&next_event, "", 220);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(count > 1 ? (uint16_t)atoi(arguments[1]) : 0)};
    socklen_t size = sizeof address;
    int one = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    must(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 8192) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    for (int i = 0; i < 3; i++) {
        int fd = i == 0 ? 0 : i == 1 ? listener : timer;
        struct epoll_event in = {.events = EPOLLIN, .data.fd = fd};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &in) == 0, "epoll");
    }
    printf("listening %d\n", ntohs(address.sin_port));
    for (int64_t armed = 0;;) {
        int64_t due = heap_size ? heap[0]->due : 0;
        if (due != armed) {
            struct itimerspec when = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
            armed = due;
        }
        struct epoll_event ready[TURN];
        int number = epoll_wait(epoll, ready, TURN, -1);
        for (int i = 0; i < number; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) accept_all();
            else if (fd == 0) { if (!commands(obey)) return 0; }
            else if (fd == timer) { uint64_t times; armed = read(timer, &times, sizeof times) < 0 ? armed : 0; }
            else if (peers[fd] && ready[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable(peers[fd]);
            if (fd != listener && fd != 0 && fd != timer && peers[fd] && ready[i].events & EPOLLOUT) {
                Peer *peer = peers[fd];
                if (peer->streaming) advance(peer);
                else if (flush(peer) > 0) watch(peer, EPOLLIN | EPOLLRDHUP);
            }
        }
        for (int64_t now = now_ns(); heap_size && heap[0]->due <= now;) {
            Peer *peer = heap[0];
            unschedule(peer);
            advance(peer);
        }
    }
}
