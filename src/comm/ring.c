/* What a slot holds is told by the number of its message in the slot itself, so that a message of a
 * few bytes moves one line of the caches and nothing else; how far the other has come is looked up
 * only by a sender that has gone round. Source: Giacomoni, Moseley and Vachharajani, FastForward
 * for efficient pipeline parallelism (2008).
 *
 *   slots    number of the message, communicator, tag, length, and contents of up to 48 bytes
 *   data     longer contents, each in one piece, one after another and then from the beginning */
#include "comm/ring.h"

#include <stdatomic.h>

#include "comm/transport.h"

enum { LINE_BYTES = 64, SLOTS = SAF__RING_SLOTS, SLOT_DATA_BYTES = 48 };

/* Message n fills slot n % SLOTS. */
typedef struct {
    _Atomic uint64_t filled; /* n + 1: what the receiver waits for */
    uint32_t comm;
    uint16_t tag, len;
    char data[SLOT_DATA_BYTES];
} slot;

struct saf__ring {
    _Atomic uint64_t taken, bytes_taken; /* by the receiver */
    char pad[SAF__WINDOW_ALIGN - 2 * sizeof(uint64_t)];
    slot slots[SLOTS];
    char data[];
};

_Static_assert(sizeof(slot) == LINE_BYTES, "a slot is a line of the caches");
_Static_assert(sizeof(saf__ring) % SAF__WINDOW_ALIGN == 0, "and so are those of the next ring");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "locks are of one process, rings of two");

size_t saf__ring_bytes(size_t data_bytes) {
    return sizeof(saf__ring) + data_bytes;
}

/* Where contents of so many bytes lie that follow all those before, and where the next ones may.
 * Both ends compute the same. */
static size_t place(const saf__ring_end *end, size_t len, uint64_t *after) {
    *after = end->bytes;
    if (len <= SLOT_DATA_BYTES) return 0;
    size_t at = (size_t)(end->bytes % end->data_bytes);
    if (at + len > end->data_bytes) {
        *after += end->data_bytes - at;
        at = 0;
    }
    *after += (len + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    return at;
}

static bool has_room(const saf__ring_end *end, uint64_t bytes_after) {
    return end->messages - end->taken < SLOTS && bytes_after - end->bytes_taken <= end->data_bytes;
}

bool saf__ring_put(saf__ring_end *end, const saf__ring_message *m) {
    saf__ring *r = end->ring;
    uint64_t after;
    size_t at = place(end, m->len, &after);
    if (!has_room(end, after)) {
        end->taken = atomic_load_explicit(&r->taken, memory_order_acquire);
        end->bytes_taken = atomic_load_explicit(&r->bytes_taken, memory_order_acquire);
        if (!has_room(end, after)) return false;
    }
    slot *s = &r->slots[end->messages % SLOTS];
    s->comm = m->comm;
    s->tag = m->tag;
    s->len = m->len;
    if (m->len > 0) memcpy(m->len <= SLOT_DATA_BYTES ? s->data : r->data + at, m->bytes, m->len);
    end->messages++;
    end->bytes = after;
    atomic_store_explicit(&s->filled, end->messages, memory_order_release);
    return true;
}

bool saf__ring_look(const saf__ring_end *end, saf__ring_message *out) {
    saf__ring *r = end->ring;
    slot *s = &r->slots[end->messages % SLOTS];
    uint64_t after;
    if (atomic_load_explicit(&s->filled, memory_order_acquire) != end->messages + 1) return false;
    size_t at = place(end, s->len, &after);
    *out = (saf__ring_message){.comm = s->comm, .tag = s->tag, .len = s->len};
    out->bytes = s->len <= SLOT_DATA_BYTES ? s->data : r->data + at;
    return true;
}

void saf__ring_take(saf__ring_end *end) {
    saf__ring *r = end->ring;
    uint64_t after;
    (void)place(end, r->slots[end->messages % SLOTS].len, &after);
    end->messages++;
    end->bytes = after;
    atomic_store_explicit(&r->bytes_taken, after, memory_order_release);
    atomic_store_explicit(&r->taken, end->messages, memory_order_release);
}
