/*
 * fields.h - where the four 2-bit fields of a packed byte lie, and what is added to a value to make it an unsigned operand.
 *
 *     I2_S    field k: bits 7:6, 5:4, 3:2, 1:0    operand = code             bias 1
 *     QK256   field k: bits 1:0, 3:2, 5:4, 7:6    operand = 0, 1, 3, 4       bias 2
 */
#ifndef BNC_FIELDS_H
#define BNC_FIELDS_H

enum { FIELDS = 4 };

typedef struct {
    int bias;
    int first_shift; /* of field 0 */
    int shift_step;  /* from one field to the next */
} format;

#define I2_S ((format){1, 6, -2})
#define QK256 ((format){2, 0, 2})

#endif
