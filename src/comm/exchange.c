/* What the ranks of one host wrote into the shared block, for all other hosts, and back. A host's
 * bytes are those of its parts one after another, in the order of the list, which is the same on
 * all ranks: so every side knows every length, and messages carry nothing else. They travel in
 * pieces, at least one, so that hosts which wrote nothing meet as well. */
#include "comm/shared.h"

/* The next byte of a host: `at` bytes into a row of a part. */
typedef struct {
    int64_t part, row;
    size_t at;
} place;

typedef struct {
    char *bytes; /* packed; those of this rank's host are sent, those of the others received */
    size_t n_bytes;
    int64_t pieces, moved; /* moved: received and unpacked; for this rank's host packed */
    int64_t sent;          /* of this rank's pieces, to this host */
    saf__op *sends, *recvs;
    place next;
} host_bytes;

struct saf__exchange {
    saf__exchange_of of;
    const saf_part *parts;
    int64_t n_parts;
    host_bytes *hosts; /* [n_hosts] */
    int n_hosts, me;
    char *packed; /* of all hosts; kept, and grown */
    size_t room;
    saf__op *ops;
    size_t ops_room;
};

saf_status saf__exchange_new(const saf__exchange_of *of, saf__exchange **out) {
    saf_status st = SAF_OK;
    saf__exchange *x = NULL;
    SAF_TRY(saf_alloc(1, sizeof *x, &x));
    x->of = *of;
    x->n_hosts = of->leaders->size;
    x->me = of->leaders->rank;
    SAF_TRY(saf_alloc((size_t)x->n_hosts, sizeof *x->hosts, &x->hosts));
    *out = x;
    x = NULL;
out:
    saf__exchange_free(&x);
    return st;
}

/* Only after a failure is anything under way. */
static void give_up(saf__exchange *x) {
    size_t got;
    for (size_t i = 0; i < x->ops_room; i++)
        (void)x->of.leaders->transport->cancel(x->of.leaders, &x->ops[i], &got);
}

void saf__exchange_free(saf__exchange **exchange) {
    saf__exchange *x = *exchange;
    if (x) {
        give_up(x);
        saf_free(&x->hosts);
        saf_free(&x->packed);
        saf_free(&x->ops);
    }
    saf_free(exchange);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* The next `len` bytes of a host, from the block to `packed`, or back. Rows without gaps are one.
 */
static void move_bytes(saf__exchange *x, int host, char *packed, size_t len, bool pack) {
    place *p = &x->hosts[host].next;
    while (len > 0) {
        const saf_part *part = &x->parts[p->part];
        bool whole = part->stride == part->bytes;
        int64_t rows = whole ? saf_i64_min(part->rows, 1) : part->rows;
        size_t row_bytes = whole ? part->bytes * (size_t)part->rows : part->bytes;
        if (x->of.host_of[part->owner] != host || p->row >= rows || row_bytes == 0) {
            *p = (place){.part = p->part + 1};
            continue;
        }
        size_t n = row_bytes - p->at < len ? row_bytes - p->at : len;
        char *block = x->of.block + part->offset + (size_t)p->row * part->stride + p->at;
        memcpy(pack ? packed : block, pack ? block : packed, n);
        packed += n;
        len -= n;
        p->at += n;
        if (p->at == row_bytes) *p = (place){.part = p->part, .row = p->row + 1};
    }
}

/* ---- room ------------------------------------------------------------------------------------ */

static size_t piece_length(const host_bytes *host, int64_t i) {
    size_t piece = saf__eager_piece_bytes(), left = host->n_bytes - (size_t)i * piece;
    return left < piece ? left : piece;
}

static saf_status make_room(saf__exchange *x, size_t bytes, size_t ops) {
    saf_status st = SAF_OK;
    if (bytes > x->room) {
        x->room = 0;
        saf_free(&x->packed);
        SAF_TRY(saf_alloc(bytes, 1, &x->packed));
        x->room = bytes;
    }
    if (ops > x->ops_room) { /* none is under way */
        x->ops_room = 0;
        saf_free(&x->ops);
        SAF_TRY(saf_alloc(ops, sizeof *x->ops, &x->ops));
        x->ops_room = ops;
    }
out:
    return st;
}

/* Bytes and pieces of every host, and where they are kept. */
static saf_status lay_out(saf__exchange *x) {
    saf_status st = SAF_OK;
    size_t bytes = 0, ops = 0;
    for (int h = 0; h < x->n_hosts; h++) x->hosts[h] = (host_bytes){.bytes = NULL};
    for (int64_t i = 0; i < x->n_parts; i++) {
        host_bytes *host = &x->hosts[x->of.host_of[x->parts[i].owner]];
        host->n_bytes += (size_t)x->parts[i].rows * x->parts[i].bytes;
    }
    for (int h = 0; h < x->n_hosts; h++) {
        host_bytes *host = &x->hosts[h];
        host->pieces =
            saf_i64_max(1, saf_ceil_div((int64_t)host->n_bytes, (int64_t)saf__eager_piece_bytes()));
        ops += (size_t)host->pieces;
        bytes += host->n_bytes;
    }
    int64_t mine = x->hosts[x->me].pieces;
    SAF_TRY(make_room(x, bytes, ops + (size_t)mine * (size_t)x->n_hosts));
    char *at = x->packed;
    saf__op *op = x->ops;
    for (int h = 0; h < x->n_hosts; h++) {
        host_bytes *host = &x->hosts[h];
        host->bytes = at;
        host->recvs = op;
        host->sends = op + host->pieces;
        at += host->n_bytes;
        op += host->pieces + mine;
    }
out:
    return st;
}

/* ---- exchange -------------------------------------------------------------------------------- */

/* The host of a turn, 1 to n_hosts - 1: not everybody begins with the same one. */
static int host_of_turn(const saf__exchange *x, int turn) {
    return (x->me + turn) % x->n_hosts;
}

saf_status saf__exchange_start(saf__exchange *x, const saf_part *parts, int64_t n) {
    saf_status st = SAF_OK;
    saf_comm *c = x->of.leaders;
    x->parts = parts;
    x->n_parts = n;
    SAF_TRY(lay_out(x));
    for (int turn = 1; turn < x->n_hosts; turn++) {
        int h = host_of_turn(x, turn);
        host_bytes *host = &x->hosts[h];
        char *at = host->bytes;
        for (int64_t i = 0; i < host->pieces; i++) {
            size_t len = piece_length(host, i);
            SAF_TRY(c->transport->irecv(c, h, SAF__TAG_MEET, at, len, &host->recvs[i]));
            at += len;
        }
    }
out:
    return st;
}

/* Each piece leaves as soon as it is packed. */
static saf_status send_all(saf__exchange *x) {
    saf_status st = SAF_OK;
    saf_comm *c = x->of.leaders;
    host_bytes *mine = &x->hosts[x->me];
    char *at = mine->bytes;
    for (; mine->moved < mine->pieces; mine->moved++) {
        size_t len = piece_length(mine, mine->moved);
        move_bytes(x, x->me, at, len, true);
        for (int turn = 1; turn < x->n_hosts; turn++) {
            int h = host_of_turn(x, turn);
            SAF_TRY(
                c->transport->isend(c, h, SAF__TAG_MEET, at, len, &x->hosts[h].sends[mine->moved]));
        }
        at += len;
    }
    saf__count(SAF_COUNT_SEND, x->n_hosts - 1, mine->n_bytes * (size_t)(x->n_hosts - 1), 0);
out:
    return st;
}

/* Takes what has come from a host, piece by piece. */
static saf_status receive_more(saf__exchange *x, int h, bool *done) {
    saf_status st = SAF_OK;
    saf_comm *c = x->of.leaders;
    host_bytes *host = &x->hosts[h];
    size_t got, piece = saf__eager_piece_bytes();
    for (*done = true; *done && host->moved < host->pieces;) {
        SAF_TRY(c->transport->test(c, &host->recvs[host->moved], done, &got));
        if (!*done) break;
        size_t len = piece_length(host, host->moved);
        if (got != len) {
            st = saf__comm_fail(c, SAF_COMM,
                                "at a meeting %zu bytes came from host %d where its parts have %zu",
                                got, h, len);
            goto out;
        }
        move_bytes(x, h, host->bytes + (size_t)host->moved * piece, len, false);
        host->moved++;
        if (host->moved == host->pieces) saf__count(SAF_COUNT_RECV, 1, host->n_bytes, 0);
    }
out:
    return st;
}

static saf_status poll(void *what, bool *done) {
    saf_status st = SAF_OK;
    saf__exchange *x = what;
    saf_comm *c = x->of.leaders;
    size_t got;
    *done = true;
    for (int turn = 1; turn < x->n_hosts; turn++) {
        int h = host_of_turn(x, turn);
        host_bytes *host = &x->hosts[h];
        bool one = false;
        SAF_TRY(receive_more(x, h, &one));
        *done = *done && one;
        for (one = true; one && host->sent < x->hosts[x->me].pieces; host->sent += one)
            SAF_TRY(c->transport->test(c, &host->sends[host->sent], &one, &got));
        *done = *done && one;
    }
out:
    return st;
}

saf_status saf__exchange_finish(saf__exchange *x) {
    saf_status st = send_all(x);
    return st != SAF_OK ? st : saf__wait_until(x->of.leaders, poll, x);
}
