/* SPDX-License-Identifier: Apache-2.0 */
/* Ops, lists and records become specialisations. */
#include "cli/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/nearest.h"

/* For every device. One that no kernel serves the call on is passed over, unless no other does. */
static flashinfer_status add_call(const struct options *options, const struct op *op, const char *values, struct gathered *out)
{
    flashinfer_status unserved = FLASHINFER_OK;
    bool served = false;
    char sentence[2048];
    if (!out->devices.device[0]) /* says why */
        TRY(devices_wanted(options, &out->devices));
    for (int i = 0; out->devices.device[i]; i++) {
        flashinfer_status status = warm_add(&out->list, op, values, options->kernel, out->devices.device[i]);
        if (status && status != FLASHINFER_UNSUPPORTED)
            return status;
        served |= !status;
        unserved = status ? status : unserved;
        if (status)
            snprintf(sentence, sizeof sentence, "%s", flashinfer_last_error());
    }
    return served || !unserved ? FLASHINFER_OK : fail(unserved, "%s", sentence);
}

static bool is_recorded(const char *line)
{
    const char *second = line + strcspn(line, " \t");
    second += strspn(second, " \t");
    size_t length = strcspn(second, " \t\r\n");
    return (length == 3 && !memcmp(second, "cpu", 3)) || (!strncmp(second, "sm_", 3) && !memchr(second, '=', length));
}

static const struct device *recorded_device(struct gathered *out, int32_t arch)
{
    int i = 0;
    while (out->recorded[i].arch && out->recorded[i].arch != arch)
        i++;
    return out->recorded[i].arch || !device_imagine(arch, &out->recorded[i]) ? &out->recorded[i] : NULL;
}

static bool is_asked(const struct options *options, int32_t arch)
{
    bool wanted = !options->archs[0];
    for (int i = 0; options->archs[i]; i++)
        wanted |= options->archs[i] == arch;
    if (!arch)
        return options->cpu || (!options->device_given && !options->archs[0]);
    return wanted && (options->cuda || !options->device_given);
}

static flashinfer_status add_recorded(const struct options *options, const char *line, struct gathered *out)
{
    struct spec_item item = {.op = "", .row = "", .shape = ""};
    int32_t arch;
    TRY(jit_record_parse(line, &item.spec, &arch));
    if (!is_asked(options, arch))
        return FLASHINFER_OK;
    if (arch)
        item.device = recorded_device(out, arch);
    else
        TRY(device_get((DLDevice){kDLCPU, 0}, &item.device));
    spec_list_add(&out->list, &item);
    return FLASHINFER_OK;
}

/* "mm m=1 n=4096 dtype=bf16", or a line of a record. */
static flashinfer_status add_line(const struct options *options, char *line, struct gathered *out)
{
    line += strspn(line, " \t");
    line[strcspn(line, "\r\n")] = 0;
    if (!*line || *line == '#')
        return FLASHINFER_OK;
    if (is_recorded(line))
        return add_recorded(options, line, out);
    char near[512], *rest = line + strcspn(line, " \t");
    if (*rest)
        *rest++ = 0;
    rest += strspn(rest, " \t");
    const struct op *op = op_find(line);
    if (!op)
        return fail(FLASHINFER_INVALID, "there is no op \"%.60s\"%s", line, nearest_op(line, near, sizeof near));
    return add_call(options, op, *rest ? rest : NULL, out);
}

static int add_file(const struct command *command, const struct options *options, struct gathered *out)
{
    bool standard = !strcmp(options->from, "-");
    FILE *file = standard ? stdin : fopen(options->from, "r");
    char *line = NULL;
    size_t room = 0;
    int number = 1;
    flashinfer_status status = FLASHINFER_OK;
    if (!file)
        return usage_error(command, "--from %s: cannot be read: %s", options->from, strerror(errno));
    for (ssize_t length; !status && (length = getline(&line, &room, file)) >= 0; number += !status)
        status = memchr(line, 0, (size_t)length) ? fail(FLASHINFER_INVALID, "the line holds a NUL; this is no list of kernels")
                                                 : add_line(options, line, out);
    int unread = ferror(file) ? errno : 0;
    if (!standard)
        fclose(file);
    free(line);
    if (unread)
        return usage_error(command, "--from %s: cannot be read: %s", options->from, strerror(unread));
    if (!status)
        return -1;
    fprintf(stderr, "flashinfer: %s:%d: %s\n", options->from, number, flashinfer_last_error());
    return status == FLASHINFER_UNSUPPORTED || status == FLASHINFER_NO_DRIVER ? EXIT_UNSUPPORTED : EXIT_USAGE;
}

static int add_list(const struct options *options, struct gathered *out)
{
    char values[MAX_VALUES];
    flashinfer_status status = FLASHINFER_OK;
    for (int i = 0; !status && call_list_values(options->list, i, values, sizeof values); i++)
        status = add_call(options, call_list_op(options->list), values, out);
    return status ? exit_with(status) : -1;
}

int gather(const struct command *command, const struct options *options, struct gathered *out)
{
    memset(out, 0, sizeof *out);
    flashinfer_status status = devices_wanted(options, &out->devices);
    /* A record names its own architectures: no GPU is needed to compile for them. */
    if (status && !(options->from && !options->num_named))
        return exit_with(status);
    int code = options->from ? add_file(command, options, out) : -1;
    if (code < 0 && options->list)
        code = add_list(options, out);
    if ((options->from || options->list) && !options->num_named)
        return code;
    const char *values = options->values[0] ? options->values : NULL;
    for (int i = 0; code < 0 && options->op[i]; i++) {
        status = add_call(options, options->op[i], values, out);
        code = status ? exit_with(status) : -1;
    }
    return code;
}

void gather_free(struct gathered *gathered)
{
    spec_list_free(&gathered->list);
}
