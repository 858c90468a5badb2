/* SPDX-License-Identifier: Apache-2.0 */
/* A growing sequence of bytes. */
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *text_extend(struct text *text, size_t size)
{
    if (text->failed)
        return NULL;
    if (text->size + size + 1 > text->capacity) {
        size_t capacity = (text->size + size + 1) * 3 / 2 + 64;
        char *data = realloc(text->data, capacity);
        if (!data) {
            text->failed = true;
            return NULL;
        }
        text->data = data;
        text->capacity = capacity;
    }
    char *place = text->data + text->size;
    text->size += size;
    text->data[text->size] = 0;
    return place;
}

void text_add(struct text *text, const void *data, size_t size)
{
    char *place = text_extend(text, size);
    if (place && size > 0)
        memcpy(place, data, size);
}

void text_print(struct text *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *place = length < 0 ? NULL : text_extend(text, (size_t)length);
    if (place)
        vsnprintf(place, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
}

flashinfer_status text_check(const struct text *text)
{
    return text->failed ? fail(FLASHINFER_MEMORY, "out of host memory") : FLASHINFER_OK;
}

void text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
