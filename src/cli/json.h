/* JSON out, through cJSON: building stops at the first failure, so that nobody need ask after each
 * member. */
#ifndef SAF_CLI_JSON_H
#define SAF_CLI_JSON_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "saf/store.h"

typedef struct {
    bool failed;
} saf__json;

/* These take `value` and `item`. */
void saf__json_add(saf__json *b, cJSON *object, const char *name, cJSON *value);
void saf__json_item(saf__json *b, cJSON *array, cJSON *item);
/* NULL becomes null. */
void saf__json_text(saf__json *b, cJSON *object, const char *name, const char *text);
void saf__json_whole(saf__json *b, cJSON *object, const char *name, int64_t value);
/* What is not finite becomes null. */
void saf__json_number(saf__json *b, cJSON *object, const char *name, double value);
/* "identity": an object of names and values. */
void saf__json_identity(saf__json *b, cJSON *object, const saf_identity *id);
/* Errors: NO_MEMORY (building had failed), IO. `root` stays the caller's. */
saf_status saf__json_print(const saf__json *b, FILE *out, const cJSON *root);

/* report_plan.c */
cJSON *saf__json_plan(saf__json *b, const saf_results *r);
/* report_json_product.c */
cJSON *saf__json_product(saf__json *b, const saf_result_product *p);
/* report_json_training.c */
cJSON *saf__json_training(saf__json *b, const saf_result_training *t);

#endif
