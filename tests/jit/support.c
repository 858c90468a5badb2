/* SPDX-License-Identifier: Apache-2.0 */
/* Children, folders and one small kernel for the tests of just-in-time compilation. */
#include "support.h"

#include <dirent.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/dtype.h"

char folder[64];

int setup_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/flashinfer-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int flag, struct FTW *at)
{
    (void)status;
    (void)flag;
    (void)at;
    return remove(path);
}

int teardown_folder(void **state)
{
    (void)state;
    chmod(folder, 0700);
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int in_child(void (*run)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setenv("FLASHINFER_CACHE_DIR", folder, 1);
        run();
        fflush(NULL);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

int count_files(const char *text, char *path, size_t size)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (*entry->d_name == '.' || !strstr(entry->d_name, text))
            continue;
        count++;
        if (path)
            snprintf(path, size, "%s/%s", folder, entry->d_name);
    }
    if (dir)
        closedir(dir);
    return count;
}

struct jit_spec multiply_spec(int factor)
{
    static const struct jit_kernel kernel = {"multiply", JIT_CPU, {"FACTOR", "T:dtype", NULL}};
    static const struct jit_text text = {
        "#include <stdint.h>\n"
        "#include <string.h>\n"
        "typedef int32_t i32;\n"
        "struct args { const T *in; T *out; };\n"
        "void multiply(const struct args *a, int part, int parts)\n"
        "{\n"
        "    (void)parts;\n"
        "    a->out[part] = FACTOR * a->in[part];\n"
        "}\n",
        true};
    return (struct jit_spec){.kernel = &kernel, .user = &text, .constant = {factor, DTYPE_I32}};
}

int multiply(struct jit_spec spec)
{
    enum { PARTS = 9 };
    int32_t in[PARTS], out[PARTS] = {0};
    struct {
        const int32_t *in;
        int32_t *out;
    } args = {in, out};
    struct jit_queue queue = {.device = cpu_device()};
    struct jit_launch launch = {.grid = {PARTS}, .args = &args, .args_size = sizeof args};
    for (int i = 0; i < PARTS; i++)
        in[i] = i + 1;
    if (jit_launch(&spec, &queue, &launch))
        return 0;
    for (int i = 0; i < PARTS; i++)
        if (out[i] != spec.constant[0] * in[i])
            return 0;
    return 1;
}

static struct flashinfer_jit_statistics statistics(void)
{
    struct flashinfer_jit_statistics s = {.size = sizeof s};
    flashinfer_jit_statistics(&s);
    return s;
}

uint64_t compiled(void) { return statistics().compiled; }

uint64_t loaded(void) { return statistics().loaded; }

const struct device *cpu_device(void)
{
    const struct device *device = NULL;
    CHECK(device_get((DLDevice){kDLCPU, 0}, &device) == FLASHINFER_OK);
    return device;
}
