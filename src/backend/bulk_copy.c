/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor maps, encoded by the driver, which takes longer than all else that a call does. Those of views that were encoded before
 * are found again: a model's caches stay where they are. */
#include "backend/bulk_copy.h"

#include <string.h>

#include "backend/cuda.h"
#include "core/slot.h"

enum { ALIGNMENT = 16, SETS = 64, WAYS = 4 };
/* Of cuda.h. */
enum { TYPE_U8 = 0, TYPE_F16 = 6, TYPE_BF16 = 9, INTERLEAVE_NONE = 0, SWIZZLE_128B = 3, L2_PROMOTION_128B = 2, FILL_ZERO = 0 };
#define MAX_STRIDE_BYTES (INT64_C(1) << 40)

struct entry {
    struct slot slot;
    struct tensor_map_view view;
    struct tensor_map map;
};

static const char misaligned[] = "a tensor does not begin at a multiple of 16 bytes";
static struct entry table[SETS][WAYS];
static atomic_uint turn; /* of the ways of a set to be forgotten */

_Static_assert(sizeof(struct tensor_map_view) == 104, "views have no padding");

static int type_of(enum dtype dtype) { return dtype_bytes(dtype) == 1 ? TYPE_U8 : dtype == DTYPE_F16 ? TYPE_F16 : TYPE_BF16; }

const char *tensor_map_fit(struct tensor_map_view *view, const void *data, enum dtype dtype, int axes,
                           const struct tensor_map_axis *axis)
{
    const int64_t bytes = dtype_bytes(dtype), max_stride = MAX_STRIDE_BYTES / bytes;
    if ((uintptr_t)data % ALIGNMENT)
        return misaligned;
    *view = (struct tensor_map_view){.address = (uintptr_t)data, .type = (uint16_t)type_of(dtype), .axes = (uint16_t)axes};
    for (int i = 0; i < axes; i++) {
        const int64_t size = axis[i].size, stride = axis[i].stride;
        if (size > UINT32_MAX)
            return "an axis has more elements than bulk copies count";
        view->size[i] = size > 0 ? (uint64_t)size : 1;
        view->box[i] = axis[i].box;
        if (i == 0)
            continue;
        view->stride[i - 1] = ALIGNMENT; /* that of an axis with one element has no say */
        if (size <= 1)
            continue;
        if (stride < 0 || stride >= max_stride || stride * bytes % ALIGNMENT)
            return "a stride is no multiple of 16 bytes that bulk copies can take";
        view->stride[i - 1] = (uint64_t)(stride * bytes);
    }
    return NULL;
}

const char *tensor_map_move(struct tensor_map_view *view, const struct tensor_map_view *of, const void *data)
{
    *view = *of;
    view->address = (uintptr_t)data;
    return view->address % ALIGNMENT ? misaligned : NULL;
}

static uint64_t hash_of(const struct tensor_map_view *view)
{
    uint64_t hash = (view->address ^ view->size[1] << 40) * SLOT_FACTOR;
    return (hash ^ hash >> 32 ^ view->size[view->axes - 1] << 16) * SLOT_FACTOR | 1;
}

static bool find(struct entry *set, uint64_t hash, const struct tensor_map_view *view, struct tensor_map *map)
{
    for (int way = 0; way < WAYS; way++) {
        struct entry *entry = &set[way];
        if (!slot_hold_if(&entry->slot, hash))
            continue;
        const bool found = !memcmp(&entry->view, view, sizeof *view);
        if (found)
            *map = entry->map;
        slot_release(&entry->slot);
        if (found)
            return true;
    }
    return false;
}

static void keep(struct entry *set, uint64_t hash, const struct tensor_map_view *view, const struct tensor_map *map)
{
    struct entry *entry = &set[atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % WAYS];
    if (!slot_hold(&entry->slot))
        return;
    slot_name(&entry->slot, hash);
    entry->view = *view;
    entry->map = *map;
    slot_release(&entry->slot);
}

flashinfer_status tensor_map_encode(struct tensor_map *map, const struct tensor_map_view *view)
{
    static const uint32_t step[TENSOR_MAP_MAX_AXES] = {1, 1, 1, 1, 1};
    const uint64_t hash = hash_of(view);
    struct entry *set = table[hash >> 32 & (SETS - 1)];
    struct cuda_tensor_map encoded;
    if (find(set, hash, view, map))
        return FLASHINFER_OK;
    void *address = (void *)(uintptr_t)view->address;
    CUDA_TRY(cuda()->tensor_map_tiled(&encoded, view->type, view->axes, address, view->size, view->stride, view->box, step,
                                      INTERLEAVE_NONE, SWIZZLE_128B, L2_PROMOTION_128B, FILL_ZERO),
             "cuTensorMapEncodeTiled");
    for (int i = 0; i < 16; i++)
        map->word[i] = encoded.word[i];
    keep(set, hash, view, map);
    return FLASHINFER_OK;
}
