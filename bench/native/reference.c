/*
 * The C reference of bench:peers: the device side and the driver side of both ring formats, written the way a careful C
 * implementation would be. The same work as bench/work.ts, and the same duties as the packages, whether a run makes use of
 * them or not: acquire and release on the ring indexes, one publish per batch; each field of a descriptor read once and
 * checked; guest memory of several regions; chains of a pool, since a device may complete them later and in any order,
 * each used once, with no more bytes than it has; cursors, since a driver may cut a request into descriptors as it likes;
 * VIRTIO_F_EVENT_IDX, and VIRTIO_F_IN_ORDER in the device; dirty logging; a driver that believes the device nothing.
 *
 * Compiled at run time with -O2 by bench/native/native.ts into .cache/. It is the yardstick, not a part of the packages.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
/* What a run of the benchmark never needs is kept out of the way of what it does. */
#define COLD __attribute__((noinline, cold))

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { SPLIT = 0, PACKED = 1 };
enum { SINGLE = 0, BLK3 = 1, IND3 = 2 };

/* Where things lie in guest memory: the same places as in bench/work.ts. */
enum {
  DESCRIPTORS = 0x10000,
  DRIVER_AREA = 0xa0000,
  DEVICE_AREA = 0xc0000,
  TABLES = 0x110000,
  HEADERS = 0x120000,
  STATUS = 0x130000,
  DATA = 0x200000,
  MEMORY_SIZE = 0x400000,
  DATA_SIZE = 4096,
  HEADER_SIZE = 16,
  MAX_SEGMENTS = 64,
  MAX_SIZE = 32768,
  MAX_INDIRECT = 1024,
  MAX_REGIONS = 8,
};

/* The longest chain (2.7.5.2). */
#define MAX_CHAIN_BYTES 0x100000000ull

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};

struct packed_descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t id;
  uint16_t flags;
};

struct used_element {
  uint32_t id;
  uint32_t length;
};

/* The id and the flags of a packed descriptor as one word. */
typedef uint32_t __attribute__((may_alias)) id_and_flags;

/* A range of guest-physical addresses and where it is. */
struct region {
  uint64_t base;
  uint64_t size;
  uint8_t *host;
};

/* A place in a part of a chain. */
struct cursor {
  uint32_t segment;
  uint32_t within;
  uint64_t left;
};

/* Whose a chain is. */
enum { IN_POOL = 0, IN_FLIGHT = 1, HELD = 2 };

/* A popped chain: the device-readable segments, then the device-writable ones. */
struct chain {
  struct world *world;
  uint32_t owner;
  uint32_t id;
  uint32_t slots;
  uint32_t count;
  uint32_t readable_count;
  uint32_t held;
  uint64_t readable;
  uint64_t writable;
  struct cursor reader;
  struct cursor writer;
  uint8_t *segments[MAX_SEGMENTS];
  uint32_t lengths[MAX_SEGMENTS];
};

struct world {
  uint8_t *memory;
  uint64_t memory_size;
  uint8_t *disk;
  uint64_t disk_size;
  int format;
  int shape;
  uint32_t size;
  uint32_t batch;
  uint32_t broken;
  uint32_t sum;

  /* What was negotiated. */
  uint32_t indirect, event_idx, in_order;

  /* Guest memory, sorted by base; where an address was found last. */
  struct region regions[MAX_REGIONS];
  uint32_t region_count;
  const struct region *found;
  /* Dirty logging: a bit for each page of 4 KiB, or NULL. */
  uint8_t *dirty;

  /* Device side. */
  uint16_t device_next_avail, device_seen_avail, device_next_used, device_added;
  uint32_t slot_avail, slot_used, head_slot;
  uint32_t wrap_avail, wrap_used, head_word, device_in_flight, added_slots;
  /* The chains that are free, the one used last on top. */
  struct chain **pool;
  uint32_t pool_count;
  /* In-order: chains that are not used yet, a ring. */
  struct chain **order;
  uint32_t oldest, waiting;
  /* What the block device did. */
  struct { uint64_t requests, reads, errors, bytes_read; } stats;

  /* Driver side. */
  uint32_t free_count, first_free, next_avail_slot, next_used_slot, in_flight;
  uint32_t driver_wrap_avail, driver_wrap_used, first_id, id_count, driver_batch, driver_added;
  uint32_t driver_head, driver_head_flags;
  uint16_t driver_next_avail, driver_next_used;
  uint16_t *links;
  uint16_t *ids;
  struct flight *flights;

  /* Packed: ready descriptors for each batch of the device-side run, and where they go. */
  struct packed_descriptor *images;
  uint32_t image_count, image_slots, image_next;
};

/* The driver's own record of a buffer that the device has. */
struct flight {
  uint64_t token;
  uint64_t writable;
  /* Descriptors that it takes (0: there is no such buffer), its last one, and the batch that it was added in. */
  uint32_t units;
  uint32_t last;
  uint32_t batch;
};

/* A buffer that a driver adds: device-readable elements, then device-writable ones. */
struct buffer {
  uint64_t addresses[MAX_SEGMENTS];
  uint32_t lengths[MAX_SEGMENTS];
  uint32_t count, readable_count;
  uint64_t bytes;
  uint64_t writable;
};

static COLD uint8_t *search(struct world *w, uint64_t address, uint64_t length) {
  uint32_t low = 0;
  uint32_t high = w->region_count - 1;
  while (low < high) {
    uint32_t middle = (low + high + 1) / 2;
    if (w->regions[middle].base <= address) low = middle;
    else high = middle - 1;
  }
  const struct region *r = &w->regions[low];
  uint64_t offset = address - r->base;
  if (offset > r->size || length > r->size - offset) return NULL;
  w->found = r;
  return r->host + offset;
}

static inline uint8_t *translate(struct world *w, uint64_t address, uint64_t length) {
  const struct region *r = w->found;
  uint64_t offset = address - r->base;
  if (offset > r->size || length > r->size - offset) return search(w, address, length);
  return r->host + offset;
}

static inline uint16_t *u16_at(struct world *w, uint64_t offset) {
  return (uint16_t *)(w->memory + offset);
}

static inline uint16_t load_acquire(uint16_t *at) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

/* Whether the other side asked to be told of one of `added` (2.7.7.2, 2.7.10). */
static inline int need_event(uint16_t event, uint16_t now, uint16_t added) {
  return (uint16_t)(now - event - 1) < added;
}

static COLD void mark_dirty(struct world *w, const uint8_t *at, uint64_t length) {
  uint64_t first = (uint64_t)(at - w->memory) >> 12;
  uint64_t last = (uint64_t)(at - w->memory + length - 1) >> 12;
  for (uint64_t page = first; page <= last; page++) w->dirty[page / 8] |= 1 << (page % 8);
}

/* ---- chains ---- */

static COLD struct chain *chain_new(struct world *w) {
  struct chain *c = calloc(1, sizeof *c);
  if (c != NULL) c->world = w;
  return c;
}

static inline struct chain *chain_take(struct world *w) {
  struct chain *c = w->pool_count > 0 ? w->pool[--w->pool_count] : chain_new(w);
  if (c == NULL) return NULL;
  c->owner = IN_FLIGHT;
  return c;
}

static inline void chain_put(struct world *w, struct chain *c) {
  c->owner = IN_POOL;
  w->pool[w->pool_count++] = c;
}

static inline int add_segment(struct world *w, struct chain *c, uint64_t address, uint32_t length,
                              int writable) {
  uint8_t *at = translate(w, address, length);
  if (at == NULL || c->count == MAX_SEGMENTS) return 0;
  if (writable) {
    c->writable += length;
  } else {
    if (c->count != c->readable_count) return 0;
    c->readable += length;
    c->readable_count++;
  }
  c->segments[c->count] = at;
  c->lengths[c->count] = length;
  c->count++;
  return 1;
}

static inline void chain_begin(struct chain *c) {
  c->count = c->readable_count = 0;
  c->readable = c->writable = 0;
}

static inline int chain_finish(struct chain *c) {
  c->reader = (struct cursor){ 0, 0, c->readable };
  c->writer = (struct cursor){ c->readable_count, 0, c->writable };
  return c->readable + c->writable <= MAX_CHAIN_BYTES;
}

/* The words of a descriptor, which the driver may change at any time: each is read once. */
static inline void read_words(const void *at, uint64_t words[2]) {
  const uint64_t *from = at;
  words[0] = __atomic_load_n(from, __ATOMIC_RELAXED);
  words[1] = __atomic_load_n(from + 1, __ATOMIC_RELAXED);
}

static inline struct descriptor read_descriptor(const struct descriptor *at) {
  uint64_t words[2];
  struct descriptor d;
  read_words(at, words);
  memcpy(&d, words, sizeof d);
  return d;
}

static inline struct packed_descriptor read_packed(const struct packed_descriptor *at) {
  uint64_t words[2];
  struct packed_descriptor d;
  read_words(at, words);
  memcpy(&d, words, sizeof d);
  return d;
}

static int split_walk(struct world *w, struct chain *c, uint32_t head) {
  struct descriptor *table = (struct descriptor *)(w->memory + DESCRIPTORS);
  uint32_t entries = w->size;
  uint32_t steps = entries;
  uint32_t index = head;
  int indirect = 0;
  chain_begin(c);
  for (;;) {
    if (index >= entries || steps-- == 0) return 0;
    struct descriptor d = read_descriptor(&table[index]);
    if (d.flags & DESC_INDIRECT) {
      if (indirect || !w->indirect || (d.flags & DESC_NEXT)) return 0;
      if (d.length == 0 || d.length % 16 != 0 || d.length / 16 > MAX_INDIRECT) return 0;
      uint8_t *at = translate(w, d.address, d.length);
      if (at == NULL) return 0;
      table = (struct descriptor *)at;
      entries = d.length / 16;
      steps = entries;
      index = 0;
      indirect = 1;
      continue;
    }
    if (!add_segment(w, c, d.address, d.length, d.flags & DESC_WRITE)) return 0;
    if (!(d.flags & DESC_NEXT)) break;
    index = d.next;
  }
  return chain_finish(c);
}

static int packed_walk(struct world *w, struct chain *c) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint32_t slot = w->slot_avail;
  c->slots = 0;
  chain_begin(c);
  for (;;) {
    struct packed_descriptor d = read_packed(&ring[slot]);
    c->slots++;
    if (d.flags & DESC_INDIRECT) {
      if (c->slots > 1 || !w->indirect || (d.flags & DESC_NEXT)) return 0;
      if (d.length == 0 || d.length % 16 != 0 || d.length / 16 > MAX_INDIRECT) return 0;
      uint8_t *at = translate(w, d.address, d.length);
      if (at == NULL) return 0;
      struct packed_descriptor *table = (struct packed_descriptor *)at;
      for (uint32_t i = 0; i < d.length / 16; i++) {
        struct packed_descriptor e = read_packed(&table[i]);
        if (!add_segment(w, c, e.address, e.length, e.flags & DESC_WRITE)) return 0;
      }
    } else if (!add_segment(w, c, d.address, d.length, d.flags & DESC_WRITE)) {
      return 0;
    }
    if (!(d.flags & DESC_NEXT)) {
      c->id = d.id;
      break;
    }
    if (c->slots == w->size) return 0;
    if (++slot == w->size) slot = 0;
  }
  return chain_finish(c);
}

/* Passes the next piece that lies in one place; 0 at the end. */
static uint32_t cursor_next(struct chain *c, struct cursor *at, uint64_t max, uint8_t **piece) {
  uint64_t limit = max < at->left ? max : at->left;
  if (limit == 0) return 0;
  uint32_t here = c->lengths[at->segment] - at->within;
  while (here == 0) {
    at->within = 0;
    here = c->lengths[++at->segment];
  }
  uint32_t length = here < limit ? here : (uint32_t)limit;
  *piece = c->segments[at->segment] + at->within;
  at->left -= length;
  if (length == here) {
    at->segment++;
    at->within = 0;
  } else {
    at->within += length;
  }
  return length;
}

static COLD int reader_gather(struct chain *c, void *into, uint32_t length) {
  uint8_t *to = into;
  uint8_t *piece;
  if (c->reader.left < length) return 0;
  while (length > 0) {
    uint32_t part = cursor_next(c, &c->reader, length, &piece);
    memcpy(to, piece, part);
    to += part;
    length -= part;
  }
  return 1;
}

/* Reads a structure, wherever the driver cut it; 0 if there is less. */
static inline int reader_read(struct chain *c, void *into, uint32_t length) {
  struct cursor *r = &c->reader;
  if (length > r->left) return 0;
  uint32_t here = c->lengths[r->segment] - r->within;
  if (length > here) return reader_gather(c, into, length);
  memcpy(into, c->segments[r->segment] + r->within, length);
  r->left -= length;
  if (length == here) {
    r->segment++;
    r->within = 0;
  } else {
    r->within += length;
  }
  return 1;
}

/* Sets the last device-writable byte aside for a status, wherever the driver's descriptors end; NULL if there is none. */
static inline uint8_t *writer_reserve_status(struct chain *c) {
  if (c->writer.left < 1) return NULL;
  uint32_t segment = c->count - 1;
  while (c->lengths[segment] == 0) segment--;
  c->writer.left--;
  return &c->segments[segment][c->lengths[segment] - 1];
}

/* ---- device side: pop, push, flush ---- */

static int split_look(struct world *w) {
  uint16_t seen = load_acquire(u16_at(w, DRIVER_AREA + 2));
  uint16_t ahead = seen - w->device_next_avail;
  if (ahead == 0 || w->broken) return 0;
  /* What is in flight, or used but not published, cannot be available again. */
  uint32_t room = w->size - w->device_in_flight - w->device_added;
  if (ahead > w->size || room == 0) {
    w->broken = 1;
    return 0;
  }
  w->device_seen_avail = w->device_next_avail + (ahead < room ? ahead : room);
  return 1;
}

static COLD struct chain *pop_failed(struct world *w, struct chain *c) {
  w->broken = 1;
  chain_put(w, c);
  return NULL;
}

static COLD void enqueue(struct world *w, struct chain *c) {
  w->order[(w->oldest + w->waiting++) % w->size] = c;
}

static struct chain *split_pop(struct world *w) {
  if (w->device_seen_avail == w->device_next_avail && !split_look(w)) return NULL;
  uint16_t *ring = u16_at(w, DRIVER_AREA + 4);
  uint32_t head = __atomic_load_n(&ring[w->device_next_avail & (w->size - 1)], __ATOMIC_RELAXED);
  struct chain *c = chain_take(w);
  if (c == NULL) return NULL;
  if (!split_walk(w, c, head)) return pop_failed(w, c);
  c->id = head;
  w->device_next_avail++;
  w->device_in_flight++;
  if (w->in_order) enqueue(w, c);
  return c;
}

static void split_use(struct world *w, struct chain *c, uint32_t written);
static void packed_use(struct world *w, struct chain *c, uint32_t written);

/* In-order: what completed early waits for what was popped before it. */
static COLD void push_ordered(struct world *w, struct chain *c, uint32_t written) {
  c->held = written;
  c->owner = HELD;
  while (w->waiting > 0 && w->order[w->oldest]->owner == HELD) {
    struct chain *turn = w->order[w->oldest];
    w->oldest = (w->oldest + 1) % w->size;
    w->waiting--;
    if (w->format == SPLIT) split_use(w, turn, turn->held);
    else packed_use(w, turn, turn->held);
  }
}

/* A chain is used once, by its own queue, with no more bytes than it has. */
static inline int may_push(struct world *w, struct chain *c, uint32_t written) {
  return c->owner == IN_FLIGHT && c->world == w && written <= c->writable;
}

static COLD void track(struct world *w, struct chain *c, const void *element, uint32_t length) {
  for (uint32_t i = c->readable_count; i < c->count; i++) {
    if (c->lengths[i] > 0) mark_dirty(w, c->segments[i], c->lengths[i]);
  }
  mark_dirty(w, element, length);
}

static inline void split_use(struct world *w, struct chain *c, uint32_t written) {
  struct used_element *used = (struct used_element *)(w->memory + DEVICE_AREA + 4);
  struct used_element *e = &used[w->device_next_used & (w->size - 1)];
  e->id = c->id;
  e->length = written;
  w->device_next_used++;
  w->device_added++;
  w->device_in_flight--;
  if (w->dirty != NULL) track(w, c, e, sizeof *e);
  chain_put(w, c);
}

static void split_push(struct world *w, struct chain *c, uint32_t written) {
  if (!may_push(w, c, written)) {
    w->broken = 1;
    return;
  }
  if (w->in_order) push_ordered(w, c, written);
  else split_use(w, c, written);
}

static int split_flush(struct world *w) {
  uint16_t added = w->device_added;
  if (added == 0) return 0;
  w->device_added = 0;
  __atomic_store_n(u16_at(w, DEVICE_AREA + 2), w->device_next_used, __ATOMIC_RELEASE);
  if (w->dirty != NULL) mark_dirty(w, w->memory + DEVICE_AREA + 2, 2);
  /* Publish, then look whether an interrupt is wanted: needs the full fence (2.7.13.4.1). */
  atomic_thread_fence(memory_order_seq_cst);
  if (w->event_idx) {
    return need_event(*u16_at(w, DRIVER_AREA + 4 + 2 * w->size), w->device_next_used, added);
  }
  return !(*u16_at(w, DRIVER_AREA) & 1);
}

static int packed_look(struct world *w) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint16_t expected = w->wrap_avail ? DESC_AVAIL : DESC_USED;
  uint16_t flags = load_acquire(&ring[w->slot_avail].flags);
  return (flags & (DESC_AVAIL | DESC_USED)) == expected;
}

static struct chain *packed_pop(struct world *w) {
  if (w->broken || !packed_look(w)) return NULL;
  /* What is in flight, or used but not published, cannot be available again. */
  if (w->device_in_flight + w->device_added >= w->size) {
    w->broken = 1;
    return NULL;
  }
  struct chain *c = chain_take(w);
  if (c == NULL) return NULL;
  if (!packed_walk(w, c)) return pop_failed(w, c);
  w->slot_avail += c->slots;
  if (w->slot_avail >= w->size) {
    w->slot_avail -= w->size;
    w->wrap_avail ^= 1;
  }
  w->device_in_flight++;
  if (w->in_order) enqueue(w, c);
  return c;
}

static inline void packed_use(struct world *w, struct chain *c, uint32_t written) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  struct packed_descriptor *d = &ring[w->slot_used];
  uint16_t flags = (w->wrap_used ? DESC_AVAIL | DESC_USED : 0) | (written > 0 ? DESC_WRITE : 0);
  d->length = written;
  if (w->device_added == 0) {
    w->head_slot = w->slot_used;
    w->head_word = c->id | ((uint32_t)flags << 16);
  } else {
    d->id = c->id;
    d->flags = flags;
  }
  w->device_added++;
  w->added_slots += c->slots;
  w->device_in_flight--;
  w->slot_used += c->slots;
  if (w->slot_used >= w->size) {
    w->slot_used -= w->size;
    w->wrap_used ^= 1;
  }
  if (w->dirty != NULL) track(w, c, d, sizeof *d);
  chain_put(w, c);
}

static void packed_push(struct world *w, struct chain *c, uint32_t written) {
  if (!may_push(w, c, written)) {
    w->broken = 1;
    return;
  }
  if (w->in_order) push_ordered(w, c, written);
  else packed_use(w, c, written);
}

/* Packed: whether the other side wants to be told, from its event suppression structure (2.8.10). */
static inline int packed_event(struct world *w, uint64_t area, uint32_t next, uint32_t wrap,
                               uint32_t added) {
  uint32_t word = __atomic_load_n((id_and_flags *)(w->memory + area), __ATOMIC_RELAXED);
  uint32_t flags = (word >> 16) & 3;
  if (flags == 1) return 0;
  if (flags != 2 || !w->event_idx) return 1;
  uint32_t event = word & 0x7fff;
  if (((word >> 15) & 1) != wrap) event -= w->size;
  return need_event(event, next, added);
}

static int packed_flush(struct world *w) {
  uint32_t added = w->added_slots;
  if (added == 0) return 0;
  w->device_added = 0;
  w->added_slots = 0;
  uint8_t *at = w->memory + DESCRIPTORS + 16 * w->head_slot + 12;
  __atomic_store_n((id_and_flags *)at, w->head_word, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  return packed_event(w, DRIVER_AREA, w->slot_used, w->wrap_used, added);
}

/* What the device does with a chain: reads the header, writes the status. */
static inline void handle(struct world *w, struct chain *c) {
  uint32_t header[4];
  if (!reader_read(c, header, sizeof header)) {
    w->broken = 1;
    return;
  }
  w->sum += header[0] + header[2] + header[3];
  uint8_t *status = writer_reserve_status(c);
  if (status != NULL) *status = 0;
}

/* A 4 KiB read from a disk in memory, cut into segments in any way. */
static inline uint32_t handle_blk(struct world *w, struct chain *c) {
  struct {
    uint32_t type, reserved;
    uint64_t sector;
  } header;
  w->stats.requests++;
  uint8_t *status = writer_reserve_status(c);
  if (status == NULL) return 0;
  int whole = reader_read(c, &header, sizeof header);
  uint64_t length = c->writer.left;
  uint64_t sectors = w->disk_size / 512;
  if (!whole || header.type != 0 || length % 512 != 0 || header.sector > sectors ||
      length / 512 > sectors - header.sector) {
    w->stats.errors++;
    *status = 1;
    return 1;
  }
  uint8_t *from = w->disk + header.sector * 512;
  uint8_t *piece;
  uint32_t part;
  while ((part = cursor_next(c, &c->writer, length, &piece)) > 0) {
    memcpy(piece, from, part);
    from += part;
    length -= part;
  }
  w->stats.reads++;
  w->stats.bytes_read += c->writable - 1;
  *status = 0;
  return c->writable;
}

/* ---- the fake driver of the device-side runs ---- */

static inline void split_refill(struct world *w) {
  uint16_t *idx = u16_at(w, DRIVER_AREA + 2);
  __atomic_store_n(idx, *idx + w->batch, __ATOMIC_SEQ_CST);
}

static inline void packed_refill(struct world *w) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint32_t i = w->image_next;
  uint32_t slots = w->image_slots;
  struct packed_descriptor *image = w->images + (uint64_t)i * slots;
  uint32_t start = (uint32_t)(((uint64_t)i * slots) % w->size);
  uint32_t first = w->size - start < slots ? w->size - start : slots;
  memcpy(&ring[start], image, 16ull * first);
  if (first < slots) memcpy(ring, image + first, 16ull * (slots - first));
  w->image_next = i + 1 == w->image_count ? 0 : i + 1;
}

static void put_descriptor(void *at, uint64_t address, uint32_t length, uint16_t a, uint16_t b) {
  struct descriptor d = { address, length, a, b };
  memcpy(at, &d, sizeof d);
}

/* ---- driver side ---- */

static inline void buffer_clear(struct buffer *b) {
  b->count = b->readable_count = 0;
  b->bytes = b->writable = 0;
}

static inline int buffer_add(struct buffer *b, uint64_t address, uint32_t length) {
  if (b->count == MAX_SEGMENTS) return 0;
  b->addresses[b->count] = address;
  b->lengths[b->count] = length;
  b->bytes += length;
  b->count++;
  return 1;
}

/* Adds an element that the device may read: before all that it may write (2.7.4.2). */
static inline int buffer_readable(struct buffer *b, uint64_t address, uint32_t length) {
  if (b->readable_count != b->count || !buffer_add(b, address, length)) return 0;
  b->readable_count = b->count;
  return 1;
}

/* Adds an element that the device may write. */
static inline int buffer_writable(struct buffer *b, uint64_t address, uint32_t length) {
  b->writable += length;
  return buffer_add(b, address, length);
}

static inline void make_buffer(struct world *w, uint32_t i, struct buffer *b) {
  i %= 64;
  buffer_clear(b);
  buffer_readable(b, HEADERS + 64 * i, HEADER_SIZE);
  if (w->shape == SINGLE) return;
  buffer_writable(b, DATA + DATA_SIZE * i, DATA_SIZE);
  buffer_writable(b, STATUS + 64 * i, 1);
}

/* Descriptors that a buffer takes; 0 if it may not be added, or there is no room. */
static inline uint32_t need(struct world *w, const struct buffer *b, uint64_t table) {
  if (b->count == 0 || b->count > w->size || b->bytes > MAX_CHAIN_BYTES) return 0;
  if (table && !w->indirect) return 0;
  uint32_t units = table ? 1 : b->count;
  return units <= w->free_count ? units : 0;
}

/* Notes what is in flight. No used length can say 2^32. */
static inline void start(struct world *w, uint32_t id, uint64_t token, uint32_t units,
                         uint32_t last, const struct buffer *b) {
  uint64_t writable = b->writable > 0xffffffff ? 0xffffffff : b->writable;
  w->flights[id] = (struct flight){ token, writable, units, last, w->driver_batch };
  w->free_count -= units;
  w->in_flight++;
}

/* Whether the device may give this buffer back: it was made available, and has room for what was written. */
static inline int may_take(struct world *w, uint32_t id, uint32_t length) {
  if (id >= w->size) return 0;
  const struct flight *f = &w->flights[id];
  return f->units != 0 && f->batch != w->driver_batch && length <= f->writable;
}

static int split_add(struct world *w, const struct buffer *b, uint64_t token, uint64_t table) {
  uint32_t units = need(w, b, table);
  if (units == 0) return 0;
  struct descriptor *descriptors = (struct descriptor *)(w->memory + DESCRIPTORS);
  uint32_t head = w->first_free;
  uint32_t last = head;
  if (!table) {
    uint32_t index = head;
    for (uint32_t i = 0; i < b->count; i++) {
      struct descriptor *d = &descriptors[index];
      int more = i + 1 < b->count;
      last = index;
      index = w->links[index];
      d->address = b->addresses[i];
      d->length = b->lengths[i];
      d->flags = (i < b->readable_count ? 0 : DESC_WRITE) | (more ? DESC_NEXT : 0);
      d->next = more ? index : 0;
    }
  } else {
    struct descriptor *d = &descriptors[head];
    struct descriptor *entries = (struct descriptor *)translate(w, table, 16 * b->count);
    if (entries == NULL) return 0;
    d->address = table;
    d->length = 16 * b->count;
    d->flags = DESC_INDIRECT;
    d->next = 0;
    for (uint32_t i = 0; i < b->count; i++) {
      int more = i + 1 < b->count;
      entries[i].address = b->addresses[i];
      entries[i].length = b->lengths[i];
      entries[i].flags = (i < b->readable_count ? 0 : DESC_WRITE) | (more ? DESC_NEXT : 0);
      entries[i].next = more ? i + 1 : 0;
    }
  }
  w->first_free = w->links[last];
  start(w, head, token, units, last, b);
  *u16_at(w, DRIVER_AREA + 4 + 2 * (w->driver_next_avail & (w->size - 1))) = head;
  w->driver_next_avail++;
  w->driver_added++;
  return 1;
}

static int split_publish(struct world *w) {
  uint32_t added = w->driver_added;
  if (added == 0) return 0;
  w->driver_added = 0;
  w->driver_batch++;
  __atomic_store_n(u16_at(w, DRIVER_AREA + 2), w->driver_next_avail, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  if (w->event_idx) {
    return need_event(*u16_at(w, DEVICE_AREA + 4 + 8 * w->size), w->driver_next_avail, added);
  }
  return !(*u16_at(w, DEVICE_AREA) & 1);
}

static int split_take(struct world *w, uint16_t seen, uint64_t *token, uint32_t *length) {
  if (w->broken || w->driver_next_used == seen) return 0;
  struct used_element *used = (struct used_element *)(w->memory + DEVICE_AREA + 4);
  struct used_element *at = &used[w->driver_next_used & (w->size - 1)];
  uint32_t id = __atomic_load_n(&at->id, __ATOMIC_RELAXED);
  uint32_t written = __atomic_load_n(&at->length, __ATOMIC_RELAXED);
  if (!may_take(w, id, written)) {
    w->broken = 1;
    return 0;
  }
  struct flight *f = &w->flights[id];
  w->links[f->last] = w->first_free;
  w->first_free = id;
  w->free_count += f->units;
  f->units = 0;
  w->in_flight--;
  w->driver_next_used++;
  *token = f->token;
  *length = written;
  return 1;
}

/* How far the device is; it cannot have used more than it has. */
static uint16_t split_seen(struct world *w) {
  uint16_t seen = load_acquire(u16_at(w, DEVICE_AREA + 2));
  if ((uint16_t)(seen - w->driver_next_used) > w->in_flight) w->broken = 1;
  return seen;
}

static int packed_add(struct world *w, const struct buffer *b, uint64_t token, uint64_t table) {
  uint32_t units = need(w, b, table);
  if (units == 0) return 0;
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  if (table) {
    uint8_t *at = translate(w, table, 16 * b->count);
    if (at == NULL) return 0;
    struct packed_descriptor *entries = (struct packed_descriptor *)at;
    for (uint32_t i = 0; i < b->count; i++) {
      entries[i].address = b->addresses[i];
      entries[i].length = b->lengths[i];
      entries[i].id = 0;
      entries[i].flags = i < b->readable_count ? 0 : DESC_WRITE;
    }
  }
  uint16_t id = w->ids[w->first_id];
  w->first_id = w->first_id + 1 == w->size ? 0 : w->first_id + 1;
  w->id_count--;
  uint32_t first = w->next_avail_slot;
  uint32_t slot = first;
  uint32_t wrap = w->driver_wrap_avail;
  uint16_t head_flags = 0;
  for (uint32_t i = 0; i < units; i++) {
    struct packed_descriptor *d = &ring[slot];
    uint16_t flags = wrap ? DESC_AVAIL : DESC_USED;
    if (table) {
      d->address = table;
      d->length = 16 * b->count;
      flags |= DESC_INDIRECT;
    } else {
      d->address = b->addresses[i];
      d->length = b->lengths[i];
      if (i >= b->readable_count) flags |= DESC_WRITE;
      if (i + 1 < units) flags |= DESC_NEXT;
    }
    d->id = id;
    if (i == 0) head_flags = flags;
    else d->flags = flags;
    if (++slot == w->size) {
      slot = 0;
      wrap ^= 1;
    }
  }
  if (w->driver_added == 0) {
    w->driver_head = first;
    w->driver_head_flags = head_flags;
  } else {
    ring[first].flags = head_flags;
  }
  w->driver_added += units;
  w->next_avail_slot = slot;
  w->driver_wrap_avail = wrap;
  start(w, id, token, units, 0, b);
  return 1;
}

static int packed_publish(struct world *w) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint32_t added = w->driver_added;
  if (added == 0) return 0;
  w->driver_added = 0;
  w->driver_batch++;
  __atomic_store_n(&ring[w->driver_head].flags, w->driver_head_flags, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  return packed_event(w, DEVICE_AREA, w->next_avail_slot, w->driver_wrap_avail, added);
}

static int packed_take(struct world *w, uint64_t *token, uint32_t *length) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  struct packed_descriptor *d = &ring[w->next_used_slot];
  if (w->broken) return 0;
  uint16_t flags = load_acquire(&d->flags);
  uint16_t expected = w->driver_wrap_used ? DESC_AVAIL | DESC_USED : 0;
  if ((flags & (DESC_AVAIL | DESC_USED)) != expected) return 0;
  uint32_t id = __atomic_load_n(&d->id, __ATOMIC_RELAXED);
  uint32_t written = flags & DESC_WRITE ? __atomic_load_n(&d->length, __ATOMIC_RELAXED) : 0;
  if (!may_take(w, id, written)) {
    w->broken = 1;
    return 0;
  }
  struct flight *f = &w->flights[id];
  w->next_used_slot += f->units;
  if (w->next_used_slot >= w->size) {
    w->next_used_slot -= w->size;
    w->driver_wrap_used ^= 1;
  }
  uint32_t free = w->first_id + w->id_count;
  w->ids[free >= w->size ? free - w->size : free] = id;
  w->id_count++;
  w->free_count += f->units;
  f->units = 0;
  w->in_flight--;
  *token = f->token;
  *length = written;
  return 1;
}

/* ---- what the benchmark calls ---- */

EXPORT void world_close(struct world *w) {
  if (w == NULL) return;
  free(w->memory);
  free(w->disk);
  free(w->links);
  free(w->ids);
  free(w->flights);
  for (uint32_t i = 0; w->pool != NULL && i < w->pool_count; i++) free(w->pool[i]);
  free(w->pool);
  free(w->order);
  free(w->images);
  free(w);
}

static void prepare_split(struct world *w) {
  struct descriptor *descriptors = (struct descriptor *)(w->memory + DESCRIPTORS);
  uint32_t per = w->shape == BLK3 ? 3 : 1;
  for (uint32_t i = 0; i < w->batch; i++) {
    struct buffer b;
    make_buffer(w, i, &b);
    if (w->shape == IND3) {
      uint64_t table = TABLES + 64 * (i % 64);
      put_descriptor(&descriptors[i], table, 48, DESC_INDIRECT, 0);
      for (uint32_t k = 0; k < 3; k++) {
        put_descriptor(w->memory + table + 16 * k, b.addresses[k], b.lengths[k],
                       (k > 0 ? DESC_WRITE : 0) | (k < 2 ? DESC_NEXT : 0), k < 2 ? k + 1 : 0);
      }
    } else {
      for (uint32_t k = 0; k < b.count; k++) {
        int more = k + 1 < b.count;
        put_descriptor(&descriptors[per * i + k], b.addresses[k], b.lengths[k],
                       (k > 0 ? DESC_WRITE : 0) | (more ? DESC_NEXT : 0),
                       more ? per * i + k + 1 : 0);
      }
    }
  }
  for (uint32_t i = 0; i < w->size; i++) *u16_at(w, DRIVER_AREA + 4 + 2 * i) = per * (i % w->batch);
}

static int prepare_packed(struct world *w) {
  uint32_t per = w->shape == BLK3 ? 3 : 1;
  uint32_t slots = per * w->batch;
  /* After this many batches slot 0 comes with wrap counter 1 again. */
  uint32_t count = 1;
  while ((uint64_t)count * slots % (2 * w->size) != 0) count++;
  w->images = calloc((uint64_t)count * slots, 16);
  if (w->images == NULL) return 0;
  w->image_count = count;
  w->image_slots = slots;
  for (uint64_t n = 0; n < (uint64_t)count * slots; n++) {
    uint32_t wrap = (n / w->size) % 2 == 0;
    uint32_t in_batch = n % slots;
    uint32_t i = in_batch / per;
    uint32_t k = in_batch % per;
    uint16_t flags = wrap ? DESC_AVAIL : DESC_USED;
    struct buffer b;
    make_buffer(w, i, &b);
    if (w->shape == IND3) {
      uint64_t table = TABLES + 64 * (i % 64);
      put_descriptor(&w->images[n], table, 48, i, flags | DESC_INDIRECT);
      for (uint32_t e = 0; e < 3; e++) {
        put_descriptor(w->memory + table + 16 * e, b.addresses[e], b.lengths[e], 0,
                       e > 0 ? DESC_WRITE : 0);
      }
    } else {
      put_descriptor(&w->images[n], b.addresses[k], b.lengths[k], i,
                     flags | (k > 0 ? DESC_WRITE : 0) | (k + 1 < b.count ? DESC_NEXT : 0));
    }
  }
  return 1;
}

/* Guest memory with requests for the device-side runs; `fresh`: an empty ring for the full round. */
EXPORT struct world *world_open(int format, int shape, uint32_t size, uint32_t batch, int fresh) {
  struct world *w = calloc(1, sizeof *w);
  if (w == NULL) return NULL;
  w->format = format;
  w->shape = shape;
  w->size = size;
  w->batch = batch;
  w->memory_size = MEMORY_SIZE;
  w->disk_size = 1 << 20;
  w->memory = aligned_alloc(4096, w->memory_size);
  w->disk = aligned_alloc(4096, w->disk_size);
  w->links = calloc(size, 2);
  w->ids = calloc(size, 2);
  w->flights = calloc(size, sizeof *w->flights);
  w->pool = calloc(size, sizeof *w->pool);
  w->order = calloc(size, sizeof *w->order);
  if (!w->memory || !w->disk || !w->links || !w->ids || !w->flights || !w->pool || !w->order) {
    world_close(w);
    return NULL;
  }
  memset(w->memory, 0, w->memory_size);
  memset(w->disk, 0x5a, w->disk_size);
  w->indirect = shape == IND3;
  w->regions[0] = (struct region){ 0, w->memory_size, w->memory };
  w->region_count = 1;
  w->found = &w->regions[0];
  w->wrap_avail = w->wrap_used = w->driver_wrap_avail = w->driver_wrap_used = 1;
  w->free_count = w->id_count = size;
  for (uint32_t i = 0; i < size; i++) {
    w->ids[i] = i;
    w->links[i] = i + 1 == size ? 0 : i + 1;
  }
  for (uint32_t i = 0; i < 64; i++) {
    uint32_t header[4] = { 0, 0, 8 * i, 0 };
    memcpy(w->memory + HEADERS + 64 * i, header, sizeof header);
  }
  if (!fresh) {
    if (format == SPLIT) {
      prepare_split(w);
    } else if (!prepare_packed(w)) {
      world_close(w);
      return NULL;
    }
  }
  return w;
}

/* Only the fake driver's part of the device-side run. */
EXPORT uint32_t world_refill(struct world *w, uint32_t batches) {
  for (uint32_t n = 0; n < batches; n++) {
    if (w->format == SPLIT) split_refill(w);
    else packed_refill(w);
  }
  return w->image_next;
}

EXPORT uint32_t world_device(struct world *w, uint32_t batches) {
  struct chain *c;
  uint32_t interrupts = 0;
  w->sum = 0;
  if (w->format == SPLIT) {
    for (uint32_t n = 0; n < batches && !w->broken; n++) {
      split_refill(w);
      while ((c = split_pop(w)) != NULL) {
        handle(w, c);
        split_push(w, c, c->writable);
      }
      interrupts += split_flush(w);
    }
  } else {
    for (uint32_t n = 0; n < batches && !w->broken; n++) {
      packed_refill(w);
      while ((c = packed_pop(w)) != NULL) {
        handle(w, c);
        packed_push(w, c, c->writable);
      }
      interrupts += packed_flush(w);
    }
  }
  if (w->broken || interrupts != batches) return 0;
  return w->sum;
}

EXPORT uint32_t world_blk(struct world *w, uint32_t batches) {
  struct chain *c;
  uint32_t interrupts = 0;
  uint32_t chains = 0;
  if (w->format == SPLIT) {
    for (uint32_t n = 0; n < batches && !w->broken; n++) {
      split_refill(w);
      while ((c = split_pop(w)) != NULL) {
        split_push(w, c, handle_blk(w, c));
        chains++;
      }
      interrupts += split_flush(w);
    }
  } else {
    for (uint32_t n = 0; n < batches && !w->broken; n++) {
      packed_refill(w);
      while ((c = packed_pop(w)) != NULL) {
        packed_push(w, c, handle_blk(w, c));
        chains++;
      }
      interrupts += packed_flush(w);
    }
  }
  if (w->broken || interrupts != batches) return 0;
  return chains;
}

EXPORT uint32_t world_round(struct world *w, uint32_t batches) {
  struct chain *c;
  uint64_t token;
  uint32_t length;
  uint32_t done = 0;
  uint32_t kicks = 0;
  for (uint32_t n = 0; n < batches && !w->broken; n++) {
    if (w->format == SPLIT) {
      for (uint32_t i = 0; i < w->batch; i++) {
        struct buffer b;
        make_buffer(w, i, &b);
        split_add(w, &b, i, w->shape == IND3 ? TABLES + 64 * (i % 64) : 0);
      }
      kicks += split_publish(w);
      while ((c = split_pop(w)) != NULL) {
        handle(w, c);
        split_push(w, c, c->writable);
      }
      kicks += split_flush(w);
      uint16_t seen = split_seen(w);
      while (split_take(w, seen, &token, &length)) done += token < w->batch;
    } else {
      for (uint32_t i = 0; i < w->batch; i++) {
        struct buffer b;
        make_buffer(w, i, &b);
        packed_add(w, &b, i, w->shape == IND3 ? TABLES + 64 * (i % 64) : 0);
      }
      kicks += packed_publish(w);
      while ((c = packed_pop(w)) != NULL) {
        handle(w, c);
        packed_push(w, c, c->writable);
      }
      kicks += packed_flush(w);
      while (packed_take(w, &token, &length)) done += token < w->batch;
    }
  }
  if (w->broken || kicks != 2 * batches) return 0;
  return done;
}
