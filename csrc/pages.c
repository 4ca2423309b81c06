#define _DEFAULT_SOURCE
#include "pages.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

bnc_status bnc_pages_new(uint64_t bytes, void **out, bnc_error *err) {
    enum { PAGE = 4096 };
    if (bytes > SIZE_MAX / 2)
        return bnc_error_nomem(err, bytes);
    const size_t rounded = (size_t)(bytes + PAGE - 1) / PAGE * PAGE;
    void *memory;
    if (posix_memalign(&memory, PAGE, rounded) != 0)
        return bnc_error_nomem(err, bytes);
#if defined(__linux__)
    madvise(memory, rounded, MADV_NOHUGEPAGE); /* whole pages of our own: nobody else's are touched */
#endif
    *out = memory;
    return BNC_OK;
}
