/* SPDX-License-Identifier: Apache-2.0 */
/* Calls one op on the CPU. Build against an installed library: cc quickstart.c -lflashinfer */
#include <flashinfer/flashinfer.h>
#include <stdio.h>

int main(void)
{
    uint16_t x[8] = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800}; /* 1 to 8 as f16 */
    uint16_t ones[8] = {0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00}, y[8];
    DLTensor t = {.data = x, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 16, 1}, .shape = (int64_t[]){1, 8}};
    DLTensor w = t, out = t;
    w.data = ones;
    w.ndim = 1;
    w.shape = t.shape + 1;
    out.data = y;
    if (FLASHINFER(rmsnorm, NULL, .out = &out, .input = &t, .weight = &w)) {
        fprintf(stderr, "%s\n", flashinfer_last_error());
        return 1;
    }
    for (int i = 0; i < 8; i++)
        printf("%04x ", y[i]);
    printf("\n");
    return 0;
}
