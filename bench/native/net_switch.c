/*
 * The C loop of bench:net: frames from one driver to another through two network devices and a switch, the way a careful C
 * implementation would move them. The same work as tools/bench_net/ours.ts, on the rings of reference.c: the sender copies a
 * frame behind its header into blocks of guest memory; the device checks the header, fetches the head of the frame into
 * memory that no driver can change, learns the sender and finds the receiver in a hash table of addresses, and copies the
 * rest from one guest's memory into merged receive buffers of the other's; the receiver checks what the device says, copies
 * the frame out, and gives the buffers back in batches. VIRTIO_F_EVENT_IDX and VIRTIO_F_INDIRECT_DESC are in use.
 */
#include "reference.c"

#include <time.h>

enum {
  NET_HEADER = 12,
  NET_MIN = 14,
  NET_MAX = 65602,
  BLOCK = 4096,
  HEAD = 256,
  QUEUE = 256,
  SLOTS = 16384,
  READS = 64,
  AGE = 300000,
  TABLE_SIZE = 16 * 17,
  MAX_MERGED = 32,
};

struct station {
  uint32_t high, low;
  int32_t port;
  double heard;
};

struct counts {
  uint64_t frames_in, bytes_in, frames_out, bytes_out, drops;
};

struct net {
  /* The transmit queue of the first guest, the receive queue of the second. */
  struct world *tx;
  struct world *rx;
  uint32_t length, batch;
  uint32_t waiting_drops, malformed;
  /* The switch. */
  struct station *stations;
  uint32_t seed;
  double now;
  uint32_t clock_left;
  struct counts ports[2];
  /* The sender: blocks of guest memory that are free, and for each the next one of its frame plus 1. */
  uint16_t free[QUEUE], links[QUEUE];
  uint32_t free_count;
  /* The receiver: buffers that are to be given back. */
  uint16_t spare[QUEUE];
  uint32_t spare_count;
  uint64_t received, received_bytes, dropped;
  uint8_t head[HEAD];
  uint8_t frame[NET_MAX + 2];
  uint8_t out[NET_MAX + 2];
};

/* ---- one queue of either format ---- */

static inline int add(struct world *w, const struct buffer *b, uint64_t token, uint64_t table) {
  return w->format == SPLIT ? split_add(w, b, token, table) : packed_add(w, b, token, table);
}

static inline int publish(struct world *w) {
  return w->format == SPLIT ? split_publish(w) : packed_publish(w);
}

static inline struct chain *pop(struct world *w) {
  return w->format == SPLIT ? split_pop(w) : packed_pop(w);
}

static inline void push(struct world *w, struct chain *c, uint32_t written) {
  if (w->format == SPLIT) split_push(w, c, written);
  else packed_push(w, c, written);
}

static inline int flush(struct world *w) {
  return w->format == SPLIT ? split_flush(w) : packed_flush(w);
}

static inline void set_event(struct world *w, uint64_t area, uint32_t word) {
  __atomic_store_n((id_and_flags *)(w->memory + area), word, __ATOMIC_RELAXED);
}

/* No kicks, while the device looks anyway. With VIRTIO_F_EVENT_IDX a split ring has them only at the index it named. */
static inline void device_suspend(struct world *w) {
  if (w->format == PACKED) set_event(w, DEVICE_AREA, 1u << 16);
}

/* Asks for a kick at the next chain. Whether there is one already. */
static inline int device_arm(struct world *w) {
  if (w->format == SPLIT) {
    *u16_at(w, DEVICE_AREA + 4 + 8 * w->size) = w->device_next_avail;
    atomic_thread_fence(memory_order_seq_cst);
    return load_acquire(u16_at(w, DRIVER_AREA + 2)) != w->device_next_avail;
  }
  set_event(w, DEVICE_AREA, w->slot_avail | w->wrap_avail << 15 | 2u << 16);
  atomic_thread_fence(memory_order_seq_cst);
  return packed_look(w);
}

static inline void driver_suspend(struct world *w) {
  if (w->format == PACKED) set_event(w, DRIVER_AREA, 1u << 16);
}

static inline int driver_arm(struct world *w) {
  if (w->format == SPLIT) {
    *u16_at(w, DRIVER_AREA + 4 + 2 * w->size) = w->driver_next_used;
    atomic_thread_fence(memory_order_seq_cst);
    return load_acquire(u16_at(w, DEVICE_AREA + 2)) != w->driver_next_used;
  }
  set_event(w, DRIVER_AREA, w->next_used_slot | w->driver_wrap_used << 15 | 2u << 16);
  atomic_thread_fence(memory_order_seq_cst);
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint16_t expected = w->driver_wrap_used ? DESC_AVAIL | DESC_USED : 0;
  return (load_acquire(&ring[w->next_used_slot].flags) & (DESC_AVAIL | DESC_USED)) == expected;
}

/* The next used buffer; `seen` is how far a split ring was looked at. */
static inline int take(struct world *w, uint16_t *seen, uint64_t *token, uint32_t *length) {
  if (w->format == PACKED) return packed_take(w, token, length);
  if (w->driver_next_used == *seen) *seen = split_seen(w);
  return split_take(w, *seen, token, length);
}

/* ---- the switch ---- */

static COLD double real_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static inline double coarse_clock(struct net *n) {
  if (n->clock_left == 0) {
    n->now = real_clock();
    n->clock_left = READS;
  }
  n->clock_left--;
  return n->now;
}

static inline struct station *station_slot(struct net *n, uint32_t high, uint32_t low) {
  uint32_t h = (high ^ n->seed) * 0x9e3779b1u;
  h = (h ^ (h >> 15) ^ low) * 0x85ebca6bu;
  h ^= h >> 13;
  for (uint32_t i = h & (SLOTS - 1);; i = (i + 1) & (SLOTS - 1)) {
    struct station *s = &n->stations[i];
    if (s->port < 0 || (s->high == high && s->low == low)) return s;
  }
}

static inline uint32_t read_be24(const uint8_t *at) {
  return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

/* The port of the receiver; -1 if the frame goes nowhere. */
static inline int switch_frame(struct net *n, const uint8_t *head, int from) {
  uint32_t to_high = read_be24(head), to_low = read_be24(head + 3);
  uint32_t high = read_be24(head + 6), low = read_be24(head + 9);
  if ((high & 0x10000) != 0 || (high | low) == 0) return -1;
  /* A tag would say which VLAN it is. */
  if (head[12] == 0x81 && head[13] == 0) return -1;
  double now = coarse_clock(n);
  struct station *s = station_slot(n, high, low);
  if (s->port != from) {
    s->high = high;
    s->low = low;
    s->port = from;
  }
  s->heard = now;
  if ((to_high & 0x10000) != 0) return -1;
  struct station *to = station_slot(n, to_high, to_low);
  if (to->port < 0 || now - to->heard > AGE || to->port == from) return -1;
  return to->port;
}

/* ---- the devices ---- */

static inline void header_put(uint8_t *at, uint16_t header_length, uint16_t buffers) {
  memset(at, 0, NET_HEADER);
  memcpy(at + 2, &header_length, 2);
  memcpy(at + 10, &buffers, 2);
}

/* Copies to where a chain's writer stands, as much as there is room for. */
static inline uint32_t write_from(struct chain *to, const uint8_t *from, uint32_t length) {
  uint32_t done = 0;
  uint8_t *piece;
  uint32_t part;
  while (done < length && (part = cursor_next(to, &to->writer, length - done, &piece)) > 0) {
    memcpy(piece, from + done, part);
    done += part;
  }
  return done;
}

static inline uint32_t write_reader(struct chain *to, struct chain *from, uint32_t length) {
  uint32_t done = 0;
  uint8_t *piece;
  while (done < length && to->writer.left > 0) {
    uint64_t max = length - done < to->writer.left ? length - done : to->writer.left;
    uint32_t part = cursor_next(from, &from->reader, max, &piece);
    if (part == 0) break;
    done += write_from(to, piece, part);
  }
  return done;
}

/* Puts a frame into the receiver's buffers: the whole of it, or nothing. */
static int deliver(struct net *n, struct chain *from, uint32_t length, uint32_t head_length) {
  struct world *w = n->rx;
  struct chain *chains[MAX_MERGED];
  uint32_t count = 0;
  uint64_t room = 0;
  while (room < NET_HEADER + length) {
    struct chain *c = count < MAX_MERGED ? pop(w) : NULL;
    if (c == NULL || c->writable < NET_HEADER) {
      w->broken = 1;
      return 0;
    }
    chains[count++] = c;
    room += c->writable;
  }
  uint8_t header[NET_HEADER];
  header_put(header, 0, count);
  write_from(chains[0], header, NET_HEADER);
  uint32_t at = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct chain *c = chains[i];
    if (at < head_length) at += write_from(c, n->head + at, head_length - at);
    if (at >= head_length && at < length) at += write_reader(c, from, length - at);
    push(w, c, c->writable - c->writer.left);
  }
  return 1;
}

static void transmit(struct net *n, struct chain *c) {
  uint8_t header[NET_HEADER];
  if (!reader_read(c, header, sizeof header)) {
    n->tx->broken = 1;
    return;
  }
  uint64_t length = c->reader.left;
  if (length < NET_MIN || length > NET_MAX || header[0] != 0 || header[1] != 0) {
    n->malformed++;
    return;
  }
  uint32_t head_length = length < HEAD ? length : HEAD;
  if (!reader_read(c, n->head, head_length)) return;
  n->ports[0].frames_in++;
  n->ports[0].bytes_in += length;
  int port = switch_frame(n, n->head, 0);
  if (port != 1) {
    n->ports[0].drops++;
    return;
  }
  if (!deliver(n, c, length, head_length)) return;
  n->ports[1].frames_out++;
  n->ports[1].bytes_out += length;
}

static void device_run(struct net *n) {
  struct world *w = n->tx;
  struct chain *c;
  do {
    device_suspend(w);
    while ((c = pop(w)) != NULL) {
      transmit(n, c);
      push(w, c, 0);
    }
    flush(w);
  } while (!w->broken && device_arm(w));
}

/* ---- the drivers ---- */

static void give_back(struct net *n, uint32_t first) {
  uint32_t block = first;
  for (;;) {
    n->free[n->free_count++] = block;
    if (n->links[block] == 0) return;
    block = n->links[block] - 1;
  }
}

static COLD void reclaim(struct net *n) {
  uint16_t seen = n->tx->driver_next_used;
  uint64_t token;
  uint32_t length;
  while (take(n->tx, &seen, &token, &length)) give_back(n, token);
}

static int send_frame(struct net *n) {
  struct world *w = n->tx;
  uint32_t left = NET_HEADER + n->length;
  uint32_t parts = (left + BLOCK - 1) / BLOCK;
  if (n->free_count < parts || w->free_count < 1) {
    reclaim(n);
    if (n->free_count < parts || w->free_count < 1) return 0;
  }
  struct buffer b;
  buffer_clear(&b);
  uint32_t at = n->free_count;
  uint32_t first = n->free[at - 1];
  uint32_t last = first;
  for (uint32_t i = 0; i < parts; i++, left -= BLOCK) {
    uint32_t block = n->free[--at];
    buffer_readable(&b, DATA + (uint64_t)BLOCK * block, left < BLOCK ? left : BLOCK);
    if (i > 0) n->links[last] = block + 1;
    last = block;
  }
  n->links[last] = 0;
  if (!add(w, &b, first, parts > 1 ? HEADERS - (uint64_t)TABLE_SIZE * (first + 1) : 0)) return 0;
  n->free_count = at;
  uint32_t done = 0;
  uint32_t block = first;
  uint8_t *to = w->memory + DATA + (uint64_t)BLOCK * block;
  header_put(to, n->length < HEAD ? n->length : HEAD, 0);
  uint32_t room = BLOCK - NET_HEADER;
  to += NET_HEADER;
  for (;;) {
    uint32_t part = n->length - done < room ? n->length - done : room;
    memcpy(to, n->frame + done, part);
    done += part;
    if (done == n->length) return 1;
    block = n->links[block] - 1;
    to = w->memory + DATA + (uint64_t)BLOCK * block;
    room = BLOCK;
  }
}

static void fill(struct net *n) {
  struct world *w = n->rx;
  while (n->spare_count > 0) {
    struct buffer b;
    uint32_t buffer = n->spare[n->spare_count - 1];
    buffer_clear(&b);
    buffer_writable(&b, DATA + (uint64_t)BLOCK * buffer, BLOCK);
    if (!add(w, &b, buffer, 0)) break;
    n->spare_count--;
  }
  publish(w);
}

/* The next frame. 1: there is one, 0: one was dropped, -1: there is none. */
static int next_frame(struct net *n, uint16_t *seen) {
  struct world *w = n->rx;
  uint64_t token;
  uint32_t used;
  if (!take(w, seen, &token, &used)) return -1;
  n->spare[n->spare_count++] = token;
  if (used < NET_HEADER) {
    w->broken = 1;
    return -1;
  }
  uint8_t *at = w->memory + DATA + BLOCK * token;
  uint16_t parts;
  memcpy(&parts, at + 10, 2);
  if (parts == 0) {
    w->broken = 1;
    return -1;
  }
  uint32_t length = used - NET_HEADER;
  memcpy(n->out, at + NET_HEADER, length);
  int full = used == BLOCK;
  for (uint32_t i = 1; i < parts; i++) {
    if (!full || !take(w, seen, &token, &used)) {
      w->broken = 1;
      return -1;
    }
    n->spare[n->spare_count++] = token;
    full = used == BLOCK;
    if (length + used > sizeof n->out) {
      w->broken = 1;
      return -1;
    }
    memcpy(n->out + length, w->memory + DATA + BLOCK * token, used);
    length += used;
  }
  if (length < NET_MIN || at[0] != 0 || at[1] != 0) {
    n->dropped++;
    return 0;
  }
  n->received++;
  n->received_bytes += length;
  return 1;
}

static void receive(struct net *n) {
  uint16_t seen = n->rx->driver_next_used;
  driver_suspend(n->rx);
  for (;;) {
    int found = next_frame(n, &seen);
    if (found >= 0) {
      if (n->spare_count * 4 >= QUEUE) fill(n);
      continue;
    }
    fill(n);
    if (n->rx->broken || !driver_arm(n->rx)) return;
    driver_suspend(n->rx);
  }
}

/* ---- what the benchmark calls ---- */

EXPORT void net_close(struct net *n) {
  if (n == NULL) return;
  world_close(n->tx);
  world_close(n->rx);
  free(n->stations);
  free(n);
}

EXPORT struct net *net_open(int format, uint32_t length, uint32_t batch) {
  static const uint8_t addresses[12] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };
  if (length < NET_MIN || length > NET_MAX) return NULL;
  struct net *n = calloc(1, sizeof *n);
  if (n == NULL) return NULL;
  n->tx = world_open(format, SINGLE, QUEUE, 1, 1);
  n->rx = world_open(format, SINGLE, QUEUE, 1, 1);
  n->stations = calloc(SLOTS, sizeof *n->stations);
  if (n->tx == NULL || n->rx == NULL || n->stations == NULL) {
    net_close(n);
    return NULL;
  }
  n->tx->indirect = n->rx->indirect = 1;
  n->tx->event_idx = n->rx->event_idx = 1;
  n->length = length;
  n->batch = batch;
  n->seed = (uint32_t)real_clock();
  for (uint32_t i = 0; i < SLOTS; i++) n->stations[i].port = -1;
  for (uint32_t i = 0; i < QUEUE; i++) n->free[i] = n->spare[i] = i;
  n->free_count = n->spare_count = QUEUE;
  for (uint32_t i = 0; i < length; i++) n->frame[i] = i * 37 + (i >> 8) * 11;
  memcpy(n->frame, addresses, sizeof addresses);
  n->frame[12] = 0x88;
  n->frame[13] = 0xb5;
  /* The receiver was heard once. */
  struct station *s = station_slot(n, 0x020000, 2);
  *s = (struct station){ 0x020000, 2, 1, real_clock() };
  device_arm(n->tx);
  fill(n);
  driver_arm(n->rx);
  return n;
}

/* Sends batches of frames. How many the receiver got; 0 if anything is wrong. */
EXPORT uint32_t net_run(struct net *n, uint32_t batches) {
  uint64_t before = n->received;
  for (uint32_t k = 0; k < batches; k++) {
    for (uint32_t i = 0; i < n->batch; i++) {
      if (!send_frame(n)) return 0;
    }
    if (publish(n->tx)) device_run(n);
    if (flush(n->rx)) receive(n);
    if (n->tx->broken || n->rx->broken) return 0;
  }
  return (uint32_t)(n->received - before);
}

/* Whether the last frame came as it was sent, and none was lost. */
EXPORT int net_check(struct net *n) {
  return memcmp(n->frame, n->out, n->length) == 0 && n->malformed == 0 && n->dropped == 0 &&
         n->ports[0].drops == 0;
}
