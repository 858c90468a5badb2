/* SPDX-License-Identifier: Apache-2.0 */
/* flashinfer pack */
#include "harness/pack.h"

#include <stdio.h>

#include "cli/gather.h"
#include "cli/progress.h"

static int run(const struct options *options)
{
    struct gathered gathered = {0};
    struct options wanted = *options;
    if (options->num_words != 2)
        return usage_error(&command_pack, "name a level and a file");
    wanted.cpu = wanted.device_given = true;
    int count, code = options->from ? gather(&command_pack, &wanted, &gathered) : -1;
    if (code < 0) {
        progress_watch_compiler();
        flashinfer_status status = pack_build(&gathered.list, options->word[0], options->jobs, options->word[1], &count);
        progress_clear();
        if (!status)
            printf("%s: %d kernels for %s\n", options->word[1], count, options->word[0]);
        code = exit_with(status);
    }
    gather_free(&gathered);
    return code;
}

const struct command command_pack = {
    .name = "pack",
    .summary = "compile CPU kernels into one file, for machines without a compiler",
    .operands_text = "LEVEL FILE",
    .operands = OPERANDS_WORDS,
    .description =
        "Compiles every CPU kernel that the named shapes of all ops lead to, with every dtype that does not follow "
        "another argument's, and writes them to FILE. LEVEL is the instruction set: x86-64-v2, x86-64-v3, x86-64-v4 or aarch64; "
        "FLASHINFER_CC names a cross compiler where one is needed.\n\n"
        "The library takes its CPU kernels from flashinfer-cpu-LEVEL.pack in the folder flashinfer/ beside itself, or in "
        "FLASHINFER_PACK_DIR: "
        "the best level that the CPU has, unless others may write to the file or to its folder. It serves before the disk cache "
        "and the "
        "compiler, but where a compiler could do better, which is on a CPU of a higher level, and for kernels that ask for an "
        "extension "
        "beyond the level that the CPU has. `flashinfer show-config` says which file is used. `make pack` builds all levels.",
    .options = (const struct command_option[]){{OPTION_FROM,
                                                "and the CPU kernels that a list or a record names, also those of programs"},
                                               {OPTION_JOBS, "compile so many at once; default: as many as there are processors"},
                                               {OPTION_END, NULL}},
    .environment = (const char *const[]){"FLASHINFER_CC", "FLASHINFER_PACK_DIR", "TMPDIR", NULL},
    .examples = "flashinfer pack x86-64-v3 flashinfer-cpu-x86-64-v3.pack\n"
                "FLASHINFER_CC=aarch64-linux-gnu-gcc flashinfer pack aarch64 flashinfer-cpu-aarch64.pack\n"
                "flashinfer pack x86-64-v3 flashinfer-cpu-x86-64-v3.pack --from engine.kernels\n",
    .run = run,
};
