#include "kernels.h"

#include <pthread.h>

static const struct {
    const char *name;
    const char *op_name;
    bnc_any_fn fn;
    int32_t op, dtype, isa;
} rows[] = {
#define KERNEL(op, dtype, isa)                                                                   \
    {#op "_" #dtype "_" #isa, #op,          (bnc_any_fn)bnc_##op##_##dtype##_##isa, BNC_OP_##op, \
     BNC_DTYPE_##dtype,       BNC_ISA_##isa},
#define KERNEL0(op, isa) {#op "_" #isa, #op, (bnc_any_fn)bnc_##op##_##isa, BNC_OP_##op, -1, BNC_ISA_##isa},
#include "kernels.def"
#undef KERNEL
#undef KERNEL0
};

int32_t bnc_kernel_count(void) { return (int32_t)BNC_COUNTOF(rows); }

bnc_kernel_info bnc_kernel_at(int32_t i) {
    if (i < 0 || i >= bnc_kernel_count())
        return (bnc_kernel_info){NULL, NULL, -1, -1};
    return (bnc_kernel_info){rows[i].name, rows[i].op_name, rows[i].dtype, rows[i].isa};
}

/* One set a level, filled once. */
static bnc_kernels sets[BNC_ISA_COUNT];
static pthread_once_t sets_once = PTHREAD_ONCE_INIT;

static void fill_sets(void) {
    for (int32_t isa = 0; isa < BNC_ISA_COUNT; isa++) {
        bnc_kernels *set = &sets[isa];
        set->isa = isa;
        for (int op = 0; op < BNC_OP_COUNT; op++)
            for (int dtype = 0; dtype < BNC_DTYPE_COUNT; dtype++)
                set->choice[op][dtype] = (bnc_choice){NULL, -1};
        for (int32_t i = 0; i < bnc_kernel_count(); i++)
            if (rows[i].isa <= isa && bnc_isa_supported(rows[i].isa))
                set->choice[rows[i].op][rows[i].dtype < 0 ? 0 : rows[i].dtype] = (bnc_choice){rows[i].fn, i};
    }
}

const bnc_kernels *bnc_kernels_get(int32_t isa) {
    pthread_once(&sets_once, fill_sets);
    if (isa < 0)
        for (isa = BNC_ISA_COUNT - 1; !bnc_isa_supported(isa); isa--)
            ; /* ends: scalar needs nothing */
    return bnc_isa_supported(isa) ? &sets[isa] : NULL;
}

int32_t bnc_kernels_isa(const bnc_kernels *kernels) { return kernels->isa; }

int32_t bnc_kernels_find(const bnc_kernels *kernels, const char *op, int32_t dtype) {
    if (dtype < -1 || dtype >= BNC_DTYPE_COUNT)
        return -1;
    for (int32_t i = 0; i < bnc_kernel_count(); i++)
        if (strcmp(rows[i].op_name, op) == 0)
            return kernels->choice[rows[i].op][dtype < 0 ? 0 : dtype].index;
    return -1;
}
