/*
 * error.h - a status code and a message in a struct that the caller owns: no allocation, no global, thread safe.
 */
#ifndef BNC_ERROR_H
#define BNC_ERROR_H

#include "base.h"
#include "bitnet_core.h"

#define BNC_NO_OFFSET UINT64_MAX

/* Record a failure and return its status. err may be NULL. */
bnc_status bnc_error_set(bnc_error *err, bnc_status status, const char *format, ...) BNC_PRINTF(3, 4);
/* The same with the byte position where it was found. */
bnc_status bnc_error_at(bnc_error *err, bnc_status status, uint64_t offset, const char *format, ...) BNC_PRINTF(4, 5);
/* A failed system call: errno is kept for the caller. */
bnc_status bnc_error_io(bnc_error *err, int os_error, const char *what);
bnc_status bnc_error_nomem(bnc_error *err, uint64_t bytes);

#define BNC_TRY(call)                   \
    do {                                \
        bnc_status try_status = (call); \
        if (try_status != BNC_OK)       \
            return try_status;          \
    } while (0)

#endif
