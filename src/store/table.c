#include "store/table.h"

enum { BLOCK_ROWS = 1024 };

/* ---- types ---- */

static saf_status chars_type(const saf__h5 *f, const char *path, size_t size, H5T_str_t padding,
                             H5T_cset_t cset, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    SAF_TRY(saf__h5_string_type(f, size, cset, &type));
    SAF_TRY(saf__h5_check(f, H5Tset_strpad(type, padding), path));
    *out = type;
out:
    if (st != SAF_OK) saf__h5_close(&type);
    return st;
}

static saf_status column_type(const saf__h5 *f, const saf__table *table, const saf__column *c,
                              bool in_file, H5T_cset_t cset, hid_t *out) {
    switch (c->kind) {
        case SAF__COLUMN_I32:
            return saf__h5_take(f, H5Tcopy(in_file ? H5T_STD_I32LE : H5T_NATIVE_INT32), c->name,
                                out);
        case SAF__COLUMN_I64:
            return saf__h5_take(f, H5Tcopy(in_file ? H5T_STD_I64LE : H5T_NATIVE_INT64), c->name,
                                out);
        case SAF__COLUMN_U64:
            return saf__h5_take(f, H5Tcopy(in_file ? H5T_STD_U64LE : H5T_NATIVE_UINT64), c->name,
                                out);
        case SAF__COLUMN_F64:
            return saf__h5_take(f, H5Tcopy(in_file ? H5T_IEEE_F64LE : H5T_NATIVE_DOUBLE), c->name,
                                out);
        case SAF__COLUMN_CHARS:
            return chars_type(f, table->path, c->size, in_file ? H5T_STR_NULLPAD : H5T_STR_NULLTERM,
                              cset, out);
        case SAF__COLUMN_TEXT:
            return saf__h5_string_type(f, H5T_VARIABLE, cset, out);
    }
    return saf_fail(SAF_DEFECT, "%s: column %s has no kind", table->path, c->name);
}

/* The struct in memory; csets[column] is the character set that the file has. */
static saf_status memory_type(const saf__h5 *f, const saf__table *table, const H5T_cset_t *csets,
                              hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, column = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Tcreate(H5T_COMPOUND, table->row_bytes), table->path, &type));
    for (int i = 0; i < table->n_columns; i++) {
        const saf__column *c = &table->columns[i];
        SAF_TRY(column_type(f, table, c, false, csets ? csets[i] : H5T_CSET_UTF8, &column));
        SAF_TRY(saf__h5_check(f, H5Tinsert(type, c->name, c->offset, column), c->name));
        saf__h5_close(&column);
    }
    *out = type;
out:
    saf__h5_close(&column);
    if (st != SAF_OK) saf__h5_close(&type);
    return st;
}

/* The row in the file: columns in the table's order, without gaps. */
static saf_status row_type(const saf__h5 *f, const saf__table *table, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, columns[SAF__MAX_COLUMNS];
    size_t bytes = 0;
    for (int i = 0; i < table->n_columns; i++) columns[i] = H5I_INVALID_HID;
    for (int i = 0; i < table->n_columns; i++) {
        SAF_TRY(column_type(f, table, &table->columns[i], true, H5T_CSET_UTF8, &columns[i]));
        bytes += H5Tget_size(columns[i]);
    }
    SAF_TRY(saf__h5_take(f, H5Tcreate(H5T_COMPOUND, bytes), table->path, &type));
    bytes = 0;
    for (int i = 0; i < table->n_columns; i++) {
        const char *name = table->columns[i].name;
        SAF_TRY(saf__h5_check(f, H5Tinsert(type, name, bytes, columns[i]), name));
        bytes += H5Tget_size(columns[i]);
    }
    *out = type;
out:
    for (int i = 0; i < table->n_columns; i++) saf__h5_close(&columns[i]);
    if (st != SAF_OK) saf__h5_close(&type);
    return st;
}

/* ---- writing ---- */

static saf_status describe(const saf__h5 *f, const saf__table *table, hid_t dataset) {
    const char *texts[SAF__MAX_COLUMNS];
    saf_status st = SAF_OK;
    int n = table->n_columns;
    for (int i = 0; i < n; i++) texts[i] = table->columns[i].units;
    SAF_TRY(saf__h5_put_texts(f, dataset, "units", n, texts));
    for (int i = 0; i < n; i++) texts[i] = table->columns[i].description;
    SAF_TRY(saf__h5_put_texts(f, dataset, "column_descriptions", n, texts));
out:
    return st;
}

/* Text cut at the end of its array may end in half a character. */
static void clean_chars(char *text, size_t size) {
    text[size - 1] = '\0';
    size_t len = strlen(text);
    size_t whole = saf_utf8_whole_prefix(text, len);
    memset(text + whole, 0, size - whole);
    for (size_t at = 0; (at += saf_utf8_valid_prefix(text + at, whole - at)) < whole;)
        text[at] = '?';
}

/* Rows as they go to the file: copies whose text is valid UTF-8. `owned` has a place per TEXT. */
static saf_status prepare_block(const saf__table *table, char *block, int64_t rows, char **owned,
                                int64_t *n_owned) {
    saf_status st = SAF_OK;
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < table->n_columns; i++) {
            const saf__column *c = &table->columns[i];
            char *member = block + (size_t)r * table->row_bytes + c->offset;
            if (c->kind == SAF__COLUMN_CHARS) clean_chars(member, c->size);
            if (c->kind != SAF__COLUMN_TEXT) continue;
            const char *text = NULL;
            memcpy(&text, member, sizeof text);
            if (!text) text = "";
            SAF_TRY(saf__h5_clean(text, &owned[*n_owned], &text));
            if (owned[*n_owned]) ++*n_owned;
            memcpy(member, &text, sizeof text);
        }
out:
    return st;
}

static saf_status write_block(const saf__h5 *f, const saf__table *table, hid_t dataset, hid_t type,
                              int64_t row0, int64_t rows, const char *from, char *block) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    char **owned = NULL;
    int64_t n_owned = 0;
    SAF_TRY(saf_alloc((size_t)rows * (size_t)table->n_columns + 1, sizeof *owned, &owned));
    memcpy(block, from, (size_t)rows * table->row_bytes);
    SAF_TRY(prepare_block(table, block, rows, owned, &n_owned));
    SAF_TRY(saf__h5_select_rows(f, dataset, row0, rows, &file_space, &memory_space));
    SAF_TRY(saf__h5_check(f, H5Dwrite(dataset, type, memory_space, file_space, H5P_DEFAULT, block),
                          table->path));
out:
    for (int64_t i = 0; owned && i < n_owned; i++) saf_free(&owned[i]);
    saf_free(&owned);
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    return st;
}

saf_status saf__table_write(const saf__h5 *f, const saf__table *table, const void *rows,
                            int64_t n) {
    const saf__h5_label label = {table->path, NULL, table->description};
    saf_status st = SAF_OK;
    hid_t file_type = H5I_INVALID_HID, type = H5I_INVALID_HID, dataset = H5I_INVALID_HID;
    char *block = NULL;
    SAF_TRY(saf_alloc((size_t)saf_i64_min(n, BLOCK_ROWS), table->row_bytes, &block));
    SAF_TRY(row_type(f, table, &file_type));
    SAF_TRY(memory_type(f, table, NULL, &type));
    SAF_TRY(saf__h5_create(f, &label, file_type, NULL, n, 0, &dataset));
    SAF_TRY(describe(f, table, dataset));
    for (int64_t i = 0; i < n; i += BLOCK_ROWS)
        SAF_TRY(write_block(f, table, dataset, type, i, saf_i64_min(BLOCK_ROWS, n - i),
                            (const char *)rows + (size_t)i * table->row_bytes, block));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&dataset), table->path));
out:
    saf__h5_close(&dataset);
    saf__h5_close(&type);
    saf__h5_close(&file_type);
    saf_free(&block);
    return st;
}

/* ---- reading ---- */

static bool kind_fits(saf__column_kind kind, size_t size, hid_t type) {
    H5T_class_t is = H5Tget_class(type);
    switch (kind) {
        case SAF__COLUMN_I32:
            return is == H5T_INTEGER && H5Tget_size(type) <= 4;
        case SAF__COLUMN_I64:
        case SAF__COLUMN_U64:
            return is == H5T_INTEGER && H5Tget_size(type) <= 8;
        case SAF__COLUMN_F64:
            return is == H5T_FLOAT;
        case SAF__COLUMN_CHARS:
            return is == H5T_STRING && H5Tis_variable_str(type) == 0 && H5Tget_size(type) <= size;
        case SAF__COLUMN_TEXT:
            return is == H5T_STRING && H5Tis_variable_str(type) > 0;
    }
    return false;
}

static saf_status check_columns(const saf__h5 *f, const saf__table *table, hid_t dataset,
                                H5T_cset_t *csets) {
    saf_status st = SAF_OK;
    hid_t file_type = H5I_INVALID_HID, type = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), table->path, &file_type));
    for (int i = 0; i < table->n_columns; i++) {
        const saf__column *c = &table->columns[i];
        int index = H5Tget_member_index(file_type, c->name);
        if (index < 0) {
            st = saf_fail(SAF_BAD_INPUT, "%s: %s has no column %s", f->path, table->path, c->name);
            goto out;
        }
        SAF_TRY(saf__h5_take(f, H5Tget_member_type(file_type, (unsigned)index), c->name, &type));
        if (!kind_fits(c->kind, c->size, type)) {
            st = saf_fail(SAF_BAD_INPUT, "%s: column %s of %s has another type than expected",
                          f->path, c->name, table->path);
            goto out;
        }
        csets[i] = H5Tget_class(type) == H5T_STRING ? H5Tget_cset(type) : H5T_CSET_UTF8;
        saf__h5_close(&type);
    }
out:
    saf__h5_close(&type);
    saf__h5_close(&file_type);
    return st;
}

/* Copies the columns only: what HDF5 leaves between them in a block means nothing. */
static saf_status copy_rows(const saf__table *table, const char *block, int64_t rows, char *out) {
    saf_status st = SAF_OK;
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < table->n_columns; i++) {
            const saf__column *c = &table->columns[i];
            size_t at = (size_t)r * table->row_bytes + c->offset;
            const char *text = NULL;
            char *copy = NULL;
            if (c->kind != SAF__COLUMN_TEXT) {
                memcpy(out + at, block + at, c->size);
                continue;
            }
            memcpy(&text, block + at, sizeof text);
            if (!text || !*text) continue;
            SAF_TRY(saf_strdup(text, &copy));
            memcpy(out + at, &copy, sizeof copy);
        }
out:
    return st;
}

static saf_status read_block(const saf__h5 *f, const saf__table *table, hid_t dataset, hid_t type,
                             int64_t row0, int64_t rows, char *block, char *out) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    SAF_TRY(saf__h5_select_rows(f, dataset, row0, rows, &file_space, &memory_space));
    memset(block, 0, (size_t)rows * table->row_bytes);
    st = saf__h5_check(f, H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, block),
                       table->path);
    if (st == SAF_OK) st = copy_rows(table, block, rows, out);
    (void)H5Dvlen_reclaim(type, memory_space, H5P_DEFAULT, block);
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    return st;
}

static void free_texts(const saf__table *table, char *rows, int64_t n) {
    for (int64_t r = 0; rows && r < n; r++)
        for (int i = 0; i < table->n_columns; i++)
            if (table->columns[i].kind == SAF__COLUMN_TEXT)
                saf_free(rows + (size_t)r * table->row_bytes + table->columns[i].offset);
}

saf_status saf__table_read(const saf__h5 *f, const saf__table *table, void *rows, int64_t *n) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID, type = H5I_INVALID_HID;
    H5T_cset_t csets[SAF__MAX_COLUMNS] = {H5T_CSET_ASCII};
    int64_t shape[2] = {0, 1};
    char *all = NULL, *block = NULL;
    SAF_TRY(saf__h5_open(f, table->path, H5T_COMPOUND, 1, &dataset, shape));
    SAF_TRY(check_columns(f, table, dataset, csets));
    SAF_TRY(memory_type(f, table, csets, &type));
    SAF_TRY(saf_alloc((size_t)shape[0], table->row_bytes, &all));
    SAF_TRY(saf_alloc((size_t)saf_i64_min(shape[0], BLOCK_ROWS), table->row_bytes, &block));
    for (int64_t i = 0; i < shape[0]; i += BLOCK_ROWS)
        SAF_TRY(read_block(f, table, dataset, type, i, saf_i64_min(BLOCK_ROWS, shape[0] - i), block,
                           all + (size_t)i * table->row_bytes));
    memcpy(rows, &all, sizeof all);
    *n = shape[0];
    all = NULL;
out:
    if (all) free_texts(table, all, shape[0]);
    saf_free(&all);
    saf_free(&block);
    saf__h5_close(&type);
    saf__h5_close(&dataset);
    return st;
}
