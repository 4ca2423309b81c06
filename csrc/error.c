#include "error.h"

#include <stdarg.h>
#include <stdio.h>

static bnc_status fill(bnc_error *err, bnc_status status, int os_error, uint64_t offset, const char *format,
                       va_list args) {
    if (err) {
        err->status = (int32_t)status;
        err->os_error = os_error;
        err->offset = offset;
        vsnprintf(err->message, sizeof err->message, format, args);
    }
    return status;
}

bnc_status bnc_error_set(bnc_error *err, bnc_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fill(err, status, 0, BNC_NO_OFFSET, format, args);
    va_end(args);
    return status;
}

bnc_status bnc_error_at(bnc_error *err, bnc_status status, uint64_t offset, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fill(err, status, 0, offset, format, args);
    va_end(args);
    return status;
}

bnc_status bnc_error_io(bnc_error *err, int os_error, const char *what) {
    bnc_error_set(err, BNC_ERR_IO, "%s", what);
    if (err)
        err->os_error = os_error;
    return BNC_ERR_IO;
}

bnc_status bnc_error_nomem(bnc_error *err, uint64_t bytes) {
    return bnc_error_set(err, BNC_ERR_NOMEM, "could not allocate %llu bytes", (unsigned long long)bytes);
}
