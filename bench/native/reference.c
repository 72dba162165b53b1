/*
 * The C reference of bench:peers: the device side and the driver side of both ring formats, written the way a careful C
 * implementation would be. The same work as bench/work.ts: acquire and release on the ring indexes, one publish per batch,
 * a bounds check on every descriptor, a limit on the length of a chain, and a driver that believes the device nothing.
 *
 * Compiled at run time with -O2 by bench/native/native.ts into .cache/. It is the yardstick, not a part of the packages.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

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
};

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

/* A popped chain: the device-readable segments, then the device-writable ones. */
struct chain {
  uint32_t id;
  uint32_t slots;
  uint32_t count;
  uint32_t readable_count;
  uint64_t readable;
  uint64_t writable;
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

  /* Device side. */
  uint16_t device_next_avail, device_seen_avail, device_next_used, device_added;
  uint32_t slot_avail, slot_used, head_slot;
  uint32_t wrap_avail, wrap_used, seen, head_word;

  /* Driver side. */
  uint32_t free_count, first_free, next_avail_slot, next_used_slot, in_flight;
  uint32_t driver_wrap_avail, driver_wrap_used, first_id, id_count;
  uint16_t driver_next_avail, driver_next_used;
  uint16_t *links;
  uint16_t *units;
  uint16_t *ids;
  uint64_t *writable;
  uint64_t *tokens;

  /* Packed: ready descriptors for each batch of the device-side run, and where they go. */
  struct packed_descriptor *images;
  uint32_t image_count, image_slots, image_next;

  struct chain chain;
};

struct buffer {
  uint64_t addresses[4];
  uint32_t lengths[4];
  uint32_t count, readable_count;
  uint64_t writable;
};

static inline uint8_t *translate(struct world *w, uint64_t address, uint64_t length) {
  if (length > w->memory_size || address > w->memory_size - length) return NULL;
  return w->memory + address;
}

static inline uint16_t *u16_at(struct world *w, uint64_t offset) {
  return (uint16_t *)(w->memory + offset);
}

static inline uint16_t load_acquire(uint16_t *at) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

/* ---- chains ---- */

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

static int split_walk(struct world *w, struct chain *c, uint32_t head) {
  struct descriptor *table = (struct descriptor *)(w->memory + DESCRIPTORS);
  uint32_t entries = w->size;
  uint32_t steps = entries;
  uint32_t index = head;
  int indirect = 0;
  c->count = c->readable_count = 0;
  c->readable = c->writable = 0;
  for (;;) {
    if (index >= entries || steps-- == 0) return 0;
    struct descriptor d;
    memcpy(&d, &table[index], sizeof d);
    if (d.flags & DESC_INDIRECT) {
      if (indirect || (d.flags & DESC_NEXT) || d.length == 0 || d.length % 16 != 0) return 0;
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
  return c->readable + c->writable <= 0x100000000ull;
}

static int packed_walk(struct world *w, struct chain *c) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint32_t slot = w->slot_avail;
  c->slots = 0;
  c->count = c->readable_count = 0;
  c->readable = c->writable = 0;
  for (;;) {
    struct packed_descriptor d;
    memcpy(&d, &ring[slot], sizeof d);
    c->slots++;
    if (d.flags & DESC_INDIRECT) {
      if (c->slots > 1 || (d.flags & DESC_NEXT) || d.length == 0 || d.length % 16 != 0) return 0;
      uint8_t *at = translate(w, d.address, d.length);
      if (at == NULL) return 0;
      struct packed_descriptor *table = (struct packed_descriptor *)at;
      for (uint32_t i = 0; i < d.length / 16; i++) {
        struct packed_descriptor e;
        memcpy(&e, &table[i], sizeof e);
        if (e.flags & DESC_INDIRECT) return 0;
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
  return c->readable + c->writable <= 0x100000000ull;
}

/* ---- device side: pop, push, flush ---- */

static struct chain *split_pop(struct world *w) {
  if (w->device_seen_avail == w->device_next_avail) {
    w->device_seen_avail = load_acquire(u16_at(w, DRIVER_AREA + 2));
    uint16_t ahead = w->device_seen_avail - w->device_next_avail;
    if (ahead == 0) return NULL;
    if (ahead > w->size) {
      w->broken = 1;
      return NULL;
    }
  }
  uint32_t head = *u16_at(w, DRIVER_AREA + 4 + 2 * (w->device_next_avail & (w->size - 1)));
  struct chain *c = &w->chain;
  if (!split_walk(w, c, head)) {
    w->broken = 1;
    return NULL;
  }
  c->id = head;
  w->device_next_avail++;
  return c;
}

static void split_push(struct world *w, struct chain *c, uint32_t written) {
  struct used_element *used = (struct used_element *)(w->memory + DEVICE_AREA + 4);
  struct used_element *e = &used[w->device_next_used & (w->size - 1)];
  e->id = c->id;
  e->length = written;
  w->device_next_used++;
  w->device_added++;
}

static int split_flush(struct world *w) {
  if (w->device_added == 0) return 0;
  w->device_added = 0;
  __atomic_store_n(u16_at(w, DEVICE_AREA + 2), w->device_next_used, __ATOMIC_RELEASE);
  /* Publish, then look whether an interrupt is wanted: needs the full fence (2.7.13.4.1). */
  atomic_thread_fence(memory_order_seq_cst);
  return !(*u16_at(w, DRIVER_AREA) & 1);
}

static int packed_look(struct world *w) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint16_t expected = w->wrap_avail ? DESC_AVAIL : DESC_USED;
  uint16_t flags = load_acquire(&ring[w->slot_avail].flags);
  return (flags & (DESC_AVAIL | DESC_USED)) == expected;
}

static struct chain *packed_pop(struct world *w) {
  if (!packed_look(w)) return NULL;
  struct chain *c = &w->chain;
  if (!packed_walk(w, c)) {
    w->broken = 1;
    return NULL;
  }
  w->slot_avail += c->slots;
  if (w->slot_avail >= w->size) {
    w->slot_avail -= w->size;
    w->wrap_avail ^= 1;
  }
  return c;
}

static void packed_push(struct world *w, struct chain *c, uint32_t written) {
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
  w->slot_used += c->slots;
  if (w->slot_used >= w->size) {
    w->slot_used -= w->size;
    w->wrap_used ^= 1;
  }
}

static int packed_flush(struct world *w) {
  if (w->device_added == 0) return 0;
  w->device_added = 0;
  uint8_t *at = w->memory + DESCRIPTORS + 16 * w->head_slot + 12;
  __atomic_store_n((id_and_flags *)at, w->head_word, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  return (*u16_at(w, DRIVER_AREA + 2) & 3) != 1;
}

/* What the device does with a chain: reads the header, writes the status. */
static inline void handle(struct world *w, struct chain *c) {
  if (c->readable < HEADER_SIZE || c->lengths[0] < HEADER_SIZE) {
    w->broken = 1;
    return;
  }
  uint32_t header[4];
  memcpy(header, c->segments[0], sizeof header);
  w->sum += header[0] + header[2] + header[3];
  if (c->writable > 0) {
    uint32_t last = c->count - 1;
    c->segments[last][c->lengths[last] - 1] = 0;
  }
}

/* A 4 KiB read from a disk in memory, cut into segments in any way. */
static inline uint32_t handle_blk(struct world *w, struct chain *c) {
  uint32_t last = c->count - 1;
  if (c->readable < HEADER_SIZE || c->lengths[0] < HEADER_SIZE || c->writable < 1) {
    w->broken = 1;
    return 0;
  }
  uint32_t type;
  uint64_t sector;
  memcpy(&type, c->segments[0], 4);
  memcpy(&sector, c->segments[0] + 8, 8);
  uint8_t *status = &c->segments[last][c->lengths[last] - 1];
  uint64_t length = c->writable - 1;
  if (type != 0 || length % 512 != 0 || sector > w->disk_size / 512 ||
      length / 512 > w->disk_size / 512 - sector) {
    *status = 1;
    return 1;
  }
  uint8_t *from = w->disk + sector * 512;
  for (uint32_t i = c->readable_count; length > 0; i++) {
    uint64_t part = c->lengths[i] < length ? c->lengths[i] : length;
    memcpy(c->segments[i], from, part);
    from += part;
    length -= part;
  }
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

static void make_buffer(struct world *w, uint32_t i, struct buffer *b) {
  i %= 64;
  b->addresses[0] = HEADERS + 64 * i;
  b->lengths[0] = HEADER_SIZE;
  b->addresses[1] = DATA + DATA_SIZE * i;
  b->lengths[1] = DATA_SIZE;
  b->addresses[2] = STATUS + 64 * i;
  b->lengths[2] = 1;
  b->count = w->shape == SINGLE ? 1 : 3;
  b->readable_count = 1;
  b->writable = w->shape == SINGLE ? 0 : DATA_SIZE + 1;
}

/* ---- driver side ---- */

static int split_add(struct world *w, const struct buffer *b, uint64_t token, uint64_t table) {
  uint32_t need = table ? 1 : b->count;
  if (b->count == 0 || b->count > w->size || need > w->free_count) return 0;
  struct descriptor *descriptors = (struct descriptor *)(w->memory + DESCRIPTORS);
  uint32_t head = w->first_free;
  uint32_t index = head;
  if (!table) {
    for (uint32_t i = 0; i < b->count; i++) {
      struct descriptor *d = &descriptors[index];
      int more = i + 1 < b->count;
      uint32_t next = w->links[index];
      d->address = b->addresses[i];
      d->length = b->lengths[i];
      d->flags = (i < b->readable_count ? 0 : DESC_WRITE) | (more ? DESC_NEXT : 0);
      d->next = more ? next : 0;
      index = next;
    }
  } else {
    struct descriptor *d = &descriptors[index];
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
    index = w->links[index];
  }
  w->first_free = index;
  w->free_count -= need;
  w->tokens[head] = token;
  w->units[head] = need;
  w->writable[head] = b->writable;
  w->in_flight++;
  *u16_at(w, DRIVER_AREA + 4 + 2 * (w->driver_next_avail & (w->size - 1))) = head;
  w->driver_next_avail++;
  return 1;
}

static int split_publish(struct world *w) {
  __atomic_store_n(u16_at(w, DRIVER_AREA + 2), w->driver_next_avail, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  return !(*u16_at(w, DEVICE_AREA) & 1);
}

static int split_take(struct world *w, uint16_t seen, uint64_t *token, uint32_t *length) {
  if (w->driver_next_used == seen) return 0;
  struct used_element *used = (struct used_element *)(w->memory + DEVICE_AREA + 4);
  struct used_element e;
  memcpy(&e, &used[w->driver_next_used & (w->size - 1)], sizeof e);
  if (e.id >= w->size || w->units[e.id] == 0 || e.length > w->writable[e.id]) {
    w->broken = 1;
    return 0;
  }
  uint32_t units = w->units[e.id];
  uint32_t last = e.id;
  for (uint32_t i = 1; i < units; i++) last = w->links[last];
  w->links[last] = w->first_free;
  w->first_free = e.id;
  w->free_count += units;
  w->units[e.id] = 0;
  w->in_flight--;
  w->driver_next_used++;
  *token = w->tokens[e.id];
  *length = e.length;
  return 1;
}

struct packed_batch {
  uint32_t added, head, head_flags;
};

static int packed_add(struct world *w, const struct buffer *b, uint64_t token, uint64_t table,
                      struct packed_batch *batch) {
  uint32_t need = table ? 1 : b->count;
  if (b->count == 0 || b->count > w->size || need > w->free_count) return 0;
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  uint16_t id = w->ids[w->first_id];
  w->first_id = w->first_id + 1 == w->size ? 0 : w->first_id + 1;
  w->id_count--;
  uint32_t first = w->next_avail_slot;
  uint32_t slot = first;
  uint32_t wrap = w->driver_wrap_avail;
  uint16_t head_flags = 0;
  for (uint32_t i = 0; i < need; i++) {
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
      if (i + 1 < need) flags |= DESC_NEXT;
    }
    d->id = id;
    if (i == 0) head_flags = flags;
    else d->flags = flags;
    if (++slot == w->size) {
      slot = 0;
      wrap ^= 1;
    }
  }
  if (table) {
    struct packed_descriptor *entries = (struct packed_descriptor *)translate(w, table, 16 * b->count);
    if (entries == NULL) return 0;
    for (uint32_t i = 0; i < b->count; i++) {
      entries[i].address = b->addresses[i];
      entries[i].length = b->lengths[i];
      entries[i].id = 0;
      entries[i].flags = i < b->readable_count ? 0 : DESC_WRITE;
    }
  }
  if (batch->added == 0) {
    batch->head = first;
    batch->head_flags = head_flags;
  } else {
    ring[first].flags = head_flags;
  }
  batch->added += need;
  w->next_avail_slot = slot;
  w->driver_wrap_avail = wrap;
  w->free_count -= need;
  w->tokens[id] = token;
  w->units[id] = need;
  w->writable[id] = b->writable;
  w->in_flight++;
  return 1;
}

static int packed_publish(struct world *w, struct packed_batch *batch) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  __atomic_store_n(&ring[batch->head].flags, batch->head_flags, __ATOMIC_RELEASE);
  atomic_thread_fence(memory_order_seq_cst);
  return (*u16_at(w, DEVICE_AREA + 2) & 3) != 1;
}

static int packed_take(struct world *w, uint64_t *token, uint32_t *length) {
  struct packed_descriptor *ring = (struct packed_descriptor *)(w->memory + DESCRIPTORS);
  struct packed_descriptor *d = &ring[w->next_used_slot];
  uint16_t flags = load_acquire(&d->flags);
  uint16_t expected = w->driver_wrap_used ? DESC_AVAIL | DESC_USED : 0;
  if ((flags & (DESC_AVAIL | DESC_USED)) != expected || w->in_flight == 0) return 0;
  uint32_t id = d->id;
  uint32_t written = flags & DESC_WRITE ? d->length : 0;
  if (id >= w->size || w->units[id] == 0 || written > w->writable[id]) {
    w->broken = 1;
    return 0;
  }
  uint32_t units = w->units[id];
  w->next_used_slot += units;
  if (w->next_used_slot >= w->size) {
    w->next_used_slot -= w->size;
    w->driver_wrap_used ^= 1;
  }
  uint32_t free = w->first_id + w->id_count;
  w->ids[free >= w->size ? free - w->size : free] = id;
  w->id_count++;
  w->free_count += units;
  w->units[id] = 0;
  w->in_flight--;
  *token = w->tokens[id];
  *length = written;
  return 1;
}

/* ---- what the benchmark calls ---- */

EXPORT void world_close(struct world *w) {
  if (w == NULL) return;
  free(w->memory);
  free(w->disk);
  free(w->links);
  free(w->units);
  free(w->ids);
  free(w->writable);
  free(w->tokens);
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
  w->units = calloc(size, 2);
  w->ids = calloc(size, 2);
  w->writable = calloc(size, 8);
  w->tokens = calloc(size, 8);
  if (!w->memory || !w->disk || !w->links || !w->units || !w->ids || !w->writable || !w->tokens) {
    world_close(w);
    return NULL;
  }
  memset(w->memory, 0, w->memory_size);
  memset(w->disk, 0x5a, w->disk_size);
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
      uint16_t seen = load_acquire(u16_at(w, DEVICE_AREA + 2));
      while (split_take(w, seen, &token, &length)) done += token < w->batch;
    } else {
      struct packed_batch batch = { 0, 0, 0 };
      for (uint32_t i = 0; i < w->batch; i++) {
        struct buffer b;
        make_buffer(w, i, &b);
        packed_add(w, &b, i, w->shape == IND3 ? TABLES + 64 * (i % 64) : 0, &batch);
      }
      kicks += packed_publish(w, &batch);
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
