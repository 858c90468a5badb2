/* SPDX-License-Identifier: Apache-2.0 */
/* CPU and GPU draw the very same tokens from the same bits of probabilities, whatever the filters. Without
 * a GPU there is nothing to compare. */
#include <math.h>
#include <stdlib.h>

#include "flashinfer/sampling.h"
#include "harness/device_memory.h"
#include "harness/random.h"
#include "tests/op/calls.h"

enum { BATCH = 16, PROBLEMS = 60 };

struct inputs {
    float *probs;
    int64_t vocab, seeds[BATCH];
    int32_t top_k[BATCH];
    float top_p[BATCH];
    int32_t order;
};

static void fill(struct inputs *in, struct random *random)
{
    static const int64_t vocabs[] = {1, 17, 1000, 1023, 5000, 32000, 49152, 70001, 128256};
    in->vocab = vocabs[random_below(random, sizeof vocabs / sizeof *vocabs)];
    in->order = (int32_t)random_below(random, 2);
    in->probs = malloc((size_t)(BATCH * in->vocab) * sizeof(float));
    assert_non_null(in->probs);
    for (int row = 0; row < BATCH; row++) {
        double sharpness = (double)random_below(random, 5);
        for (int64_t i = 0; i < in->vocab; i++)
            in->probs[row * in->vocab + i] = (float)exp(sharpness * random_normal(random) - 12);
        in->seeds[row] = (int64_t)random_bits(random);
        int64_t most = random_chance(random, 0.5) ? 64 : 20000;
        in->top_k[row] = random_chance(random, 0.3) ? 0 : (int32_t)random_between(random, 1, most);
        in->top_p[row] = random_chance(random, 0.3) ? 1.0f : (float)random_unit(random);
    }
}

static void *put(const struct device *device, const void *from, size_t bytes)
{
    void *memory = NULL;
    if (device_alloc(device, bytes, &memory) || device_upload(device, memory, from, bytes))
        fail_msg("%s", flashinfer_last_error());
    return memory;
}

static void draw(const struct device *device, const struct inputs *in, int32_t samples[BATCH])
{
    size_t bytes = (size_t)(BATCH * in->vocab) * sizeof(float);
    void *probs = put(device, in->probs, bytes), *seeds = put(device, in->seeds, sizeof in->seeds);
    void *top_k = put(device, in->top_k, sizeof in->top_k), *top_p = put(device, in->top_p, sizeof in->top_p);
    void *out = put(device, samples, BATCH * sizeof *samples);
    DLTensor tensor[] = {TENSOR(probs, DTYPE_F32, BATCH, in->vocab), TENSOR(seeds, DTYPE_I64, BATCH),
                         TENSOR(top_k, DTYPE_I32, BATCH), TENSOR(top_p, DTYPE_F32, BATCH),
                         TENSOR(out, DTYPE_I32, BATCH)};
    for (int i = 0; i < 5; i++)
        tensor[i].device = device->id;
    if (FLASHINFER(top_k_top_p_sampling_from_probs, NULL, .samples = &tensor[4], .probs = &tensor[0],
                   .top_k = FLASHINFER_TENSOR(&tensor[2]), .top_p = FLASHINFER_TENSOR(&tensor[3]),
                   .filter_apply_order = in->order, .seed = FLASHINFER_TENSOR(&tensor[1])) ||
        device_wait(device) || device_download(device, samples, out, BATCH * sizeof *samples))
        fail_msg("%s", flashinfer_last_error());
    void *all[] = {probs, seeds, top_k, top_p, out};
    for (int i = 0; i < 5; i++)
        device_free(device, all[i]);
}

static void test_same_tokens(void **state)
{
    (void)state;
    const struct device *cpu, *gpu;
    assert_int_equal(device_get((DLDevice){kDLCPU, 0}, &cpu), FLASHINFER_OK);
    if (device_get((DLDevice){kDLCUDA, 0}, &gpu)) {
        print_message("nothing to compare with: %s\n", flashinfer_last_error());
        skip();
    }
    assert_int_equal(device_enter(gpu), FLASHINFER_OK);
    struct random random = {7};
    for (int i = 0; i < PROBLEMS; i++) {
        struct inputs in;
        int32_t from_cpu[BATCH] = {0}, from_gpu[BATCH] = {0};
        fill(&in, &random);
        draw(cpu, &in, from_cpu);
        draw(gpu, &in, from_gpu);
        assert_memory_equal(from_cpu, from_gpu, sizeof from_cpu);
        free(in.probs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
