/* saf/model_text.h: text to token ids and back by a model file's own tokenizer, and chat templates.
 */
#ifndef SAF_PUBLIC_MODEL_TEXT_H
#define SAF_PUBLIC_MODEL_TEXT_H

#include "saf/core.h"
#include "saf/model_gguf.h"

/* ==== tokenizer ==============================================================================*/

typedef struct saf_tokenizer saf_tokenizer;

/* From the file's tokenizer.* keys. Models:
 *   llama   SentencePiece's BPE: space becomes U+2581, neighbours whose text together is a token
 *           merge, best score first, the leftmost among equals; the rest becomes byte tokens
 *           (<0x0A>), or the unknown token where there are none
 *   gpt2    byte-level BPE: a text is cut into words by the published splitting rule that
 *           `tokenizer.ggml.pre` names, and in a word neighbours merge by rank. A merge that names
 *           what is no plain token is left out; a rule that is not known is refused, never guessed.
 * Which tokens come from where: plain ones (and model llama's user-defined ones) from merges;
 * user-defined, control and unknown ones where their text stands in the input, the longest first
 * (see encode). Of two tokens with the same text the first counts.
 * Phi-3 models (by general.name) drop white space after a special token, as their own tokenizer.
 * Owner   the tokenizer borrows from g: g stays open, with its keys, as long as it lives
 * Thread  encoding uses scratch of the tokenizer: one thread at a time
 * Errors  BAD_INPUT: a model or `pre` that is not supported, by name; inconsistent arrays; an id
 *         that is no token. */
saf_status saf_tokenizer_new(const saf_gguf *g, saf_tokenizer **out);
void saf_tokenizer_free(saf_tokenizer **t);

int32_t saf_tokenizer_vocab(const saf_tokenizer *t);
/* Special ids; -1 where the file has none (model llama: <s> and </s> at 1 and 2 count without
 * keys). */
int32_t saf_tokenizer_bos(const saf_tokenizer *t);
int32_t saf_tokenizer_eos(const saf_tokenizer *t);
/* Whether BOS / EOS go around a text: add_bos_token and add_eos_token, else the model's habit (BOS
 * for llama and for gpt2 with the rules of Llama 3 and Tekken; no EOS). Never without the id. */
bool saf_tokenizer_adds_bos(const saf_tokenizer *t);
bool saf_tokenizer_adds_eos(const saf_tokenizer *t);
/* EOS, EOT, EOM and the well-known end-of-turn pieces (where the file says that they are control or
 * user-defined): any of them ends a completion. */
bool saf_tokenizer_is_end(const saf_tokenizer *t, int32_t id);
/* The id of the token with exactly this text, or -1. */
int32_t saf_tokenizer_find(const saf_tokenizer *t, const char *text, size_t len);

typedef struct {
    int32_t *data;
    int64_t len, cap;
} saf_ids;
saf_status saf_ids_append(saf_ids *ids, int32_t id);
void saf_ids_free(saf_ids *ids);

/* Appends the ids of a text. `special`: the text of special tokens (control, user-defined, unknown)
 * stands for the token; otherwise control tokens' text is plain text (user-defined tokens always
 * match). `add_bos`: put BOS (and EOS) where the file's rules say so.
 * Model llama puts a space before the text and after every special token, unless
 * add_space_prefix is false. On an error nothing is appended.
 * Cost    O(n log n) in bytes, also for one long word
 * Errors: BAD_INPUT for invalid UTF-8, with its byte offset; a byte that no token stands for. */
saf_status saf_tokenizer_encode(saf_tokenizer *t, const char *text, size_t len, bool add_bos,
                                bool special, saf_ids *out);
/* Appends the bytes that one token stands for; control and unknown tokens give nothing unless
 * `special`. `first`: it begins a text (where the `llama` rules drop the added space).
 * Bytes are not always whole characters: see saf_utf8_whole_prefix.
 * Errors: BAD_INPUT (no such token). */
saf_status saf_tokenizer_piece(const saf_tokenizer *t, int32_t id, bool first, bool special,
                               saf_buf *out);
/* All of them. A BOS at the start is no piece where the file's rules put one; what follows a
 * special token begins a text. So the ids of any text decode to it, byte for byte (model llama: but
 * for U+2581, which becomes a space). */
saf_status saf_tokenizer_decode(const saf_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                saf_buf *out);

/* Where the end of a text begins that is kept back to measure a model on: at the first line behind
 * the first 1 - share of its bytes; len where there is none, or share is 0. */
size_t saf_text_held_out(const char *text, size_t len, double share);

/* Learns a byte-level BPE vocabulary of `size` tokens from text files and writes it as a GGUF file
 * without tensors (tokenizer model "gpt2", splitting rule "gpt-2"): the 256 bytes, then what merges
 * make, the pair that is there most often first (of equals that with the smaller ids), last the
 * token <|endoftext|>, BOS and EOS in one. Where it stands in a text, two texts meet. `held_out` of
 * each text's end is not looked at. *tokens is `size`, or less where no pair is left that is there
 * twice.
 * Order   the same texts, in any order, give the same bytes
 * Errors  USAGE (size), NO_INPUT, BAD_INPUT (no UTF-8, with its byte offset), CANNOT_CREATE, IO */
saf_status saf_vocab_make(const char *path, const char *const *texts, int64_t n_texts, int64_t size,
                          double held_out, int64_t *tokens);

/* ==== chat ===================================================================================*/

/* One family per way of rendering; those of a group differ in details (see chat_formats.c). */
typedef enum {
    SAF_CHAT_NONE,
    SAF_CHAT_CHATML,         /* <|im_start|> */
    SAF_CHAT_QWEN2,          /* with this model's own system text where none is given */
    SAF_CHAT_QWEN25,         /* likewise */
    SAF_CHAT_SMOLLM2,        /* likewise */
    SAF_CHAT_QWEN3,          /* leaves out the thoughts of earlier answers */
    SAF_CHAT_QWEN3_THINKING, /* and begins the answer with <think> */
    SAF_CHAT_PHI4,           /* <|im_sep|> */
    SAF_CHAT_LLAMA3,         /* <|start_header_id|> */
    SAF_CHAT_LLAMA31,        /* with the dates that its template has (26 Jul 2024, not today's) */
    SAF_CHAT_LLAMA2,         /* [INST], <<SYS>> */
    SAF_CHAT_MISTRAL,        /* [INST]; 0.1 and 0.2 */
    SAF_CHAT_MISTRAL_V1,
    SAF_CHAT_MISTRAL_V3,
    SAF_CHAT_MISTRAL_V3_TRIM,
    SAF_CHAT_MISTRAL_TEKKEN,
    SAF_CHAT_MINISTRAL,
    SAF_CHAT_GEMMA, /* <start_of_turn>; a system message joins the first user turn */
    SAF_CHAT_PHI3,  /* <|user|>, <|end|> */
    SAF_CHAT_PHI4_MINI,
    SAF_CHAT_ZEPHYR, /* <|user|>, </s>; TinyLlama */
    SAF_CHAT_FAMILIES
} saf_chat_family;

typedef struct {
    const char *role, *content; /* zero-terminated UTF-8 */
} saf_chat_message;

/* Recognised from `tokenizer.chat_template`; NONE when the file has none or none known. */
saf_status saf_chat_family_of(const saf_gguf *g, saf_chat_family *out);
/* The same from a template's text. */
saf_chat_family saf_chat_recognise(const char *text, size_t len);
const char *saf_chat_family_name(saf_chat_family family);
/* The prompt up to where the assistant's answer begins, to be encoded with special = true.
 * BOS is left to the encoder's rules. Appends; on an error `out` holds a part.
 * Errors: BAD_INPUT (no template; a role other than system, user, assistant; an order of roles that
 * the family's template refuses). */
saf_status saf_chat_render(saf_chat_family family, const saf_chat_message *messages, int n,
                           saf_buf *out);

#endif
