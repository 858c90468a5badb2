/* SPDX-License-Identifier: Apache-2.0 */
/* What processes do to a library: they fork, have many threads, load and unload it again and again, load it twice, and exit in
 * the middle of its work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>

#include "backend/nvrtc.h"
#include "core/dtype.h"
#include "flashinfer/flashinfer.h"
#include "jit/jit.h"
#include "tests/torture/torture.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

/* One copy of the library. */
struct copy {
    flashinfer_status (*rmsnorm)(const struct flashinfer_rmsnorm *, const flashinfer_exec *);
    flashinfer_status (*mm)(const struct flashinfer_mm *, const flashinfer_exec *);
    flashinfer_status (*kernel_create)(const struct flashinfer_kernel_source *, flashinfer_kernel **);
    flashinfer_status (*kernel_launch)(const flashinfer_kernel *, const struct flashinfer_kernel_launch *,
                                       const flashinfer_exec *);
    void (*kernel_destroy)(flashinfer_kernel *);
    flashinfer_status (*statistics)(struct flashinfer_jit_statistics *);
    const char *(*last_error)(void);
};

static const struct copy linked = {flashinfer_rmsnorm,        flashinfer_mm,
                                   flashinfer_kernel_create,  flashinfer_kernel_launch,
                                   flashinfer_kernel_destroy, flashinfer_jit_statistics,
                                   flashinfer_last_error};

#define MUST(condition)                                                                                                       \
    do {                                                                                                                      \
        if (!(condition)) {                                                                                                   \
            fprintf(stderr, "%s:%d: not true: %s\n    last error: %s\n", __FILE__, __LINE__, #condition, copy->last_error()); \
            _exit(1);                                                                                                         \
        }                                                                                                                     \
    } while (0)

/* ---- calls whose results are known ---- */

enum { SIZE = 96 };

static DLTensor matrix(void *data, int64_t *shape, enum dtype dtype)
{
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = 2, .dtype = dtype_dlpack(dtype), .shape = shape};
}

enum { ONE = 0x3f80, TWO = 0x4000, HALF = 0x3f00 }; /* as bf16 */

static void use_rmsnorm(const struct copy *copy, int seed, int threads)
{
    uint16_t in[SIZE * SIZE], out[SIZE * SIZE], weight[SIZE];
    int64_t shape[2] = {1 + seed % SIZE, SIZE};
    for (int i = 0; i < SIZE * SIZE; i++)
        in[i] = TWO;
    for (int i = 0; i < SIZE; i++)
        weight[i] = (uint16_t)(ONE + (seed + i) % 100);
    DLTensor input = matrix(in, shape, DTYPE_BF16), output = matrix(out, shape, DTYPE_BF16),
             w = matrix(weight, shape + 1, DTYPE_BF16);
    w.ndim = 1;
    flashinfer_exec exec = {.size = sizeof exec, .threads = threads};
    struct flashinfer_rmsnorm args = {.size = sizeof args, .out = &output, .input = &input, .weight = &w};
    MUST(copy->rmsnorm(&args, &exec) == FLASHINFER_OK);
    for (int64_t i = 0; i < shape[0] * SIZE; i++)
        MUST(out[i] == weight[i % SIZE]);
}

static flashinfer_status try_mm(const struct copy *copy, const char *kernel, int threads)
{
    uint16_t a[SIZE * SIZE], b[SIZE * SIZE];
    float out[SIZE * SIZE];
    int64_t shape[2] = {SIZE, SIZE};
    for (int i = 0; i < SIZE * SIZE; i++)
        a[i] = ONE, b[i] = HALF;
    DLTensor at = matrix(a, shape, DTYPE_BF16), bt = matrix(b, shape, DTYPE_BF16), o = matrix(out, shape, DTYPE_F32);
    flashinfer_exec exec = {.size = sizeof exec, .threads = threads, .kernel = kernel};
    struct flashinfer_mm args = {.size = sizeof args, .out = &o, .a = &at, .b = &bt};
    flashinfer_status status = copy->mm(&args, &exec);
    for (int i = 0; i < SIZE * SIZE && !status; i++)
        MUST(out[i] == SIZE / 2);
    return status;
}

static void use_mm(const struct copy *copy, int threads)
{
    MUST(try_mm(copy, NULL, threads) == FLASHINFER_OK);
}

static flashinfer_kernel *new_kernel(const struct copy *copy, const char *text)
{
    flashinfer_kernel *kernel;
    const struct flashinfer_kernel_source source = {.size = sizeof source, .name = "add", .cpu = text};
    MUST(copy->kernel_create(&source, &kernel) == FLASHINFER_OK);
    return kernel;
}

static flashinfer_status launch(const struct copy *copy, const flashinfer_kernel *kernel, float *data)
{
    int64_t shape[2] = {1, 1};
    DLTensor tensor = matrix(data, shape, DTYPE_F32);
    const DLTensor *tensors[] = {&tensor};
    const struct flashinfer_kernel_launch l = {.size = sizeof l, .tensors = tensors, .num_tensors = 1, .grid = {1}};
    return copy->kernel_launch(kernel, &l, NULL);
}

/* A kernel of the user, with a text of its own for each number. */
static void use_kernel(const struct copy *copy, int number)
{
    char text[256];
    float data = 1;
    snprintf(text, sizeof text,
             "#include \"arguments.h\"\n"
             "struct args { struct tensor out; };\n"
             "void add(const struct args *a, int part, int parts) { *(float *)a->out.data += %d; }\n",
             number);
    flashinfer_kernel *kernel = new_kernel(copy, text);
    MUST(launch(copy, kernel, &data) == FLASHINFER_OK && data == (float)(1 + number));
    copy->kernel_destroy(kernel);
}

static void use(const struct copy *copy, int seed, int threads)
{
    use_rmsnorm(copy, seed, threads);
    use_mm(copy, threads);
    use_kernel(copy, 1);
}

static int run(void (*test)(void))
{
    int status = -1;
    return waitpid(torture_start(test), &status, 0) < 0 ? -1 : status;
}

/* ---- forks ---- */

static void forks_after_use(void)
{
    const struct copy *copy = &linked;
    int status = -1;
    alarm(60);
    use(copy, 1, 4);
    for (int depth = 0; depth < 3; depth++) {
        fflush(NULL);
        pid_t child = fork();
        if (child > 0) {
            use(copy, 2, 4);
            MUST(waitpid(child, &status, 0) == child && status == 0);
            _exit(0);
        }
        alarm(60);
        use(copy, 3 + depth, 4);
        use_kernel(copy, 100 + depth);
    }
}

/* The threads of oneDNN do not live on in the child; it must not wait for them. */
static void forks_after_onednn(void)
{
    const struct copy *copy = &linked;
    int status = -1;
    if (try_mm(copy, "mm_onednn", 2)) {
        printf("skipped: %s\n", flashinfer_last_error());
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        MUST(try_mm(copy, "mm_onednn", 2) == FLASHINFER_UNSUPPORTED);
        MUST(strstr(flashinfer_last_error(), "fork"));
        use_mm(copy, 4);
        _exit(0);
    }
    MUST(waitpid(child, &status, 0) == child && status == 0);
    MUST(try_mm(copy, "mm_onednn", 2) == FLASHINFER_OK);
}

static atomic_bool stop;

static void *hammer(void *argument)
{
    int number = (int)(intptr_t)argument;
    char text[100];
    for (int i = 0; !atomic_load(&stop); i++) {
        use(&linked, i, 2);
        snprintf(text, sizeof text, "text %d of thread %d", i % 2000, number);
        linked.kernel_destroy(new_kernel(&linked, text));
    }
    return NULL;
}

static void forks_in_the_midst(void)
{
    enum { THREADS = 4 };
    const struct copy *copy = &linked;
    pthread_t thread[THREADS];
    int status = -1;
    use(copy, 1, 4);
    for (intptr_t i = 0; i < THREADS; i++)
        MUST(!pthread_create(&thread[i], NULL, hammer, (void *)i));
    for (int i = torture_rounds(100); i > 0; i--) {
        usleep((useconds_t)(rand() % 3000));
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            use(copy, i, 4);
            linked.kernel_destroy(new_kernel(&linked, "a new text"));
            _exit(0);
        }
        MUST(waitpid(child, &status, 0) == child);
        if (status)
            fprintf(stderr, "a child ended with status %d\n", status);
        MUST(status == 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

static void test_forks(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the sanitizer refuses threads in the child of a threaded process */
#endif
    assert_int_equal(run(forks_after_use), 0);
    assert_int_equal(run(forks_after_onednn), 0);
    assert_int_equal(run(forks_in_the_midst), 0);
}

/* ---- threads ---- */

static void *call_often(void *argument)
{
    for (int i = 0; i < 50; i++)
        use(&linked, i + (int)(intptr_t)argument, i % 5);
    return NULL;
}

static void sixty_four_threads(void)
{
    enum { THREADS = 64 };
    const struct copy *copy = &linked;
    pthread_t thread[THREADS];
    struct flashinfer_jit_statistics statistics = {.size = sizeof statistics};
    for (intptr_t i = 0; i < THREADS; i++)
        MUST(!pthread_create(&thread[i], NULL, call_often, (void *)i));
    for (int i = 0; i < THREADS; i++)
        MUST(!pthread_join(thread[i], NULL));
    MUST(copy->statistics(&statistics) == FLASHINFER_OK && statistics.compiled <= 3);
    MUST((uint64_t)torture_files("cache") == statistics.compiled);
}

static void test_threads(void **state)
{
    (void)state;
    assert_int_equal(run(sixty_four_threads), 0);
}

/* ---- copies of the library ---- */

static void find_library(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    CHECK(length > 0);
    path[length] = 0;
    for (int i = 0; i < 3; i++) /* BUILD/tests/torture/test_processes */
        *strrchr(path, '/') = 0;
    strncat(path, "/libflashinfer.so", size - strlen(path) - 1);
}

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (!address)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(address);
    return address;
}

static struct copy copy_of(void *library)
{
    struct copy copy;
    void *const addresses[] = {symbol(library, "flashinfer_rmsnorm"),        symbol(library, "flashinfer_mm"),
                               symbol(library, "flashinfer_kernel_create"),  symbol(library, "flashinfer_kernel_launch"),
                               symbol(library, "flashinfer_kernel_destroy"), symbol(library, "flashinfer_jit_statistics"),
                               symbol(library, "flashinfer_last_error")};
    _Static_assert(sizeof copy == sizeof addresses, "a pointer for each function");
    memcpy(&copy, addresses, sizeof copy);
    return copy;
}

static void *open_library(const char *path, int flags)
{
    void *library = dlopen(path, flags);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    return library;
}

static int entries(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    while (dir && readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static long resident_kilobytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%*s %ld", &pages) == 1 && !fclose(file));
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* What the first time leaves (libraries that are not unloaded, threads of oneDNN), later times do not add to. */
static void loads_and_unloads(void)
{
    char path[4096];
    int rounds = torture_rounds(100), tasks = 0, files = 0;
    long memory = 0;
    find_library(path, sizeof path);
    for (int i = 0; i < rounds; i++) {
        void *library = open_library(path, RTLD_NOW | RTLD_LOCAL);
        struct copy copy = copy_of(library);
        use(&copy, i, 4);
        CHECK(!dlclose(library) && !dlopen(path, RTLD_NOW | RTLD_NOLOAD));
        if (i == 0) {
            tasks = entries("/proc/self/task");
            files = entries("/proc/self/fd");
            memory = resident_kilobytes();
        }
        CHECK(entries("/proc/self/task") == tasks && entries("/proc/self/fd") == files);
        pid_t child = fork(); /* no handler of an unloaded copy may run */
        if (child == 0)
            _exit(0);
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    memory = resident_kilobytes() - memory;
    printf("%d times loaded, used and unloaded: threads %d, files %d at the end as after the first; %ld KB of memory each\n",
           rounds, tasks - 2, files - 2, memory / rounds);
#ifndef __SANITIZE_ADDRESS__ /* keeps what was freed */
    CHECK(memory / rounds < 500);
#endif
}

static void test_reload(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* one of its threads is counted */
#endif
    assert_int_equal(run(loads_and_unloads), 0);
}

static const struct copy *failing_copy;

static void *fails(void *text)
{
    float data = 1;
    flashinfer_kernel *kernel = new_kernel(failing_copy, text);
    bool right = launch(failing_copy, kernel, &data) == FLASHINFER_COMPILE && strstr(failing_copy->last_error(), "add.c:1:");
    if (!right)
        fprintf(stderr, "last error: \"%s\"\n", failing_copy->last_error());
    return (void *)(intptr_t)right;
}

/* Two threads want what does not compile: one hears it from the compiler, the other from the first. */
static void fails_in_two_threads(const struct copy *copy)
{
    pthread_t thread[2];
    void *right;
    static char text[] = "no C\n";
    failing_copy = copy;
    for (int i = 0; i < 2; i++)
        MUST(!pthread_create(&thread[i], NULL, fails, text));
    for (int i = 0; i < 2; i++)
        MUST(!pthread_join(thread[i], &right) && right);
}

/* The symbols of the first copy are global: the second must not take them for its own. */
static void two_copies(void)
{
    char path[4096], command[4300], second[128];
    find_library(path, sizeof path);
    torture_path(second, sizeof second, "copy.so");
    snprintf(command, sizeof command, "cp '%s' %s", path, second);
    CHECK(system(command) == 0);
    void *libraries[] = {open_library(path, RTLD_NOW | RTLD_GLOBAL), open_library(second, RTLD_NOW | RTLD_LOCAL)};
    struct copy copies[] = {copy_of(libraries[0]), copy_of(libraries[1])};
    CHECK(copies[0].rmsnorm != copies[1].rmsnorm);
    for (int i = 0; i < 2; i++)
        use(&copies[i], 5 + i, 4);
    for (int i = 1; i >= 0; i--) {
        struct flashinfer_jit_statistics s = {.size = sizeof s};
        CHECK(copies[i].statistics(&s) == FLASHINFER_OK && (i ? s.loaded : s.compiled) >= 2 && !(i ? s.compiled : s.loaded));
    }
    fails_in_two_threads(&copies[1]);
    CHECK(!*copies[0].last_error());
    CHECK(!dlclose(libraries[0]));
    use(&copies[1], 7, 4);
}

static void other_namespace(void)
{
    char path[4096];
#ifdef __SANITIZE_ADDRESS__
    return; /* the sanitizer does not know namespaces */
#endif
    find_library(path, sizeof path);
    void *library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    struct copy copy = copy_of(library);
    use_rmsnorm(&copy, 3, 4);
    use_kernel(&copy, 1);
    use_rmsnorm(&linked, 4, 4);
}

static void test_copies(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the copies would share the sanitizer's own state */
#endif
    assert_int_equal(run(two_copies), 0);
    assert_int_equal(run(other_namespace), 0);
}

/* ---- exit while NVRTC, which lies in this process, compiles ---- */

static void *compile_cubins(void *unused)
{
    static const struct jit_kernel kernel = {"probe", JIT_CUDA, {"N", NULL}};
    const struct jit_text text = {"#include \"mma.cuh\"\nextern \"C\" __global__ void probe(float *x) { *x = N; }\n", true};
    struct device device;
    device_imagine(90, &device);
    for (int i = 0;; i++) {
        struct jit_spec spec = {.kernel = &kernel, .user = &text, .constant = {i}};
        char *log;
        double seconds;
        size_t bytes;
        CHECK(jit_compile_only(&spec, &device, &log, &seconds, &bytes) == FLASHINFER_OK);
        free(log);
        atomic_store(&stop, true);
    }
    return unused;
}

static void exits_while_nvrtc_compiles(void)
{
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&thread[i], NULL, compile_cubins, NULL));
    while (!atomic_load(&stop))
        usleep(1000);
    usleep((useconds_t)(rand() % 100000));
    exit(7);
}

static void test_exit(void **state)
{
    (void)state;
    const struct nvrtc *nvrtc;
    if (nvrtc_get(&nvrtc))
        skip();
    for (int i = torture_rounds(30); i > 0; i--) {
        rand();
        int status = run(exits_while_nvrtc_compiles);
        if (status != 7 << 8)
            printf("status %d\n", status);
        assert_int_equal(status, 7 << 8);
    }
}

/* A copy that is unloaded leaves what it holds for the life of the process. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_forks), CASE(test_threads), CASE(test_reload), CASE(test_copies),
                                       CASE(test_exit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
