#define _DEFAULT_SOURCE /* madvise */
#define _FILE_OFFSET_BITS 64
#include "gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dtype.h"

/* ---- the file ---- */

/* O_NONBLOCK: a FIFO is opened, and then refused, instead of waited for. */
static bnc_status open_regular(const char *path, int *fd, uint64_t *size, bnc_error *err) {
    do
        *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0)
        return bnc_error_io(err, errno, "open");
    struct stat st;
    bnc_status status = BNC_OK;
    if (fstat(*fd, &st) < 0)
        status = bnc_error_io(err, errno, "fstat");
    else if (S_ISDIR(st.st_mode))
        status = bnc_error_io(err, EISDIR, "expected a GGUF file");
    else if (!S_ISREG(st.st_mode))
        status = bnc_error_io(err, EINVAL, "expected a regular file, not a pipe, socket or device");
    else if ((uint64_t)st.st_size > SIZE_MAX)
        status = bnc_error_io(err, EFBIG, "the file is larger than the address space");
    else
        *size = (uint64_t)st.st_size;
    if (status != BNC_OK)
        close(*fd);
    return status;
}

/* The size is asked for once. A file that another process cuts short later ends in SIGBUS where it is read: whoever
 * cannot rule that out reads the file into memory instead (use_mmap = 0). */
static bnc_status map_file(bnc_gguf *gguf, int fd, bnc_error *err) {
    void *p = mmap(NULL, (size_t)gguf->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return bnc_error_io(err, errno, "mmap");
    gguf->base = p;
    gguf->mapped = true;
    return BNC_OK;
}

static bnc_status read_file(bnc_gguf *gguf, int fd, bnc_error *err) {
    enum { PAGE = 4096, CHUNK = 1 << 30 }; /* one read() moves at most 2 GiB less a page */
    void *p = NULL;
    if (posix_memalign(&p, PAGE, (size_t)gguf->size) != 0) /* aligned as a mapping would be */
        return bnc_error_nomem(err, gguf->size);
    gguf->base = p;
    for (uint64_t done = 0; done < gguf->size;) {
        const uint64_t left = gguf->size - done;
        const ssize_t n = read(fd, (uint8_t *)p + done, (size_t)(left < CHUNK ? left : CHUNK));
        if (n < 0 && errno != EINTR)
            return bnc_error_io(err, errno, "read");
        if (n == 0)
            return bnc_error_at(err, BNC_ERR_GGUF, done,
                                "the file was cut short while it was read: expected %" PRIu64 " bytes", gguf->size);
        done += n > 0 ? (uint64_t)n : 0;
    }
    return BNC_OK;
}

/* An empty file cannot be mapped; its base stays NULL and the scan refuses it. */
static bnc_status load(bnc_gguf *gguf, const char *path, bool use_mmap, bnc_error *err) {
    int fd = -1;
    BNC_TRY(open_regular(path, &fd, &gguf->size, err));
    bnc_status status = BNC_OK;
    if (gguf->size)
        status = use_mmap ? map_file(gguf, fd, err) : read_file(gguf, fd, err);
    close(fd); /* a mapping outlives its descriptor */
    return status;
}

/* ---- open and close ---- */

static bnc_status check_options(const bnc_gguf_options *options, bnc_error *err) {
    const bnc_dtype *d = bnc_dtype_at(options->dtype_of_36);
    if (options->dtype_of_36 != -1 && (!d || d->gguf_type != BNC_GGUF_SHARED_ID))
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "dtype_of_36 is %d (%s), which does not have type id 36",
                             (int)options->dtype_of_36, d ? d->name : "no dtype");
    return BNC_OK;
}

static bnc_status fill(bnc_gguf *gguf, const char *path, const bnc_gguf_options *options, bnc_error *err) {
    BNC_TRY(load(gguf, path, options->use_mmap, err));
    BNC_TRY(bnc_gguf_scan(gguf, options, err));
    return bnc_gguf_place(gguf, options, err);
}

bnc_status bnc_gguf_open(const char *path, const bnc_gguf_options *options, bnc_gguf **out, bnc_error *err) {
    BNC_TRY(check_options(options, err));
    bnc_gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf)
        return bnc_error_nomem(err, sizeof *gguf);
    const bnc_status status = fill(gguf, path, options, err);
    if (status == BNC_OK)
        *out = gguf;
    else
        bnc_gguf_close(gguf);
    return status;
}

void bnc_gguf_close(bnc_gguf *gguf) {
    if (!gguf)
        return;
    if (gguf->mapped)
        munmap((void *)(uintptr_t)gguf->base, (size_t)gguf->size);
    else
        free((void *)(uintptr_t)gguf->base);
    free(gguf->kv);
    free(gguf->kv_names);
    free(gguf->tensor);
    free(gguf->tensor_names);
    free(gguf);
}

void bnc_gguf_give_back(const bnc_gguf *gguf, const uint8_t *data, uint64_t nbytes) {
    /* Only whole pages, and never of an allocation: there, the bytes would be lost. */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + nbytes) / page * page;
    if (gguf->mapped && begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* ---- views that cannot fail ---- */

uint32_t bnc_gguf_version(const bnc_gguf *gguf) { return gguf->version; }
uint64_t bnc_gguf_alignment(const bnc_gguf *gguf) { return gguf->alignment; }
uint64_t bnc_gguf_file_size(const bnc_gguf *gguf) { return gguf->size; }
uint64_t bnc_gguf_data_offset(const bnc_gguf *gguf) { return gguf->data_offset; }

int64_t bnc_gguf_kv_count(const bnc_gguf *gguf) { return gguf->n_kv; }

const bnc_gguf_kv *bnc_gguf_kv_at(const bnc_gguf *gguf, int64_t i) {
    return i >= 0 && i < gguf->n_kv ? &gguf->kv[i] : NULL;
}

int64_t bnc_gguf_kv_find(const bnc_gguf *gguf, const char *key, uint64_t key_len) {
    return bnc_gguf_name_find(gguf->kv_names, gguf->n_kv, key, key_len);
}

void bnc_gguf_kv_strings(const bnc_gguf_kv *kv, uint64_t *offsets, uint64_t *lengths) {
    if (kv->elem_type != BNC_GGUF_STRING)
        return;
    uint64_t pos = 0;
    for (uint64_t i = 0; i < kv->count; i++) {
        lengths[i] = bnc_load_u64(kv->data + pos); /* the scan has walked the same lengths to the end */
        offsets[i] = pos + 8;
        pos += 8 + lengths[i];
    }
}

int64_t bnc_gguf_tensor_count(const bnc_gguf *gguf) { return gguf->n_tensor; }

const bnc_gguf_tensor *bnc_gguf_tensor_at(const bnc_gguf *gguf, int64_t i) {
    return i >= 0 && i < gguf->n_tensor ? &gguf->tensor[i] : NULL;
}

int64_t bnc_gguf_tensor_find(const bnc_gguf *gguf, const char *name, uint64_t name_len) {
    return bnc_gguf_name_find(gguf->tensor_names, gguf->n_tensor, name, name_len);
}
