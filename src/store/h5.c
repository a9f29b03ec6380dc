#include "store/h5.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { MESSAGE_BYTES = 512 };

static pthread_mutex_t in_use;
static pthread_once_t in_use_made = PTHREAD_ONCE_INIT;

static void make_in_use(void) {
    pthread_mutexattr_t kind;
    if (pthread_mutexattr_init(&kind) != 0 ||
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE) != 0 ||
        pthread_mutex_init(&in_use, &kind) != 0)
        abort(); /* it needs no memory */
    (void)pthread_mutexattr_destroy(&kind);
}

saf_status saf__h5_room(void) {
    enum { SPARE_BYTES = 32 << 20 }; /* its caches and conversion buffers take 10 of them */
    return saf_memory_spare(SPARE_BYTES, "HDF5");
}

void saf__h5_enter(void) {
    (void)pthread_once(&in_use_made, make_in_use);
    (void)pthread_mutex_lock(&in_use);
    if (saf__h5_room() != SAF_OK) return; /* what comes next says so */
    /* Fails when the library is in use already, by a program that then closes it itself. */
    (void)H5dont_atexit();
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void saf__h5_leave(void) {
    (void)pthread_mutex_unlock(&in_use);
}

/* ---- errors ---- */

typedef struct {
    char text[MESSAGE_BYTES];
    int error;            /* errno, where the message has one */
    bool memory, machine; /* not the file is at fault, but what it lies on */
} innermost;

static herr_t keep_innermost(unsigned n, const H5E_error2_t *e, void *data) {
    innermost *in = data;
    if (n > 0 || !e->desc) return 0;
    /* "file write failed: time = ..., errno = 28, error message = 'No space left on device', ..."
     */
    const char *number = strstr(e->desc, "errno = ");
    if (number) in->error = (int)strtol(number + strlen("errno = "), NULL, 10);
    /* "can't retrieve stat info" comes without a number */
    in->machine = (in->error > 0 && saf_status_of_errno(in->error) == SAF_IO) ||
                  (in->error == 0 && e->maj_num == H5E_FILE && e->min_num == H5E_CANTGET);
    in->memory = e->maj_num == H5E_RESOURCE && in->error == 0;
    if (in->error > 0)
        snprintf(in->text, sizeof in->text, "%s", strerror(in->error));
    else
        snprintf(in->text, sizeof in->text, "%s (HDF5, %s)", e->desc, e->func_name);
    return 0;
}

static int64_t free_bytes(const char *path) {
    struct statvfs fs;
    if (statvfs(path, &fs) != 0) return -1;
    int64_t bytes;
    return saf_i64_mul((int64_t)fs.f_bavail, (int64_t)fs.f_frsize, &bytes) ? bytes : INT64_MAX;
}

saf_status saf__h5_check(const saf__h5 *f, int64_t rc, const char *what) {
    if (rc >= 0) return SAF_OK;
    innermost in = {"HDF5 gives no reason", 0, false, false};
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &in);
    if (in.memory) return saf_fail(SAF_NO_MEMORY, "%s: %s: %s", f->path, what, in.text);
    if (!f->writing)
        return saf_fail(in.machine ? SAF_IO : SAF_BAD_INPUT, "%s: cannot read %s: %s", f->path,
                        what, in.text);
    return saf_fail(SAF_IO,
                    "cannot write %s (%s): %s; the whole file needs at least %lld bytes, %lld are "
                    "free on its file system",
                    f->path, what, in.text, (long long)f->needed_bytes,
                    (long long)free_bytes(f->path));
}

saf_status saf__h5_take(const saf__h5 *f, hid_t id, const char *what, hid_t *out) {
    saf_status st = saf__h5_check(f, id, what);
    if (st == SAF_OK) *out = id;
    return st;
}

herr_t saf__h5_close(hid_t *id) {
    hid_t closing = *id;
    if (closing < 0) return 0;
    *id = H5I_INVALID_HID;
    switch (H5Iget_type(closing)) {
        case H5I_FILE:
            return H5Fclose(closing);
        case H5I_DATASET:
            return H5Dclose(closing);
        case H5I_DATASPACE:
            return H5Sclose(closing);
        case H5I_DATATYPE:
            return H5Tclose(closing);
        case H5I_ATTR:
            return H5Aclose(closing);
        case H5I_GENPROP_LST:
            return H5Pclose(closing);
        default:
            return H5Idec_ref(closing) < 0 ? -1 : 0;
    }
}

/* ---- files ---- */

/* Two handles of one process would share a lock of HDF5's, and other programs' settings differ:
 * saf locks by itself. The earliest file format is HDF5's default. */
static saf_status access_list(const saf__h5 *f, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID;
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_FILE_ACCESS), "its access settings", &list));
    SAF_TRY(saf__h5_check(f, H5Pset_file_locking(list, false, true), "its access settings"));
    /* Closing the file with something still open in it then is an error, not a leak. */
    SAF_TRY(saf__h5_check(f, H5Pset_fclose_degree(list, H5F_CLOSE_STRONG), "its access settings"));
    *out = list;
out:
    if (st != SAF_OK) saf__h5_close(&list);
    return st;
}

saf_status saf__h5_create_file(const char *path, int user_block, saf__h5 *out) {
    saf__h5 f = {H5I_INVALID_HID, path, true, 0};
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID, creation = H5I_INVALID_HID;
    SAF_TRY(access_list(&f, &list));
    SAF_TRY(saf__h5_take(&f, H5Pcreate(H5P_FILE_CREATE), "its settings", &creation));
    SAF_TRY(saf__h5_check(&f, H5Pset_userblock(creation, (hsize_t)user_block), "its settings"));
    SAF_TRY(saf__h5_take(&f, H5Fcreate(path, H5F_ACC_TRUNC, creation, list), "the file", &f.id));
    *out = f;
out:
    saf__h5_close(&creation);
    saf__h5_close(&list);
    return st;
}

saf_status saf__h5_open_file(const char *path, saf__h5 *out) {
    saf__h5 f = {H5I_INVALID_HID, path, false, 0};
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID;
    struct stat s;
    if (stat(path, &s) != 0)
        return saf_fail(saf_status_of_errno(errno), "%s: %s", path, strerror(errno));
    if (!S_ISREG(s.st_mode)) return saf_fail(SAF_NO_INPUT, "%s is no regular file", path);
    SAF_TRY(access_list(&f, &list));
    htri_t is_hdf5 = H5Fis_hdf5(path);
    SAF_TRY(saf__h5_check(&f, is_hdf5, "the file"));
    if (!is_hdf5) {
        st = saf_fail(SAF_BAD_INPUT, "%s is no HDF5 file", path);
        goto out;
    }
    SAF_TRY(saf__h5_take(&f, H5Fopen(path, H5F_ACC_RDONLY, list), "the file", &f.id));
    *out = f;
out:
    saf__h5_close(&list);
    return st;
}

/* ---- strings ---- */

saf_status saf__h5_string_type(const saf__h5 *f, size_t size, H5T_cset_t cset, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Tcopy(H5T_C_S1), "a string type", &type));
    SAF_TRY(saf__h5_check(f, H5Tset_size(type, size), "a string type"));
    SAF_TRY(saf__h5_check(f, H5Tset_cset(type, cset), "a string type"));
    *out = type;
out:
    if (st != SAF_OK) saf__h5_close(&type);
    return st;
}

saf_status saf__h5_clean(const char *text, char **owned, const char **out) {
    size_t len = strlen(text);
    if (saf_utf8_valid_prefix(text, len) == len) {
        *out = text;
        return SAF_OK;
    }
    saf_buf clean = {0};
    saf_status st = SAF_OK;
    SAF_TRY(saf_utf8_append_clean(&clean, text, len));
    SAF_TRY(saf_strdup(clean.data, owned));
    *out = *owned;
out:
    saf_buf_free(&clean);
    return st;
}

saf_status saf__h5_make_group(const saf__h5 *f, const char *path) {
    saf_status st = SAF_OK;
    hid_t group = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Gcreate2(f->id, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), path,
                         &group));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&group), path));
out:
    return st;
}

saf_status saf__h5_check_inside(const saf__h5 *f, const char *group, const char *path) {
    const char *const names[] = {group, path};
    for (int i = 0; i < 2; i++) {
        H5L_info_t link;
        if (H5Lexists(f->id, names[i], H5P_DEFAULT) <= 0)
            return saf_fail(SAF_BAD_INPUT, "%s has no %s", f->path, path);
        if (H5Lget_info(f->id, names[i], &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
            return saf_fail(SAF_BAD_INPUT, "%s: %s is a link", f->path, names[i]);
    }
    return SAF_OK;
}

saf_status saf__h5_check_own(const saf__h5 *f, const char *path, hid_t dataset) {
    saf_status st = SAF_OK;
    hid_t creation = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Dget_create_plist(dataset), path, &creation));
    if (H5Pget_layout(creation) == H5D_VIRTUAL || H5Pget_external_count(creation) != 0)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has its values in another place", f->path, path);
out:
    saf__h5_close(&creation);
    return st;
}

saf_status saf__h5_check_contiguous(const saf__h5 *f, const char *path, hid_t dataset) {
    saf_status st = SAF_OK;
    hid_t creation = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Dget_create_plist(dataset), path, &creation));
    if (H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s is not stored in one piece", f->path, path);
out:
    saf__h5_close(&creation);
    return st;
}
