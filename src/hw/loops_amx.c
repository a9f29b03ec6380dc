/* The tile units: a product of 16 rows of 64 bytes with 16 columns is one instruction. */
#include "hw/loops.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64, PRODUCTS = 4 };

/* Operand of LDTILECFG. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_config;

static void begin(void) {
    tile_config config = {.palette = 1};
    int8_t ones[TILE_ROWS][TILE_BYTES];
    for (int i = 0; i < TILES; i++) {
        config.row_bytes[i] = TILE_BYTES;
        config.rows[i] = TILE_ROWS;
    }
    memset(ones, 1, sizeof ones);
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, TILE_BYTES);
    _tile_loadd(5, ones, TILE_BYTES);
}

/* Four chains of sums, as many as cover the latency. */
static int64_t int8_tiles(int64_t rounds) {
    int32_t sums[PRODUCTS][TILE_ROWS][TILE_BYTES / 4];
    begin();
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_stored(0, sums[0], TILE_BYTES);
    _tile_stored(1, sums[1], TILE_BYTES);
    _tile_stored(2, sums[2], TILE_BYTES);
    _tile_stored(3, sums[3], TILE_BYTES);
    _tile_release();
    int64_t sum = 0;
    for (int i = 0; i < PRODUCTS; i++)
        for (int j = 0; j < TILE_ROWS; j++)
            for (int k = 0; k < TILE_BYTES / 4; k++) sum += sums[i][j][k];
    return sum;
}

void saf__hw_loops_amx(saf__hw_loops *loops) {
    loops->tiles = int8_tiles;
    loops->tile_ops = 2 * PRODUCTS * TILE_ROWS * (TILE_BYTES / 4) * TILE_BYTES;
}

#endif
