/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of a matrix are moved to tiles of 128 rows by 4 columns, on a CPU; padding is 0. A part takes a range of padded rows.
 *
 *   T u8, or bf16 for any two bytes */
#include "types.h"
#include "block_scale.h"
#include "block_scale_interleave_args.h"

void block_scale_interleave_cpu(const struct block_scale_interleave_args *a, int part, int parts)
{
    int64_t rows = block_scale_rows(SCALES_128X4, a->rows), last = part_begin(a->matrices * rows, part + 1, parts);
    int64_t size = block_scale_bytes(SCALES_128X4, a->rows, a->blocks);
    for (int64_t i = part_begin(a->matrices * rows, part, parts); i < last; i++) {
        int64_t matrix = i / rows, row = i % rows;
        const T *input = (const T *)a->input + matrix * a->matrix_stride + row * a->row_stride;
        T *out = (T *)a->out + matrix * size + block_scale_offset(SCALES_128X4, row, 0, a->blocks);
        for (int64_t block = 0; block < a->blocks; block += 4, out += 512) {
            int64_t count = row >= a->rows ? 0 : a->blocks - block < 4 ? a->blocks - block : 4;
            T four[4] = {0};
            if (count == 4)
                memcpy(four, input + block, sizeof four);
            for (int64_t k = 0; k < count % 4; k++)
                four[k] = input[block + k];
            memcpy(out, four, sizeof four);
        }
    }
}
