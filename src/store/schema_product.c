/* The schema of what a results file says of a product. */
#include "store/schema.h"

#define ENTRY(name, kind, member) \
    { name, offsetof(saf_results, product.member), SAF__ATTRIBUTE_##kind, true }

const saf__attribute saf__product_attributes[] = {
    ENTRY("product_m", I64, m),
    ENTRY("product_n", I64, n),
    ENTRY("product_k", I64, k),
    ENTRY("product_dtype", TEXT, dtype),
    ENTRY("product_a", TEXT, a),
    ENTRY("product_b", TEXT, b),
    ENTRY("product_c", TEXT, c),
    ENTRY("product_stored", TEXT, stored),
    ENTRY("product_alpha", F64, alpha),
    ENTRY("product_beta", F64, beta),
    ENTRY("product_transpose_a", I64, transpose_a),
    ENTRY("product_transpose_b", I64, transpose_b),
    ENTRY("product_transpose_c", I64, transpose_c),
    ENTRY("product_grid", TEXT, grid),
    ENTRY("product_tile_m", I64, tile_m),
    ENTRY("product_tile_n", I64, tile_n),
    ENTRY("product_tile_k", I64, tile_k),
    ENTRY("product_segments", I64, segments),
    ENTRY("product_memory_cap_bytes", I64, memory_cap_bytes),
    ENTRY("product_bytes_modelled", I64, bytes_modelled),
    ENTRY("product_bytes_received", I64, bytes_received),
    ENTRY("product_check_ratio", F64, check_ratio),
    ENTRY("product_check_sees", F64, check_sees),
    ENTRY("product_check_rows", I64, check_rows),
    ENTRY("product_check_s", F64, check_s),
    ENTRY("product_sha256", TEXT, sha256),
    ENTRY("flops_per_s", F64, flops_per_s),
    ENTRY("openblas_core", TEXT, core),
};
const int saf__n_product_attributes =
    (int)(sizeof saf__product_attributes / sizeof saf__product_attributes[0]);

#define SHARE(member, k, units, text)                                              \
    {                                                                              \
#member, units, text, SAF__COLUMN_##k, offsetof(saf_result_share, member), \
            sizeof((saf_result_share *)0)->member                                  \
    }

static const saf__column share_columns[] = {
    SHARE(rank, I32, "1", "number of the rank"),
    SHARE(row, I32, "1", "its row of the grid; -1: it had no part"),
    SHARE(col, I32, "1", "its column of the grid"),
    SHARE(segment, I32, "1", "its share of k"),
    SHARE(rows, I64, "1", "rows of C that it computed"),
    SHARE(cols, I64, "1", "columns of C that it computed"),
    SHARE(depth, I64, "1", "over so many of k"),
    SHARE(bytes_modelled, I64, "bytes", "payload that the model has it receive from other ranks"),
    SHARE(bytes_received, I64, "bytes", "payload of the product that it received from other ranks"),
    SHARE(read_modelled, I64, "bytes", "that the model has it read of A and B"),
    SHARE(bytes_read, I64, "bytes", "that it read, or was sent by the rank that has the files"),
    SHARE(memory_modelled, I64, "bytes", "memory of its matrices by the model"),
    SHARE(compute_s, F64, "s", "time multiplying"),
    SHARE(wait_s, F64, "s", "time waiting for others"),
    SHARE(io_s, F64, "s", "time reading A, B and C and handing C over"),
    SHARE(operations, F64, "operations", "products and sums of its multiplications"),
};
const saf__table saf__shares_table = {
    "/product/ranks", "one row per rank of a product", sizeof(saf_result_share),
    (int)(sizeof share_columns / sizeof share_columns[0]), share_columns};
