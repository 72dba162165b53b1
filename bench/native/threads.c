/*
 * The C yardstick of bench:workers: a driver and a device in two threads over the same rings as reference.c, with bells of
 * two words each, a short spin and a futex below. Events by index in both directions.
 */
#define _GNU_SOURCE
#include "reference.c"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct bell {
  _Alignas(64) int32_t count;
  int32_t asleep;
  int64_t notifications;
};

struct pair {
  struct world *w;
  struct bell device, driver;
  int64_t spin;
  int32_t stop;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void bell_ring(struct bell *b) {
  __atomic_add_fetch(&b->count, 1, __ATOMIC_SEQ_CST);
  if (__atomic_exchange_n(&b->asleep, 0, __ATOMIC_SEQ_CST) == 1) {
    b->notifications++;
    syscall(SYS_futex, &b->count, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  }
}

/* Looks for `spin` nanoseconds, then sleeps; a negative spin never sleeps. */
static void bell_wait(struct bell *b, int32_t seen, int64_t spin) {
  int64_t until = spin < 0 ? INT64_MAX : now_ns() + spin;
  do {
    for (int i = 0; i < 20; i++) {
      if (__atomic_load_n(&b->count, __ATOMIC_SEQ_CST) != seen) return;
    }
  } while (now_ns() < until);
  __atomic_store_n(&b->asleep, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&b->count, __ATOMIC_SEQ_CST) == seen) {
    struct timespec most = { 0, 50000000 };
    syscall(SYS_futex, &b->count, FUTEX_WAIT_PRIVATE, seen, &most, NULL, 0);
  }
  __atomic_store_n(&b->asleep, 0, __ATOMIC_SEQ_CST);
}

static void *device_thread(void *of) {
  struct pair *p = of;
  struct world *w = p->w;
  while (!__atomic_load_n(&p->stop, __ATOMIC_SEQ_CST)) {
    int32_t seen = __atomic_load_n(&p->device.count, __ATOMIC_SEQ_CST);
    struct chain *c;
    while ((c = split_pop(w)) != NULL) split_push(w, c, handle_blk(w, c));
    if (split_flush(w)) bell_ring(&p->driver);
    __atomic_store_n(u16_at(w, DEVICE_AREA + 4 + 8 * w->size), w->device_next_avail,
                     __ATOMIC_SEQ_CST);
    if (__atomic_load_n(u16_at(w, DRIVER_AREA + 2), __ATOMIC_SEQ_CST) != w->device_next_avail)
      continue;
    bell_wait(&p->device, seen, p->spin);
  }
  return NULL;
}

/*
 * Has `requests` reads done, `depth` at a time. Returns nanoseconds, or -1 if one was lost; `notifications` gets how many
 * times either side had to be woken.
 */
EXPORT double threads_run(uint32_t requests, uint32_t depth, double spin, double *notifications) {
  struct pair *p = aligned_alloc(64, sizeof *p);
  if (p == NULL) return -1;
  memset(p, 0, sizeof *p);
  struct world *w = p->w = world_open(SPLIT, BLK3, 256, 64, 1);
  if (w == NULL) {
    free(p);
    return -1;
  }
  w->event_idx = 1;
  p->spin = (int64_t)spin;
  pthread_t thread;
  if (pthread_create(&thread, NULL, device_thread, p) != 0) {
    world_close(w);
    free(p);
    return -1;
  }
  uint32_t issued = 0, done = 0;
  uint64_t token;
  uint32_t length;
  int64_t start_ns = now_ns();
  while (done < requests && !w->broken) {
    int32_t seen_bell = __atomic_load_n(&p->driver.count, __ATOMIC_SEQ_CST);
    while (w->in_flight < depth && issued < requests) {
      struct buffer b;
      make_buffer(w, issued, &b);
      if (!split_add(w, &b, issued % depth, 0)) break;
      issued++;
    }
    if (split_publish(w)) bell_ring(&p->device);
    uint32_t before = done;
    uint16_t seen = split_seen(w);
    while (split_take(w, seen, &token, &length)) done++;
    if (done != before) continue;
    __atomic_store_n(u16_at(w, DRIVER_AREA + 4 + 2 * w->size), w->driver_next_used,
                     __ATOMIC_SEQ_CST);
    if (split_seen(w) != w->driver_next_used) continue;
    bell_wait(&p->driver, seen_bell, p->spin);
  }
  int64_t elapsed = now_ns() - start_ns;
  __atomic_store_n(&p->stop, 1, __ATOMIC_SEQ_CST);
  bell_ring(&p->device);
  pthread_join(thread, NULL);
  *notifications = p->device.notifications + p->driver.notifications;
  double result = done == requests && !w->broken ? (double)elapsed : -1;
  world_close(w);
  free(p);
  return result;
}
