/* SPDX-License-Identifier: Apache-2.0 */
/* From a spec to everything that decides what is compiled, and the key that stands for all of it. */
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/environment.h"
#include "jit/internal.h"

/* One constant as the compiler is to see it: "T=bf16", "HEAD_DIM=128". */
static void print_constant(char *buffer, size_t size, const struct jit_spec *spec, int i)
{
    const char *name = spec->kernel->constants[i];
    const char *colon = strchr(name, ':');
    if (colon)
        snprintf(buffer, size, "%.*s=%s", (int)(colon - name), name, dtype_name((enum dtype)spec->constant[i]));
    else
        snprintf(buffer, size, "%s=%d", name, (int)spec->constant[i]);
}

static void add_option(struct text *options, const char *prefix, const char *option)
{
    text_print(options, "%s%s", prefix, option);
    text_add(options, "", 1);
}

static void add_options(const struct jit_spec *spec, const struct device *device, const char *march, struct text *options)
{
    /* NaN and infinities are defined everywhere, so nothing here lets a compiler assume them away. */
    static const char *const cpu[] = {
        "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
        "-fPIC", "-fno-semantic-interposition", "-shared", "-Wl,-Bsymbolic", "-Wall",
        "-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types", "-Werror=int-conversion",
    };
    const struct environment *env = environment();
    if (spec->kernel->target == JIT_CUDA) {
        add_option(options, "--gpu-architecture=", device->isa);
        add_option(options, "", "--std=c++17");
        if (spec->user && !spec->user->is_kernel) /* what a division may call otherwise costs a whole kernel its registers */
            add_option(options, "", "--prec-div=false");
        if (env->jit_debug)
            add_option(options, "", "--device-debug");
        else if (env->jit_lineinfo)
            add_option(options, "", "--generate-line-info");
    } else {
        for (size_t i = 0; i < sizeof cpu / sizeof *cpu; i++)
            add_option(options, "", cpu[i]);
        add_option(options, "", march);
        if (!strstr(device->isa, " amx_bf16 ")) /* the system may not let this process use what the compiler sees */
            add_option(options, "", "-U__AMX_BF16__");
        add_option(options, "", env->jit_debug ? "-O0" : "-O3");
        if (env->jit_debug || env->jit_lineinfo)
            add_option(options, "", "-g");
    }
    char constant[128];
    for (int i = 0; i < JIT_MAX_CONSTANTS && spec->kernel->constants[i]; i++) {
        print_constant(constant, sizeof constant, spec, i);
        add_option(options, "-D", constant);
    }
}

const char *jit_describe(const struct jit_spec *spec, const struct device *device, char *buffer, size_t size)
{
    struct text text = {0};
    char constant[128];
    text_print(&text, "%s (", spec->kernel->name);
    for (int i = 0; i < JIT_MAX_CONSTANTS && spec->kernel->constants[i]; i++) {
        print_constant(constant, sizeof constant, spec, i);
        text_print(&text, "%s, ", constant);
    }
    text_print(&text, "%s)", device->isa);
    snprintf(buffer, size, "%s", text.data ? text.data : spec->kernel->name);
    text_free(&text);
    return buffer;
}

/* Each part ends with a NUL, which no part contains except `options`, which comes last and is preceded by its
 * size. */
static void hash_job(struct jit_job *job, const char *toolchain)
{
    struct sha256 hash;
    char options_size[32];
    snprintf(options_size, sizeof options_size, "%zu", job->options.size);
    const char *parts[] = {"flashinfer " FLASHINFER_VERSION, job->spec->kernel->name, job->device->isa, toolchain,
                           job->source.data, options_size};
    sha256_begin(&hash);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        sha256_add(&hash, parts[i], strlen(parts[i]) + 1);
    sha256_add(&hash, job->options.data, job->options.size);
    sha256_end(&hash, job->key);

    char hex[2 * SHA256_BYTES + 1];
    for (int i = 0; i < SHA256_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", job->key[i]);
    bool on_gpu = job->spec->kernel->target == JIT_CUDA;
    snprintf(job->file, sizeof job->file, "%.63s-%.8s-%s.%s", job->spec->kernel->name,
             on_gpu ? job->device->isa : "cpu", hex, on_gpu ? "cubin" : "so");
}

static flashinfer_status begin(const struct jit_spec *spec, const struct device *device, const char *march,
                               const char *toolchain, struct jit_job *job)
{
    *job = (struct jit_job){.spec = spec, .device = device};
    flashinfer_status status = jit_flatten(spec, &job->source);
    if (!status) {
        add_options(spec, device, march, &job->options);
        status = text_check(&job->options);
    }
    if (status)
        jit_job_end(job);
    else
        hash_job(job, toolchain);
    return status;
}

flashinfer_status jit_job_begin(const struct jit_spec *spec, const struct device *device, struct jit_job *job)
{
    char toolchain[256];
    TRY(jit_toolchain_identity(spec->kernel->target, toolchain, sizeof toolchain));
    return begin(spec, device, "-march=native", toolchain, job);
}

flashinfer_status jit_job_begin_packed(const struct jit_spec *spec, const struct jit_level *level, struct jit_job *job)
{
    return begin(spec, &level->device, level->march, "pack", job);
}

void jit_job_end(struct jit_job *job)
{
    text_free(&job->source);
    text_free(&job->options);
}
