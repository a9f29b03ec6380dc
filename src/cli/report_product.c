/* What a matmul job did: the product, how it was checked, and the ranks' parts. */
#include <math.h>

#include "cli/grid.h"
#include "cli/report.h"

static double mib(int64_t bytes) {
    return (double)bytes / 0x1p20;
}

static saf_status print_texts(FILE *out, const saf_result_product *p) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    const struct {
        const char *name, *text;
        bool transposed;
    } rows[] = {{"A", p->a, p->transpose_a != 0},
                {"B", p->b, p->transpose_b != 0},
                {"C before", p->c, p->transpose_c != 0},
                {"C", p->stored, false},
                {"sha256", p->sha256, false},
                {"OpenBLAS", p->core, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!rows[i].text || !rows[i].text[0]) continue;
        saf_buf_clear(&text);
        SAF_TRY(saf__show_text(&text, rows[i].text, 300));
        fprintf(out, "%-10s %s%s\n", rows[i].name, text.data,
                rows[i].transposed ? ", transposed" : "");
    }
out:
    saf_buf_free(&text);
    return st;
}

static saf_status print_shares(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    SAF_TRY(saf__grid_begin(&g,
                            "rank|row|col|segment|rows|cols|depth|GFLOP/s|compute s|wait s|"
                            "in/out s|received MiB|modelled|read MiB|modelled|memory MiB|peak"));
    for (int64_t i = 0; i < r->product.n_shares; i++) {
        const saf_result_share *s = &r->product.shares[i];
        double rate = s->compute_s > 0 ? s->operations / s->compute_s * 1e-9 : 0;
        SAF_TRY(saf__grid_cell(&g, "%d", (int)s->rank));
        SAF_TRY(saf__grid_cell(&g, "%d", (int)s->row));
        SAF_TRY(saf__grid_cell(&g, "%d", (int)s->col));
        SAF_TRY(saf__grid_cell(&g, "%d", (int)s->segment));
        SAF_TRY(saf__grid_cell(&g, "%lld", (long long)s->rows));
        SAF_TRY(saf__grid_cell(&g, "%lld", (long long)s->cols));
        SAF_TRY(saf__grid_cell(&g, "%lld", (long long)s->depth));
        SAF_TRY(saf__grid_cell(&g, "%.1f", rate));
        SAF_TRY(saf__grid_cell(&g, "%.3f", s->compute_s));
        SAF_TRY(saf__grid_cell(&g, "%.3f", s->wait_s));
        SAF_TRY(saf__grid_cell(&g, "%.3f", s->io_s));
        SAF_TRY(saf__grid_cell(&g, "%.1f", mib(s->bytes_received)));
        SAF_TRY(saf__grid_cell(&g, "%.1f", mib(s->bytes_modelled)));
        SAF_TRY(saf__grid_cell(&g, "%.1f", mib(s->bytes_read)));
        SAF_TRY(saf__grid_cell(&g, "%.1f", mib(s->read_modelled)));
        SAF_TRY(saf__grid_cell(&g, "%.1f", mib(s->memory_modelled)));
        SAF_TRY(
            saf__grid_cell(&g, "%.1f", i < r->n_ranks ? mib(r->ranks[i].peak_memory_bytes) : 0.0));
    }
    st = saf__grid_print(&g, out);
out:
    saf__grid_free(&g);
    return st;
}

saf_status saf__report_product(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    const saf_result_product *p = &r->product;
    fprintf(out, "product    m %lld, n %lld, k %lld, %.16s, alpha %.9g, beta %.9g\n",
            (long long)p->m, (long long)p->n, (long long)p->k, p->dtype ? p->dtype : "", p->alpha,
            p->beta);
    SAF_TRY(print_texts(out, p));
    fprintf(out, "tiles      %lld x %lld, panels of %lld, %lld segment%s of k\n",
            (long long)p->tile_m, (long long)p->tile_n, (long long)p->tile_k,
            (long long)p->segments, p->segments == 1 ? "" : "s");
    fprintf(out, "speed      %.1f GFLOP/s, reading and writing included\n", p->flops_per_s * 1e-9);
    fprintf(out, "between    %.1f MiB by messages, %.1f modelled\n", mib(p->bytes_received),
            mib(p->bytes_modelled));
    fprintf(out,
            "check      %lld of %lld rows; the worst residual is %.2g of its bound; a change of "
            "%.2g of any element is noticed; %.2f s\n",
            (long long)p->check_rows, (long long)p->m, p->check_ratio, p->check_sees, p->check_s);
    fputc('\n', out);
    st = print_shares(out, r);
out:
    return st;
}
