/* SPDX-License-Identifier: Apache-2.0 */
/* examples/quickstart.c in C++20: calls one op on the CPU and prints the same line. */
#include <array>
#include <cstdint>
#include <cstdio>
#include <flashinfer/flashinfer.h>
#include <string_view>

int main()
{
    std::array<std::uint16_t, 8> x{0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800}, ones, y{};
    ones.fill(0x3c00);
    std::array<std::int64_t, 2> shape{1, 8};
    DLTensor input{.data = x.data(), .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 16, 1}, .shape = shape.data(),
                   .strides = nullptr, .byte_offset = 0};
    DLTensor weight = input, out = input;
    weight.data = ones.data();
    weight.ndim = 1;
    weight.shape = &shape[1];
    out.data = y.data();
    struct flashinfer_rmsnorm args{.size = sizeof args, .out = &out, .input = &input, .weight = &weight, .eps = 0};
    if (flashinfer_rmsnorm(&args, nullptr) != FLASHINFER_OK) {
        std::fprintf(stderr, "%s\n", flashinfer_last_error());
        return 1;
    }
    weight.ndim = 2;
    if (flashinfer_rmsnorm(&args, nullptr) != FLASHINFER_INVALID || std::string_view(flashinfer_last_error()).empty())
        return 1;
    for (auto element : y)
        std::printf("%04x ", element);
    std::printf("\n");
    return std::string_view(flashinfer_version()) != FLASHINFER_VERSION;
}
