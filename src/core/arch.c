/* SPDX-License-Identifier: Apache-2.0 */
#include "core/arch.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

const int32_t arch_numbers[] = {80, 86, 89, 90, 100, 103, 110, 120, 121, 0};

static const struct arch archs[] = {
    {80, "sm_80", "A100", 108, 163 * 1024, 164 * 1024, 40},
    {86, "sm_86", "A40", 84, 99 * 1024, 100 * 1024, 6},
    {89, "sm_89", "L40S", 142, 99 * 1024, 100 * 1024, 96},
    {90, "sm_90a", "H200", 132, 227 * 1024, 228 * 1024, 60},
    {100, "sm_100a", "B200", 148, 227 * 1024, 228 * 1024, 126},
    {103, "sm_103a", "B300", 148, 227 * 1024, 228 * 1024, 126},
    {110, "sm_110a", "Thor", 20, 227 * 1024, 228 * 1024, 32},
    {120, "sm_120a", "RTX PRO 6000", 188, 99 * 1024, 100 * 1024, 128},
    {121, "sm_121a", "GB10", 48, 99 * 1024, 100 * 1024, 24},
};

const struct arch *arch_find(int32_t number)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (archs[i].number == number)
            return &archs[i];
    return NULL;
}

/* "90", "9.0", "sm_90a": what stands for an architecture, and how long it is. 0: nothing does. */
static int32_t read_number(const char *text, size_t *length)
{
    size_t at = !strncmp(text, "sm_", 3) ? 3 : 0, digits = 0;
    int32_t number = 0;
    for (; digits < 4 && text[at] >= (digits ? '0' : '1') && text[at] <= '9'; at++, digits++)
        number = 10 * number + (text[at] - '0');
    if (digits && digits < 3 && text[at] == '.' && text[at + 1] >= '0' && text[at + 1] <= '9') {
        number = 10 * number + (text[at + 1] - '0');
        at += 2;
    }
    at += digits && (text[at] == 'a' || text[at] == 'f');
    *length = at;
    return text[at] && !strchr(", ;", text[at]) ? 0 : number;
}

const char *arch_parse_list(const char *text, int32_t *numbers, int most)
{
    int count = 0;
    for (text += strspn(text, ", ;"); *text; text += strspn(text, ", ;")) {
        size_t length;
        int32_t number = read_number(text, &length);
        if (!arch_find(number))
            return "must be one or more of 80, 86, 89, 90, 100, 103, 110, 120 and 121, with commas or spaces between; 9.0 and "
                   "sm_90a mean 90";
        bool known = false;
        for (int i = 0; i < count; i++)
            known |= numbers[i] == number;
        if (count == most)
            return "names too many architectures";
        if (!known)
            numbers[count++] = number;
        text += length;
    }
    numbers[count] = 0;
    return count ? NULL : "names no architecture";
}
