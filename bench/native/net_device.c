/*
 * The C reference of bench/net_bench.ts: frames from one guest's transmit ring to another's receive ring, both split, the way
 * a careful C implementation would do it. The same duties as the packages: acquire and release on the ring indexes, one
 * publish per batch and ring; each field of a descriptor and of a header read once and checked; no more chains than a ring has
 * entries; buffers merged as VIRTIO_NET_F_MRG_RXBUF has it, none of them written before there are enough; the first bytes of a
 * frame looked at in a copy. There is no filter and no switch in it.
 *
 * The same places, sizes and batches as in bench/net_world.ts. Compiled at run time with -O2 by compile.ts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, NO_INTERRUPT = 1 };
enum {
  DESCRIPTORS = 0x1000,
  DRIVER_AREA = 0x3000,
  DEVICE_AREA = 0x4000,
  DATA = 0x10000,
  MEMORY_SIZE = 0x200000,
  ENTRIES = 256,
  HEADER = 12,
  PIECE = 32768,
  ETHERNET = 14,
  MAX_FRAME = 65597,
  NEEDS_CSUM = 1,
  GSO_ECN = 0x80,
  HEAD = 256,
};

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};

struct used_element {
  uint32_t id;
  uint32_t length;
};

struct guest {
  uint8_t *memory;
  uint16_t available, next_avail, next_used, added;
  uint32_t broken;
};

struct chain {
  uint32_t id, count;
  uint64_t bytes;
  uint8_t *segments[ENTRIES];
  uint32_t lengths[ENTRIES];
};

struct net {
  struct guest sender, receiver;
  uint32_t frame, batch, buffer, buffers;
  uint64_t frames, bytes, dropped, interrupts;
  struct chain tx;
  struct chain rx[ENTRIES];
};

static inline uint16_t *u16_at(struct guest *g, uint64_t offset) {
  return (uint16_t *)(g->memory + offset);
}

static inline uint8_t *translate(struct guest *g, uint64_t address, uint64_t length) {
  if (address > MEMORY_SIZE || length > MEMORY_SIZE - address) return NULL;
  return g->memory + address;
}

/* The next chain; every buffer of it must be of the wanted direction. 0: there is none, or the ring is broken. */
static inline int pop(struct guest *g, struct chain *c, uint16_t seen, int writable) {
  const struct descriptor *table = (const struct descriptor *)(g->memory + DESCRIPTORS);
  if (g->broken || g->next_avail == seen) return 0;
  if ((uint16_t)(seen - g->next_avail) > ENTRIES) goto broken;
  uint32_t index = *u16_at(g, DRIVER_AREA + 4 + 2 * (g->next_avail % ENTRIES));
  c->id = index;
  c->count = 0;
  c->bytes = 0;
  for (;;) {
    if (index >= ENTRIES || c->count == ENTRIES) goto broken;
    uint64_t words[2];
    words[0] = __atomic_load_n((const uint64_t *)&table[index], __ATOMIC_RELAXED);
    words[1] = __atomic_load_n((const uint64_t *)&table[index] + 1, __ATOMIC_RELAXED);
    struct descriptor d;
    memcpy(&d, words, sizeof d);
    if ((d.flags & DESC_INDIRECT) || !(d.flags & DESC_WRITE) != !writable) goto broken;
    uint8_t *at = translate(g, d.address, d.length);
    if (at == NULL) goto broken;
    c->segments[c->count] = at;
    c->lengths[c->count] = d.length;
    c->count++;
    c->bytes += d.length;
    if (!(d.flags & DESC_NEXT)) break;
    index = d.next;
  }
  g->next_avail++;
  return 1;
broken:
  g->broken = 1;
  return 0;
}

static inline void push(struct guest *g, uint32_t id, uint32_t length) {
  struct used_element *ring = (struct used_element *)(g->memory + DEVICE_AREA + 4);
  ring[g->next_used % ENTRIES] = (struct used_element){ id, length };
  g->next_used++;
  g->added++;
}

/* Publishes; whether the driver wants to know. */
static inline int flush(struct guest *g) {
  if (g->added == 0) return 0;
  g->added = 0;
  __atomic_store_n(u16_at(g, DEVICE_AREA + 2), g->next_used, __ATOMIC_SEQ_CST);
  return !(__atomic_load_n(u16_at(g, DRIVER_AREA), __ATOMIC_SEQ_CST) & NO_INTERRUPT);
}

static void gather(const struct chain *c, uint8_t *into, uint32_t length) {
  uint32_t done = 0;
  for (uint32_t i = 0; i < c->count && done < length; i++) {
    uint32_t part = c->lengths[i] < length - done ? c->lengths[i] : length - done;
    memcpy(into + done, c->segments[i], part);
    done += part;
  }
}

/* From one chain, behind its header, to as many buffers as it takes. */
static int deliver(struct net *n, const struct chain *tx, uint16_t seen) {
  uint64_t length = tx->bytes - HEADER;
  uint64_t need = length + HEADER;
  uint64_t room = 0;
  uint32_t count = 0;
  uint16_t before = n->receiver.next_avail;
  while (room < need) {
    struct chain *rx = &n->rx[count];
    if (count == ENTRIES || !pop(&n->receiver, rx, seen, 1)) {
      n->receiver.next_avail = before;
      return 0;
    }
    if (rx->bytes < HEADER) {
      n->receiver.broken = 1;
      return 0;
    }
    room += rx->bytes;
    count++;
  }
  uint8_t head[HEADER + HEAD];
  uint32_t own = need < sizeof head ? need : sizeof head;
  gather(tx, head, own);
  memset(head, 0, HEADER);
  head[10] = count;
  head[11] = count >> 8;
  uint32_t from = 0, within = own;
  while (from < tx->count && within >= tx->lengths[from]) within -= tx->lengths[from++];
  uint64_t done = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct chain *rx = &n->rx[i];
    uint32_t written = 0;
    for (uint32_t k = 0; k < rx->count && done < need; k++) {
      uint8_t *to = rx->segments[k];
      uint32_t left = rx->lengths[k];
      while (left > 0 && done < need) {
        uint32_t part;
        if (done < own) {
          part = own - done < left ? own - done : left;
          memcpy(to, head + done, part);
        } else {
          part = tx->lengths[from] - within < left ? tx->lengths[from] - within : left;
          memcpy(to, tx->segments[from] + within, part);
          within += part;
          if (within == tx->lengths[from]) {
            from++;
            within = 0;
          }
        }
        to += part;
        left -= part;
        written += part;
        done += part;
      }
    }
    push(&n->receiver, rx->id, written);
  }
  n->frames++;
  n->bytes += length;
  return 1;
}

static void transmit(struct net *n, uint16_t seen) {
  const struct chain *tx = &n->tx;
  uint8_t header[HEADER];
  if (tx->bytes < HEADER) {
    n->sender.broken = 1;
    return;
  }
  gather(tx, header, HEADER);
  uint64_t length = tx->bytes - HEADER;
  int plain = !(header[0] & NEEDS_CSUM) && !(header[1] & ~GSO_ECN);
  if (length < ETHERNET || length > MAX_FRAME || !plain || !deliver(n, tx, seen)) n->dropped++;
}

/* Sends batches. Gives the number of frames that were received, or 0 if something went wrong. */
EXPORT uint32_t net_run(struct net *n, uint32_t batches) {
  uint64_t before = n->frames;
  for (uint32_t b = 0; b < batches; b++) {
    n->receiver.available += n->buffers;
    __atomic_store_n(u16_at(&n->receiver, DRIVER_AREA + 2), n->receiver.available, __ATOMIC_SEQ_CST);
    n->sender.available += n->batch;
    __atomic_store_n(u16_at(&n->sender, DRIVER_AREA + 2), n->sender.available, __ATOMIC_SEQ_CST);
    uint16_t seen = __atomic_load_n(u16_at(&n->sender, DRIVER_AREA + 2), __ATOMIC_ACQUIRE);
    uint16_t there = __atomic_load_n(u16_at(&n->receiver, DRIVER_AREA + 2), __ATOMIC_ACQUIRE);
    while (pop(&n->sender, &n->tx, seen, 0)) {
      transmit(n, there);
      push(&n->sender, n->tx.id, 0);
    }
    n->interrupts += flush(&n->sender);
    n->interrupts += flush(&n->receiver);
  }
  if (n->sender.broken || n->receiver.broken || n->dropped) return 0;
  return n->frames - before;
}

static void put(struct guest *g, uint32_t index, struct descriptor d) {
  memcpy(g->memory + DESCRIPTORS + 16 * index, &d, sizeof d);
}

/* Whether the last frame of a batch is in the receiver's memory as it was in the sender's. */
EXPORT int net_check(struct net *n) {
  uint32_t size = n->frame + HEADER;
  uint32_t per = n->buffers / n->batch;
  const uint8_t *from = n->sender.memory + DATA + (uint64_t)(n->batch - 1) * ((size + 63) / 64 * 64);
  const struct used_element *ring =
      (const struct used_element *)(n->receiver.memory + DEVICE_AREA + 4);
  for (uint32_t i = 0; i < per; i++) {
    struct used_element used = ring[(uint16_t)(n->receiver.next_used - per + i) % ENTRIES];
    uint32_t skip = i == 0 ? HEADER : 0;
    uint32_t left = size - i * n->buffer;
    if (used.length != (left < n->buffer ? left : n->buffer)) return 0;
    const uint8_t *at = n->receiver.memory + DATA + (uint64_t)n->buffer * used.id;
    if (memcmp(at + skip, from + (uint64_t)i * n->buffer + skip, used.length - skip) != 0) return 0;
  }
  return 1;
}

EXPORT void net_close(struct net *n) {
  free(n->sender.memory);
  free(n->receiver.memory);
  free(n);
}

EXPORT struct net *net_open(uint32_t frame, uint32_t batch, uint32_t buffer) {
  struct net *n = calloc(1, sizeof *n);
  if (n == NULL) return NULL;
  n->frame = frame;
  n->batch = batch;
  n->buffer = buffer;
  n->buffers = batch * ((frame + HEADER + buffer - 1) / buffer);
  n->sender.memory = aligned_alloc(4096, MEMORY_SIZE);
  n->receiver.memory = aligned_alloc(4096, MEMORY_SIZE);
  if (n->sender.memory == NULL || n->receiver.memory == NULL) {
    net_close(n);
    return NULL;
  }
  memset(n->sender.memory, 0, MEMORY_SIZE);
  memset(n->receiver.memory, 0, MEMORY_SIZE);
  uint32_t size = frame + HEADER;
  uint32_t pieces = (size + PIECE - 1) / PIECE;
  for (uint32_t i = 0; i < batch; i++) {
    uint64_t at = DATA + (uint64_t)i * ((size + 63) / 64 * 64);
    for (uint32_t k = 0; k < frame; k++) n->sender.memory[at + HEADER + k] = i + 7 * k;
    for (uint32_t k = 0; k < pieces; k++) {
      int last = k + 1 == pieces;
      put(&n->sender, pieces * i + k,
          (struct descriptor){ at + (uint64_t)k * PIECE, last ? size - k * PIECE : PIECE,
                               last ? 0 : DESC_NEXT, pieces * i + k + 1 });
    }
  }
  for (uint32_t i = 0; i < ENTRIES; i++) {
    *u16_at(&n->sender, DRIVER_AREA + 4 + 2 * i) = pieces * (i % batch);
    put(&n->receiver, i, (struct descriptor){ DATA + (uint64_t)buffer * i, buffer, DESC_WRITE, 0 });
    *u16_at(&n->receiver, DRIVER_AREA + 4 + 2 * i) = i;
  }
  return n;
}
