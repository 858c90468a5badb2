/* SPDX-License-Identifier: Apache-2.0 */
/* Writes commands. */
#include "harness/reproduce.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *reproduce_device(DLDeviceType device)
{
    return device == kDLCUDA ? "cuda" : "cpu";
}

static void append(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(char *text, const char *format, ...)
{
    size_t length = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + length, REPRODUCE_COMMAND - length, format, arguments);
    va_end(arguments);
}

void reproduce(const struct reproduce *what, char text[REPRODUCE_COMMAND])
{
    snprintf(text, REPRODUCE_COMMAND, "flashinfer %s %s", what->command, what->op->name);
    if (what->row)
        append(text, " --kernel %s", what->row);
    if (what->shape)
        append(text, " --shape %s", what->shape);
    if (what->seed)
        append(text, " --seed %llu", (unsigned long long)what->seed);
    if (what->device)
        append(text, " --device %s", reproduce_device(what->device->id.device_type));
    if (what->values && (what->values[0] == '-' || strstr(what->values, " -")))
        append(text, " --");
    if (what->values)
        append(text, " %s", what->values);
}
