/*
 * A load on a vhost-user block device, without a guest: a front end of its own with a memory file, rings and event files, as
 * a driver that keeps a number of requests in flight would use it. A thread for each queue, which sleeps when nothing is there.
 *
 *   vhost_blk SOCKET PID QUEUES DEPTH read|write random|sequential BYTES SECONDS
 *
 * Every block of 4096 bytes begins with its own number, which is checked when it is read and kept when it is written. PID is the
 * server's: its processor time during the measurement is told. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_QUEUES = 16, MAX_DEPTH = 256, BLOCK = 4096, PAGE = 4096 };
enum {
  GET_FEATURES = 1, SET_FEATURES = 2, SET_OWNER = 3, SET_MEM_TABLE = 5, SET_VRING_NUM = 8, SET_VRING_ADDR = 9,
  SET_VRING_BASE = 10, GET_VRING_BASE = 11, SET_VRING_KICK = 12, SET_VRING_CALL = 13, GET_PROTOCOL_FEATURES = 15,
  SET_PROTOCOL_FEATURES = 16, SET_VRING_ENABLE = 18, GET_CONFIG = 24,
};
enum { F_FLUSH = 9, F_MQ = 12, F_RING_EVENT_IDX = 29, F_PROTOCOL_FEATURES = 30, F_VERSION_1 = 32 };
enum { P_MQ = 0, P_CONFIG = 9 };

struct message {
  uint32_t request, flags, size;
  uint8_t payload[512];
} __attribute__((packed));

struct desc { uint64_t address; uint32_t length; uint16_t flags, next; };
struct header { uint32_t type, reserved; uint64_t sector; };

struct queue {
  pthread_t thread;
  int index, kick, call;
  uint16_t size;
  struct desc *desc;
  uint16_t *avail, *used;
  uint16_t seen;
  struct header *headers;
  uint8_t *status, *data;
  uint64_t blocks[MAX_DEPTH], started[MAX_DEPTH];
  uint64_t random, next, stride;
  _Atomic uint64_t done;
  uint64_t latency, slowest;
};

static int server, depth, writes, sequential, queues;
static uint32_t bytes;
static uint64_t capacity_blocks, memory_size;
static uint8_t *memory;
static struct queue all[MAX_QUEUES];
static atomic_int stop;

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void tell(uint32_t request, const void *payload, uint32_t size, int descriptor) {
  struct message message = { request, 1, size, { 0 } };
  memcpy(message.payload, payload, size);
  struct iovec part = { &message, 12 + size };
  char control[CMSG_SPACE(sizeof(int))] = { 0 };
  struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
  if (descriptor >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    struct cmsghdr *item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(item), &descriptor, sizeof(int));
  }
  if (sendmsg(server, &header, 0) != (ssize_t)(12 + size)) fail("message %u: %s", request, strerror(errno));
}

static void ask(uint32_t request, const void *payload, uint32_t size, void *answer, uint32_t length) {
  tell(request, payload, size, -1);
  struct message message;
  if (recv(server, &message, 12, MSG_WAITALL) != 12 || message.size > sizeof message.payload ||
      recv(server, message.payload, message.size, MSG_WAITALL) != (ssize_t)message.size || message.size < length)
    fail("no good answer to message %u", request);
  memcpy(answer, message.payload, length);
}

static void tell_u64(uint32_t request, uint64_t value) { tell(request, &value, 8, -1); }

static void *take(uint64_t size) {
  static uint64_t used;
  void *place = memory + used;
  used += (size + PAGE - 1) / PAGE * PAGE;
  if (used > memory_size) fail("too little memory");
  return place;
}

static void start_queue(struct queue *queue, int index) {
  queue->index = index;
  queue->size = 16;
  while (queue->size < 3 * depth) queue->size *= 2;
  queue->desc = take(16 * queue->size);
  queue->avail = take(6 + 2 * queue->size);
  queue->used = take(6 + 8 * queue->size);
  queue->headers = take(16 * depth);
  queue->status = take(depth);
  queue->data = take((uint64_t)bytes * depth);
  queue->random = 88172645463325252ull * (index + 1);
  uint64_t per_request = bytes / BLOCK, share = capacity_blocks / queues / per_request * per_request;
  queue->next = share * index;
  queue->stride = share;
  for (int i = 0; i < depth; i++) {
    struct desc *desc = queue->desc + 3 * i;
    desc[0] = (struct desc){ (uint8_t *)(queue->headers + i) - memory, 16, 1, 3 * i + 1 };
    desc[1] = (struct desc){ queue->data + (uint64_t)bytes * i - memory, bytes, writes ? 1 : 3, 3 * i + 2 };
    desc[2] = (struct desc){ queue->status + i - memory, 1, 2, 0 };
  }
  queue->kick = eventfd(0, EFD_CLOEXEC);
  queue->call = eventfd(0, EFD_CLOEXEC);
  uint32_t num[2] = { index, queue->size }, base[2] = { index, 0 }, enable[2] = { index, 1 };
  struct { uint32_t index, flags; uint64_t desc, used, avail, log; } where = {
    index, 0, (uintptr_t)queue->desc, (uintptr_t)queue->used, (uintptr_t)queue->avail, 0,
  };
  uint64_t number = index;
  tell(SET_VRING_NUM, num, 8, -1);
  tell(SET_VRING_BASE, base, 8, -1);
  tell(SET_VRING_ADDR, &where, sizeof where, -1);
  tell(SET_VRING_CALL, &number, 8, queue->call);
  tell(SET_VRING_KICK, &number, 8, queue->kick);
  tell(SET_VRING_ENABLE, enable, 8, -1);
}

static _Atomic uint16_t *shared(uint16_t *place) { return (_Atomic uint16_t *)place; }

static uint64_t next_block(struct queue *queue) {
  uint64_t per_request = bytes / BLOCK;
  if (sequential) {
    uint64_t block = queue->next;
    queue->next += per_request;
    if (queue->next >= queue->stride * (queue->index + 1)) queue->next = queue->stride * queue->index;
    return block;
  }
  queue->random ^= queue->random << 13;
  queue->random ^= queue->random >> 7;
  queue->random ^= queue->random << 17;
  return queue->random % (capacity_blocks / per_request) * per_request;
}

static uint16_t put(struct queue *queue, int slot, uint16_t index, uint64_t time) {
  uint64_t block = next_block(queue);
  queue->blocks[slot] = block;
  queue->started[slot] = time;
  queue->headers[slot] = (struct header){ writes ? 1 : 0, 0, block * (BLOCK / 512) };
  queue->status[slot] = 0xff;
  uint8_t *data = queue->data + (uint64_t)bytes * slot;
  for (uint64_t i = 0; i < bytes / BLOCK; i++) *(uint64_t *)(data + i * BLOCK) = writes ? block + i : ~0ull;
  queue->avail[2 + index % queue->size] = 3 * slot;
  return index + 1;
}

static void check_done(struct queue *queue, int slot) {
  if (queue->status[slot] != 0) fail("status %u at block %lu", queue->status[slot], queue->blocks[slot]);
  uint8_t *data = queue->data + (uint64_t)bytes * slot;
  for (uint64_t i = 0; i < bytes / BLOCK; i++)
    if (*(uint64_t *)(data + i * BLOCK) != queue->blocks[slot] + i) fail("wrong data at block %lu", queue->blocks[slot] + i);
}

static void publish(struct queue *queue, uint16_t from, uint16_t to) {
  atomic_store_explicit(shared(queue->avail + 1), to, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
  uint16_t event = atomic_load_explicit(shared(queue->used + 2 + 4 * queue->size), memory_order_relaxed);
  if ((uint16_t)(to - event - 1) < (uint16_t)(to - from) && eventfd_write(queue->kick, 1) != 0) fail("kick");
}

static void *serve(void *argument) {
  struct queue *queue = argument;
  uint16_t available = 0, in_flight = 0;
  uint64_t time = now();
  for (int i = 0; i < depth; i++) available = put(queue, i, available, time), in_flight++;
  publish(queue, 0, available);
  while (in_flight > 0) {
    uint16_t used = atomic_load_explicit(shared(queue->used + 1), memory_order_acquire);
    if (used == queue->seen) {
      /* Tell me of the next one; then look again, since it may have come before that was seen. */
      atomic_store_explicit(shared(queue->avail + 2 + queue->size), queue->seen, memory_order_relaxed);
      atomic_thread_fence(memory_order_seq_cst);
      used = atomic_load_explicit(shared(queue->used + 1), memory_order_acquire);
      if (used == queue->seen) {
        /* The other side may have made the file one that does not block. */
        struct pollfd wait = { queue->call, POLLIN, 0 };
        eventfd_t count;
        if (poll(&wait, 1, 10000) != 1) fail("no answer within 10 seconds");
        if (eventfd_read(queue->call, &count) != 0 && errno != EAGAIN) fail("call: %s", strerror(errno));
        continue;
      }
    }
    int stopping = atomic_load(&stop);
    uint16_t before = available;
    time = now();
    uint64_t done = 0;
    while (queue->seen != used) {
      uint16_t *entry = queue->used + 2 + 4 * (queue->seen % queue->size);
      int slot = *(uint32_t *)entry / 3;
      if (*(uint32_t *)entry % 3 != 0 || slot >= depth) fail("used what was not given");
      check_done(queue, slot);
      uint64_t took = time - queue->started[slot];
      queue->latency += took;
      if (took > queue->slowest) queue->slowest = took;
      queue->seen++;
      done++;
      if (stopping) in_flight--;
      else available = put(queue, slot, available, time);
    }
    atomic_fetch_add_explicit(&queue->done, done, memory_order_relaxed);
    if (available != before) publish(queue, before, available);
  }
  return NULL;
}

/* Ticks of processor time, and KiB of memory that is the process's own. */
static void look_at(int pid, uint64_t *ticks, uint64_t *own) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL || fgets(line, sizeof line, file) == NULL) fail("the server is gone");
  fclose(file);
  unsigned long user = 0, system = 0;
  sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  *ticks = user + system;
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  file = fopen(path, "r");
  *own = 0;
  unsigned long value;
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "RssAnon: %lu", &value) == 1 || sscanf(line, "RssFile: %lu", &value) == 1) *own += value;
  if (file != NULL) fclose(file);
}

static uint64_t total(void) {
  uint64_t sum = 0;
  for (int i = 0; i < queues; i++) sum += atomic_load(&all[i].done);
  return sum;
}

int main(int count, char **arguments) {
  if (count != 9) fail("vhost_blk SOCKET PID QUEUES DEPTH read|write random|sequential BYTES SECONDS");
  int pid = atoi(arguments[2]);
  queues = atoi(arguments[3]);
  depth = atoi(arguments[4]);
  writes = strcmp(arguments[5], "write") == 0;
  sequential = strcmp(arguments[6], "sequential") == 0;
  bytes = atoi(arguments[7]);
  double seconds = atof(arguments[8]);
  if (queues < 1 || queues > MAX_QUEUES || depth < 1 || depth > MAX_DEPTH || bytes % BLOCK != 0) fail("out of range");
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
  server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(server, (struct sockaddr *)&address, sizeof address) != 0) fail("%s: %s", arguments[1], strerror(errno));

  uint64_t offered, protocol;
  tell(SET_OWNER, "", 0, -1);
  ask(GET_FEATURES, "", 0, &offered, 8);
  uint64_t wanted = 1ull << F_VERSION_1 | 1ull << F_RING_EVENT_IDX | 1ull << F_PROTOCOL_FEATURES;
  if ((offered & wanted) != wanted) fail("the server offers too little: %lx", offered);
  if (queues > 1) wanted |= 1ull << F_MQ;
  /* A driver without flushes has every write made durable. */
  wanted |= offered & 1ull << F_FLUSH;
  ask(GET_PROTOCOL_FEATURES, "", 0, &protocol, 8);
  tell_u64(SET_PROTOCOL_FEATURES, protocol & (1ull << P_MQ | 1ull << P_CONFIG));
  struct { uint32_t offset, size, flags; uint8_t config[60]; } config = { 0, 60, 0, { 0 } };
  ask(GET_CONFIG, &config, sizeof config, &config, sizeof config);
  uint64_t sectors;
  memcpy(&sectors, config.config, 8);
  capacity_blocks = sectors / (BLOCK / 512);
  tell_u64(SET_FEATURES, offered & wanted);

  memory_size = (uint64_t)queues * ((uint64_t)bytes * depth + (1 << 17));
  memory_size = (memory_size + (1 << 21) - 1) >> 21 << 21;
  int file = memfd_create("load", MFD_CLOEXEC);
  if (ftruncate(file, memory_size) != 0) fail("memory");
  memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
  struct { uint32_t count, padding; uint64_t guest, size, user, offset; } table = {
    1, 0, 0, memory_size, (uintptr_t)memory, 0,
  };
  tell(SET_MEM_TABLE, &table, sizeof table, file);
  for (int i = 0; i < queues; i++) start_queue(all + i, i);
  for (int i = 0; i < queues; i++) pthread_create(&all[i].thread, NULL, serve, all + i);

  uint64_t ticks, own, ticks_after;
  usleep(seconds * 250000);
  look_at(pid, &ticks, &own);
  uint64_t before = total(), start = now();
  usleep(seconds * 1000000);
  uint64_t after = total(), took = now() - start;
  look_at(pid, &ticks_after, &own);
  atomic_store(&stop, 1);
  uint64_t latency = 0, slowest = 0;
  for (int i = 0; i < queues; i++) {
    pthread_join(all[i].thread, NULL);
    latency += all[i].latency;
    if (all[i].slowest > slowest) slowest = all[i].slowest;
  }
  for (int i = 0; i < queues; i++) {
    uint32_t which[2] = { i, 0 }, base[2];
    ask(GET_VRING_BASE, which, 8, base, 8);
  }
  uint64_t requests = after - before;
  double cpu = (double)(ticks_after - ticks) / sysconf(_SC_CLK_TCK);
  printf("{\"requests\":%lu,\"seconds\":%.6f,\"cpu\":%.3f,\"ownKiB\":%lu,\"meanNs\":%lu,\"slowestNs\":%lu}\n", requests,
         took / 1e9, cpu, own, total() == 0 ? 0 : latency / total(), slowest);
  return requests == 0;
}
