/* Learning the merges of a byte-level BPE vocabulary from counted words. */
#ifndef SAF_MODEL_BPE_H
#define SAF_MODEL_BPE_H

#include "saf/core.h"

enum { SAF__BPE_BYTES = 256 };

/* Two tokens that become one: merge i makes token 256 + i; tokens below 256 are the bytes. */
typedef struct {
    int32_t left, right;
} saf__bpe_merge;

typedef struct saf__bpe saf__bpe;
saf_status saf__bpe_new(saf__bpe **out);
void saf__bpe_free(saf__bpe **b);
/* Counts a word once more; for saf__pretok_split. Errors: NO_MEMORY; BAD_INPUT (2^30 bytes of
 * different words). */
saf_status saf__bpe_add_word(void *bpe, const char *word, size_t len);
/* Up to `max` merges, *made of them: again and again the pair that is most often side by side in
 * all the words, as often as they came; of equally many the one with the least left token, then the
 * least right one. Ends where no pair is there twice. Once.
 * Order   nothing depends on the order of the words
 * Cost    O(n log n) in the bytes of the different words */
saf_status saf__bpe_learn(saf__bpe *b, int64_t max, saf__bpe_merge *merges, int64_t *made);

#endif
