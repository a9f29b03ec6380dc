/* What of a GGUF file a rank without it needs before it is given tensors: the bytes of every part's
 * header, and of the tensors that all ranks read.
 *
 *   image     { magic, parts, extents } file_bytes[parts] { part, offset, len }[extents] bytes ...
 *
 * All numbers are uint64_t; the bytes of the extents follow one another. The headers come first,
 * one for each part. */
#include <assert.h>

#include "model/gguf.h"

#define IMAGE_MAGIC UINT64_C(0x31474D4946415347)

typedef struct {
    uint64_t magic, parts, extents;
} image_start;

typedef struct {
    uint64_t part, offset, len;
} image_extent;

/* Read by every rank: the rotary factors, a few hundred bytes. */
static const char everywhere[] = "rope_freqs.weight";

static saf_status append_bytes(const saf_gguf *g, const image_extent *e, saf_buf *out) {
    size_t at = out->len, end;
    if (!saf_size_add(at, (size_t)e->len, &end))
        return saf_fail(SAF_NO_MEMORY, "%s: the header is too large", saf_gguf_path(g));
    saf_status st = saf_buf_resize(out, end);
    if (st != SAF_OK) return st;
    return saf__gguf_pread(&g->parts[e->part], e->offset, (size_t)e->len, "the header",
                           out->data + at);
}

saf_status saf_gguf_image_write(const saf_gguf *g, saf_buf *out) {
    saf_status st = SAF_OK;
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, everywhere);
    image_start start = {IMAGE_MAGIC, (uint64_t)g->n_parts, (uint64_t)g->n_parts + (t != NULL)};
    image_extent last = {0};
    if (t) last = (image_extent){(uint64_t)t->part, t->offset, t->bytes};
    saf_buf_clear(out);
    SAF_TRY(saf_buf_append(out, &start, sizeof start));
    for (int i = 0; i < g->n_parts; i++)
        SAF_TRY(saf_buf_append(out, &g->parts[i].file_bytes, sizeof g->parts[i].file_bytes));
    for (int i = 0; i < g->n_parts; i++) {
        image_extent e = {(uint64_t)i, 0, g->parts[i].header_bytes};
        SAF_TRY(saf_buf_append(out, &e, sizeof e));
    }
    if (t) SAF_TRY(saf_buf_append(out, &last, sizeof last));
    for (int i = 0; i < g->n_parts; i++) {
        image_extent e = {(uint64_t)i, 0, g->parts[i].header_bytes};
        SAF_TRY(append_bytes(g, &e, out));
    }
    if (t) SAF_TRY(append_bytes(g, &last, out));
out:
    return st;
}

/* Reads the next `len` bytes of the image; false where they are not all there. */
static bool take(const saf_buf *image, size_t *at, void *to, size_t len) {
    if (len > image->len - *at) return false;
    memcpy(to, image->data + *at, len);
    *at += len;
    return true;
}

static bool read_start(const saf_buf *image, size_t *at, image_start *start) {
    return take(image, at, start, sizeof *start) && start->magic == IMAGE_MAGIC &&
           start->parts > 0 && start->parts <= SAF__GGUF_PARTS_MAX &&
           start->extents >= start->parts && start->extents <= 2 * start->parts;
}

int saf__gguf_image_parts(const saf_buf *image) {
    image_start start;
    size_t at = 0;
    return read_start(image, &at, &start) ? (int)start.parts : 0;
}

bool saf__gguf_image_part(const saf_buf *image, int number, saf__gguf_part *part) {
    image_start start;
    image_extent e;
    size_t at = 0;
    uint64_t wanted = (uint64_t)number;
    if (!read_start(image, &at, &start) || wanted >= start.parts) return false;
    for (uint64_t i = 0; i < start.parts; i++) {
        uint64_t bytes;
        if (!take(image, &at, &bytes, sizeof bytes)) return false;
        if (i == wanted) part->file_bytes = bytes;
    }
    size_t data = at;
    for (uint64_t i = 0; i < start.extents; i++) {
        if (!take(image, &data, &e, sizeof e)) return false;
    }
    for (uint64_t i = 0; i < start.extents; i++) {
        if (!take(image, &at, &e, sizeof e)) return false;
        if (e.len > image->len - data || (i < start.parts && (e.part != i || e.offset != 0)))
            return false;
        if (e.part == wanted)
            part->held[i < start.parts ? 0 : 1] =
                (saf__gguf_extent){image->data + data, e.offset, e.len};
        data += (size_t)e.len;
    }
    return data == image->len;
}
