/* SPDX-License-Identifier: Apache-2.0 */
/* Status names, the library's version, and each thread's sentence about its last failure. */
#include "core/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SENTENCE_BYTES = 16384 };

static _Thread_local char sentence[SENTENCE_BYTES];

const char *flashinfer_status_name(flashinfer_status status)
{
    static const char *const names[] = {
        [FLASHINFER_OK] = "FLASHINFER_OK",
        [FLASHINFER_INVALID] = "FLASHINFER_INVALID",
        [FLASHINFER_UNSUPPORTED] = "FLASHINFER_UNSUPPORTED",
        [FLASHINFER_WORKSPACE] = "FLASHINFER_WORKSPACE",
        [FLASHINFER_FOREIGN_PLAN] = "FLASHINFER_FOREIGN_PLAN",
        [FLASHINFER_NOT_PREPARED] = "FLASHINFER_NOT_PREPARED",
        [FLASHINFER_NO_DRIVER] = "FLASHINFER_NO_DRIVER",
        [FLASHINFER_NO_COMPILER] = "FLASHINFER_NO_COMPILER",
        [FLASHINFER_COMPILE] = "FLASHINFER_COMPILE",
        [FLASHINFER_LOAD] = "FLASHINFER_LOAD",
        [FLASHINFER_MEMORY] = "FLASHINFER_MEMORY",
        [FLASHINFER_DEVICE] = "FLASHINFER_DEVICE",
        [FLASHINFER_IO] = "FLASHINFER_IO",
        [FLASHINFER_INTERNAL] = "FLASHINFER_INTERNAL",
    };
    return (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

const char *flashinfer_last_error(void) { return sentence; }

const char *flashinfer_version(void) { return FLASHINFER_VERSION; }

/* Replaces the end of a text that did not fit by "...", never cutting a UTF-8 character in two. */
static void mark_truncated(char *text)
{
    size_t end = SENTENCE_BYTES - sizeof "...";
    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
        end--;
    memcpy(text + end, "...", sizeof "...");
}

flashinfer_status fail(flashinfer_status status, const char *format, ...)
{
    int saved_errno = errno;
    char text[SENTENCE_BYTES]; /* apart from the sentence, which may be one of the arguments */
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0)
        text[0] = 0;
    else if (length >= SENTENCE_BYTES)
        mark_truncated(text);
    memcpy(sentence, text, strlen(text) + 1);
    errno = saved_errno;
    return status;
}
