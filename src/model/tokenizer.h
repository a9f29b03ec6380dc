/* Inside of the tokenizer, for src/model/tokenizer*.c and pretok*.c. */
#ifndef SAF_MODEL_TOKENIZER_H
#define SAF_MODEL_TOKENIZER_H

#include "model/pretok.h"
#include "saf/model.h"

/* Tokens, and merges: several times the most that any model has. They bound the memory that a file
 * full of empty texts can take. */
enum { SAF__TOKENS_MAX = 1 << 21 };

typedef enum { SAF__TOKENIZER_LLAMA, SAF__TOKENIZER_GPT2 } saf__tokenizer_model;

/* `tokenizer.ggml.token_type` as in the file, and what saf adds to it, in one byte. */
enum {
    SAF__TOKEN_UNDEFINED = 0,
    SAF__TOKEN_NORMAL = 1,
    SAF__TOKEN_UNKNOWN = 2,
    SAF__TOKEN_CONTROL = 3,
    SAF__TOKEN_USER_DEFINED = 4,
    SAF__TOKEN_UNUSED = 5,
    SAF__TOKEN_BYTE = 6,
    SAF__TOKEN_TYPE_MASK = 7,
    SAF__TOKEN_END = 8,    /* ends a completion */
    SAF__TOKEN_RSTRIP = 16 /* white space after its text belongs to it */
};

/* A slot of the table text -> id; open addressing, linear probing. */
typedef struct {
    uint32_t tag; /* high half of the hash: most mismatches need no look at the text */
    int32_t id;   /* -1: free */
} saf__text_slot;

/* A slot of the table (left id, right id) -> merge of a gpt2 vocabulary. */
typedef struct {
    int32_t left, right; /* left -1: free */
    uint32_t rank;
    int32_t result;
} saf__pair_slot;

/* A stretch of the text being merged. `len` 0: merged into the one before. */
typedef struct {
    int32_t prev, next; /* -1: none */
    uint32_t at, len;
    int32_t id; /* -1: not known (yet) to be a token */
} saf__symbol;

/* A merge that may be made. `order` is key << 32 | left symbol: least first. */
typedef struct {
    uint64_t order;
    uint32_t size; /* bytes of both: tells whether one of them has changed since */
    int32_t id;    /* what they become */
} saf__candidate;

typedef struct {
    saf__symbol *symbols;
    saf__candidate *heap;
    size_t cap;       /* symbols; the heap holds twice as many */
    const char *text; /* [len] what the symbols cut up */
} saf__merger;

struct saf_tokenizer {
    const saf_gguf *g; /* borrowed */
    saf__tokenizer_model model;
    int32_t vocab;
    int32_t bos, eos, unknown;
    bool adds_bos, adds_eos, adds_space; /* adds_space: model "llama" puts one before a text */

    const char **text; /* [V] borrowed from g */
    uint32_t *len;     /* [V] */
    uint8_t *kind;     /* [V] type and flags */
    uint32_t max_len;  /* longest text of a token that merges can give */

    saf__text_slot *slots;
    size_t slot_mask;

    int32_t byte_id[256]; /* token of a byte, or -1 */

    int32_t *special; /* [n_special] by text, bytes ascending */
    int32_t n_special;
    int32_t special_at[257]; /* those with first byte b: [special_at[b], special_at[b + 1]) */
    bool unknown_is_text;    /* the unknown token only ever stands for its own text */

    uint32_t *score_key;  /* llama: [V] the better the score, the smaller */
    bool words_are_apart; /* llama: no token has U+2581 after another character */

    saf__pair_slot *pairs; /* gpt2 */
    size_t pair_mask;
    saf__pretok *pretok;
    bool whole_words;            /* gpt2: a word that is a token is not merged but taken */
    uint16_t byte_char[256];     /* gpt2: the character that stands for a byte */
    int16_t char_byte[256 + 68]; /* and back; -1: none */

    saf__merger merger;
    saf_buf scratch;
};

/* The id of a text, or -1. */
int32_t saf__tokenizer_find(const saf_tokenizer *t, const char *text, size_t len);
/* The id of a text that merges may give: control, unknown and byte tokens never come from plain
 * text, whatever it says. */
int32_t saf__tokenizer_find_plain(const saf_tokenizer *t, const char *text, size_t len);
bool saf__token_is_plain(const saf_tokenizer *t, int32_t id);

static inline int saf__token_type(const saf_tokenizer *t, int32_t id) {
    return t->kind[id] & SAF__TOKEN_TYPE_MASK;
}

/* Reads tokens and their types and makes the table text -> id. */
saf_status saf__tokenizer_load_vocab(saf_tokenizer *t);
/* Special ids, what goes around a text, which tokens end a completion. Needs the vocabulary. */
saf_status saf__tokenizer_load_keys(saf_tokenizer *t);
/* The index of tokens that stand for their own text wherever it appears. */
saf_status saf__tokenizer_load_special(saf_tokenizer *t);
saf_status saf__tokenizer_load_llama(saf_tokenizer *t);
saf_status saf__tokenizer_load_gpt2(saf_tokenizer *t);

/* The first token in text[from..len) that stands for its own text, the longest at its place:
 * its id and where it begins; -1 when there is none. */
int32_t saf__tokenizer_next_special(const saf_tokenizer *t, const char *text, size_t len,
                                    size_t from, bool special, size_t *at);

/* Append the ids of a stretch of plain, valid UTF-8 that begins a text or follows a special token;
 * len >= 1. */
saf_status saf__tokenizer_encode_llama(saf_tokenizer *t, const char *text, size_t len,
                                       saf_ids *out);
saf_status saf__tokenizer_encode_gpt2(saf_tokenizer *t, const char *text, size_t len, saf_ids *out);
/* Appends the token of one byte, or the unknown token; BAD_INPUT when there is neither. */
saf_status saf__tokenizer_append_byte(const saf_tokenizer *t, uint8_t byte, saf_ids *out);

/* What two neighbours become, and how early (smaller first); false when they do not merge. */
typedef bool saf__merge_rule(const saf_tokenizer *t, const saf__symbol *left,
                             const saf__symbol *right, uint32_t *key, int32_t *id);
/* Makes room for n symbols. Errors: NO_MEMORY; BAD_INPUT (more than 2^31). */
saf_status saf__merger_reserve(saf__merger *m, size_t n);
/* Merges symbols[0..n), n >= 1, chained and covering m->text, until no rule applies: always the
 * smallest key, the leftmost among equals. Symbol 0 stays the first; follow `next`. */
void saf__merger_run(const saf_tokenizer *t, saf__merger *m, size_t n, saf__merge_rule *rule);
void saf__merger_free(saf__merger *m);

#endif
