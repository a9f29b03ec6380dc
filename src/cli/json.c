#include "cli/json.h"

#include <inttypes.h>
#include <math.h>

#include "cli/report.h"

void saf__json_add(saf__json *b, cJSON *object, const char *name, cJSON *value) {
    if (value && object && !b->failed && cJSON_AddItemToObject(object, name, value)) return;
    cJSON_Delete(value);
    b->failed = true;
}

void saf__json_item(saf__json *b, cJSON *array, cJSON *item) {
    if (array && item && !b->failed && cJSON_AddItemToArray(array, item)) return;
    cJSON_Delete(item);
    b->failed = true;
}

void saf__json_text(saf__json *b, cJSON *object, const char *name, const char *text) {
    saf__json_add(b, object, name, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

/* cJSON's own numbers are doubles: seeds and large counts would lose digits. */
void saf__json_whole(saf__json *b, cJSON *object, const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    saf__json_add(b, object, name, cJSON_CreateRaw(text));
}

void saf__json_number(saf__json *b, cJSON *object, const char *name, double value) {
    char text[40];
    snprintf(text, sizeof text, isfinite(value) ? "%.17g" : "null", value);
    saf__json_add(b, object, name, cJSON_CreateRaw(text));
}

void saf__json_identity(saf__json *b, cJSON *object, const saf_identity *id) {
    cJSON *items = cJSON_CreateObject();
    for (int32_t i = 0; i < id->n; i++)
        saf__json_text(b, items, id->items[i].name, id->items[i].value);
    saf__json_add(b, object, "identity", items);
}

saf_status saf__json_print(const saf__json *b, FILE *out, const cJSON *root) {
    char *text = b->failed ? NULL : cJSON_Print(root);
    if (!text) return saf_fail(SAF_NO_MEMORY, "out of memory: the report as JSON");
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return saf__report_flush(out);
}
