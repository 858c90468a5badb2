/* SPDX-License-Identifier: Apache-2.0 */
/* A growing list without repetitions. */
#include "harness/spec_list.h"

#include <stdlib.h>
#include <string.h>

void spec_list_add(struct spec_list *list, const struct spec_item *item)
{
    for (int i = 0; i < list->count; i++)
        if (list->items[i].device == item->device && !memcmp(&list->items[i].spec, &item->spec, sizeof item->spec))
            return;
    if (list->count == list->room) {
        int room = list->room ? 2 * list->room : 64;
        struct spec_item *items = realloc(list->items, (size_t)room * sizeof *items);
        if (!items) {
            list->failed = true;
            return;
        }
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = *item;
}

void spec_list_free(struct spec_list *list)
{
    free(list->items);
    *list = (struct spec_list){0};
}
