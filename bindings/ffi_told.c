/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a call: op, number of values, the device of its stream; of each value its type, then what it is; of a tensor
 * whether it has data and strides besides, then where it lies and what op/words.h tells. */
#include "bindings/ffi_told.h"

#include "core/slot.h"
#include "op/replay.h"
#include "op/words.h"

enum { HEAD_WORDS = 3, WITH_DATA = 0x100, WITH_STRIDES = 0x200 };
_Static_assert(sizeof(DLDevice) == sizeof(uint64_t), "a word");

static bool is_plain(int32_t type)
{
    return type == FFI_INT || type == FFI_BOOL || type == FFI_FLOAT || type == FFI_DATA_TYPE || type == FFI_DEVICE;
}

uint64_t ffi_told_hash(const struct op *op, const struct ffi_any *values, int32_t num_values)
{
    uint64_t hash = (uintptr_t)op;
    for (int32_t i = 0; i < num_values; i++) {
        const struct ffi_any *value = &values[i];
        const DLTensor *t = ffi_tensor(value);
        uint64_t word = 0;
        if (t) {
            if (!is_describable(t))
                return 0;
            word = tensor_low(t) ^ (uint64_t)t->shape[0] << 40;
        } else if (is_plain(value->type)) {
            word = (uint64_t)value->value.i;
        } else if (value->type != FFI_NONE) {
            return 0;
        }
        hash = hash_word(hash, word);
    }
    return slot_mix(hash) | UINT64_C(1) << 63;
}

static uint64_t tensor_tag(const DLTensor *t) { return FFI_TENSOR | (t->data ? WITH_DATA : 0) | (t->strides ? WITH_STRIDES : 0); }

static bool takes_plan(const struct op *op)
{
    const struct op_arg *arg = op->args;
    while (arg->kind != OP_END && arg->kind != OP_PLAN)
        arg++;
    return arg->kind == OP_PLAN;
}

int ffi_told_write(const void *context, uint64_t *words, int max)
{
    const struct ffi_told *told = context;
    uint64_t *word = words;
    if (takes_plan(told->op))
        return 0;
    *word++ = (uintptr_t)told->op;
    *word++ = (uint64_t)told->num_values;
    *word++ = load_word(&told->stream_device);
    for (int32_t i = 0; i < told->num_values; i++) {
        const struct ffi_any *value = &told->values[i];
        const DLTensor *t = ffi_tensor(value);
        if (word - words > max - 2 - MAX_TENSOR_WORDS)
            return 0;
        if (t) {
            *word++ = tensor_tag(t);
            *word++ = tensor_low(t);
            word = describe_tensor(word, t);
        } else {
            *word++ = (uint64_t)value->type;
            *word++ = value->type == FFI_NONE ? 0 : (uint64_t)value->value.i;
        }
    }
    return (int)(word - words);
}

static bool is_told(const uint64_t *word, const struct op *op, const struct ffi_any *values, int32_t num_values)
{
    struct difference different = {0};
    if (word[0] != (uintptr_t)op || word[1] != (uint64_t)num_values)
        return false;
    word += HEAD_WORDS;
    for (int32_t i = 0; i < num_values; i++) {
        const struct ffi_any *value = &values[i];
        const DLTensor *t = ffi_tensor(value);
        const uint64_t tag = word[0], what = word[1];
        word += 2;
        if (t) {
            different.word |= tensor_low(t) ^ what;
            if (tag != tensor_tag(t) || !compare_tensor(t, t->strides, &word, &different))
                return false;
        } else if (tag != (uint64_t)value->type) {
            return false;
        } else if (value->type != FFI_NONE) {
            different.word |= (uint64_t)value->value.i ^ what;
        }
    }
    return !is_different(&different);
}

bool ffi_told_again(uint64_t hash, const struct op *op, const struct ffi_environment *environment, const struct ffi_any *values,
                    int32_t num_values, flashinfer_status *status)
{
    const uint64_t *words;
    struct replay *replay = hash ? replay_find_told(hash, &words) : NULL;
    if (!replay)
        return false;
    if (!is_told(words, op, values, num_values)) {
        replay_let_go(replay);
        return false;
    }
    DLDevice device;
    memcpy(&device, &words[2], sizeof device);
    *status = replay_run(replay, device.device_type ? environment->stream(device.device_type, device.device_id) : NULL);
    return true;
}
