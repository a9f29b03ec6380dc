/* What a matmul job did, as JSON. */
#include "cli/json.h"
#include "cli/report.h"

static cJSON *make_share(saf__json *b, const saf_result_share *s) {
    cJSON *o = cJSON_CreateObject();
    saf__json_whole(b, o, "rank", s->rank);
    saf__json_whole(b, o, "row", s->row);
    saf__json_whole(b, o, "col", s->col);
    saf__json_whole(b, o, "segment", s->segment);
    saf__json_whole(b, o, "rows", s->rows);
    saf__json_whole(b, o, "cols", s->cols);
    saf__json_whole(b, o, "depth", s->depth);
    saf__json_whole(b, o, "bytes_modelled", s->bytes_modelled);
    saf__json_whole(b, o, "bytes_received", s->bytes_received);
    saf__json_whole(b, o, "read_modelled", s->read_modelled);
    saf__json_whole(b, o, "bytes_read", s->bytes_read);
    saf__json_whole(b, o, "memory_modelled", s->memory_modelled);
    saf__json_number(b, o, "compute_s", s->compute_s);
    saf__json_number(b, o, "wait_s", s->wait_s);
    saf__json_number(b, o, "io_s", s->io_s);
    saf__json_number(b, o, "operations", s->operations);
    return o;
}

cJSON *saf__json_product(saf__json *b, const saf_result_product *p) {
    cJSON *o = cJSON_CreateObject(), *ranks = cJSON_CreateArray();
    saf__json_whole(b, o, "m", p->m);
    saf__json_whole(b, o, "n", p->n);
    saf__json_whole(b, o, "k", p->k);
    saf__json_text(b, o, "dtype", p->dtype);
    saf__json_text(b, o, "a", p->a);
    saf__json_text(b, o, "b", p->b);
    saf__json_text(b, o, "c", p->c);
    saf__json_text(b, o, "stored", p->stored);
    saf__json_number(b, o, "alpha", p->alpha);
    saf__json_number(b, o, "beta", p->beta);
    saf__json_whole(b, o, "transpose_a", p->transpose_a);
    saf__json_whole(b, o, "transpose_b", p->transpose_b);
    saf__json_whole(b, o, "transpose_c", p->transpose_c);
    saf__json_text(b, o, "grid", p->grid);
    saf__json_whole(b, o, "tile_m", p->tile_m);
    saf__json_whole(b, o, "tile_n", p->tile_n);
    saf__json_whole(b, o, "tile_k", p->tile_k);
    saf__json_whole(b, o, "segments", p->segments);
    saf__json_text(b, o, "openblas_core", p->core);
    saf__json_text(b, o, "sha256", p->sha256);
    saf__json_whole(b, o, "memory_cap_bytes", p->memory_cap_bytes);
    saf__json_whole(b, o, "bytes_modelled", p->bytes_modelled);
    saf__json_whole(b, o, "bytes_received", p->bytes_received);
    saf__json_number(b, o, "flops_per_s", p->flops_per_s);
    saf__json_number(b, o, "check_ratio", p->check_ratio);
    saf__json_number(b, o, "check_sees", p->check_sees);
    saf__json_whole(b, o, "check_rows", p->check_rows);
    saf__json_number(b, o, "check_s", p->check_s);
    for (int64_t i = 0; i < p->n_shares && !b->failed; i++)
        saf__json_item(b, ranks, make_share(b, &p->shares[i]));
    saf__json_add(b, o, "ranks", ranks);
    return o;
}
