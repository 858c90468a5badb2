/* SPDX-License-Identifier: Apache-2.0 */
/* Many processes of many threads on a cold cache, and processes that end, in every way, in the middle of a compilation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/clock.h"
#include "core/file.h"
#include "jit/internal.h"
#include "tests/torture/torture.h"

#include <cmocka.h> /* last: it defines a macro "fail" */

enum { PROCESSES = 8, THREADS = 16, KEYS = 3 };

static atomic_int *ready; /* processes of the race that have come to its start; shared by them */

static void *race_thread(void *argument)
{
    intptr_t first = (intptr_t)argument, right = 0;
    for (int i = 0; i < KEYS; i++) {
        right += multiply(multiply_spec(1 + (int)(first + i) % KEYS));
        CHECK(right == i + 1);
    }
    return (void *)right;
}

static void race_process(void)
{
    pthread_t thread[THREADS];
    void *right;
    atomic_fetch_add(ready, 1);
    while (atomic_load(ready) < PROCESSES)
        sched_yield();
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&thread[i], NULL, race_thread, (void *)i));
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_join(thread[i], &right) && (intptr_t)right == KEYS);
    CHECK(compiled() + loaded() == KEYS);
}

static void race_process_fake(void)
{
    torture_use_compiler();
    race_process();
}

static void race(void (*process)(void))
{
    int status, failures = 0;
    torture_empty("cache");
    atomic_store(ready, 0);
    for (int i = 0; i < PROCESSES; i++)
        assert_true(torture_start(process) > 0);
    for (int i = 0; i < PROCESSES; i++)
        failures += wait(&status) < 0 || status != 0;
    assert_int_equal(failures, 0);
    assert_int_equal(torture_files("cache"), KEYS);
    assert_int_equal(torture_files("tmp"), 0);
}

/* What the compiler noted: how often it ran; fails if it ran twice for one process and key. */
static int compilations(void)
{
    char path[128];
    struct text notes = {0};
    int count = 0;
    torture_path(path, sizeof path, "compiled");
    assert_true(file_read(path, &notes));
    for (char *line = notes.data, *end; (end = strchr(line, '\n')); line = end + 1, count++) {
        char note[64];
        snprintf(note, sizeof note, "\n%.*s\n", (int)(end - line), line);
        assert_null(strstr(end, note));
    }
    text_free(&notes);
    unlink(path);
    return count;
}

static void test_race(void **state)
{
    (void)state;
    int rounds = torture_rounds(100), runs = 0, most = 0;
    torture_make_compiler(KEYS, 0.002);
    for (int i = 0; i < rounds; i++) {
        race(race_process_fake);
        int n = compilations();
        runs += n;
        most = n > most ? n : most;
    }
    printf("%d races of %d processes and %d threads for %d keys: %d compilations, at most %d in a race\n", rounds, PROCESSES,
           THREADS, KEYS, runs, most);
    assert_true(runs >= KEYS * rounds);
    rounds = torture_rounds(3);
    for (int i = 0; i < rounds; i++)
        race(race_process);
}

/* Looks, without waiting, until the kernel is there, and runs it. */
static void *look_up(void *unused)
{
    const struct jit_module *module;
    const struct jit_spec spec = multiply_spec(1);
    const struct device *device = cpu_device();
    int32_t in = 5, out = 0;
    const struct {
        const int32_t *in;
        int32_t *out;
    } args = {&in, &out};
    while (!(module = jit_find(&spec, device)))
        sched_yield();
    module->code.entry(&args, 0, 1);
    CHECK(out == 5);
    return unused;
}

static void looks_up(void)
{
    pthread_t thread[4];
    torture_use_compiler();
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&thread[i], NULL, look_up, NULL));
    CHECK(multiply(multiply_spec(1)));
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_join(thread[i], NULL));
}

static void test_look_up(void **state)
{
    (void)state;
    int status = -1;
    torture_make_compiler(1, 0);
    for (int i = torture_rounds(10); i > 0; i--) {
        assert_true(waitpid(torture_start(looks_up), &status, 0) > 0);
        assert_int_equal(status, 0);
    }
}

/* ---- processes that end while they compile ---- */

static int factor; /* of the kernel of a round */

static void compiles(void)
{
    CHECK(multiply(multiply_spec(factor)));
}

static void compiles_fake(void)
{
    torture_use_compiler();
    compiles();
}

static void *compile_thread(void *unused)
{
    (void)unused;
    compiles();
    return NULL;
}

static void exits(void)
{
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, compile_thread, NULL));
    usleep((useconds_t)(rand() % 60000));
    exit(7);
}

static void exits_fake(void)
{
    pthread_t thread;
    torture_use_compiler();
    CHECK(!pthread_create(&thread, NULL, compile_thread, NULL));
    usleep(100000);
    exit(7);
}

static void interrupted(int signal)
{
    (void)signal;
}

static void handles_signals(void)
{
    setpgid(0, 0);
    signal(SIGINT, interrupted);
    compiles_fake();
    CHECK(compiled() == 1);
}

static void signals_its_group(void)
{
    setpgid(0, 0);
    compiles_fake();
}

/* The next process finds nothing or all. */
static void uses_or_repairs(void)
{
    compiles();
    CHECK(compiled() + loaded() == 1);
    if (loaded())
        _exit(2);
}

static int end_by(int signal_number, void (*run)(void), int microseconds)
{
    pid_t child = torture_start(run);
    int status = -1;
    assert_true(child > 0);
    if (microseconds > 0)
        usleep((useconds_t)microseconds);
    if (signal_number)
        kill(child, signal_number);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* What a process that is killed leaves in TMPDIR, the next one to compile removes. */
static void end_at_random(const char *what, const int *signals, int kinds, int rounds)
{
    int whole = 0, left = 0;
    double begin = clock_seconds();
    factor = 1000;
    assert_int_equal(end_by(0, compiles, 0), 0);
    int longest = (int)(1e6 * (clock_seconds() - begin)) + 1;
    for (int i = 0; i < rounds; i++) {
        int signal_number = signals[i % kinds];
        factor = 1001 + i;
        int status = end_by(signal_number, signal_number ? compiles : exits, signal_number ? rand() % longest : 0);
        if (signal_number)
            assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == signal_number));
        else
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
        assert_int_equal(torture_orphans_left(10), 0);
        left++;
        assert_in_range(torture_files("tmp"), 0, left);
        status = end_by(0, uses_or_repairs, 0);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2));
        if (WEXITSTATUS(status) == 0)
            left = 0;
        else
            whole++;
        assert_in_range(torture_files("tmp"), 0, left);
        assert_int_equal(torture_files("cache"), 2 + i);
    }
    printf("%d processes ended by %s while they compiled, which takes %d ms: %d had written the file, the next one compiled the "
           "others\n",
           rounds, what, longest / 1000, whole);
}

static void test_kill(void **state)
{
    (void)state;
    end_at_random("SIGKILL", (const int[]){SIGKILL}, 1, torture_rounds(100));
}

static void test_signals(void **state)
{
    (void)state;
    end_at_random("SIGINT and SIGTERM", (const int[]){SIGINT, SIGTERM}, 2, torture_rounds(30));
}

static void test_exit(void **state)
{
    (void)state;
    end_at_random("exit", (const int[]){0}, 1, torture_rounds(30));
}

/* A compiler that would run for a minute ends with the process that wanted it. */
static void test_no_orphans(void **state)
{
    (void)state;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0)
        skip();
    close(terminal);
    const int signals[] = {SIGKILL, SIGINT, SIGTERM, SIGHUP};
    torture_make_compiler(1, 60);
    factor = 1;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(end_by(signals[i], compiles_fake, 100000), signals[i]);
        assert_int_equal(torture_orphans_left(5), 0);
    }
    int status = end_by(0, exits_fake, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    assert_int_equal(torture_orphans_left(5), 0);
    assert_int_equal(torture_files("cache"), 0);
    assert_int_equal(torture_files("tmp"), 1);
}

/* ^C reaches every process of the terminal's group. Who lives on, has a kernel; who does not, leaves nothing. */
static void test_interrupt_from_terminal(void **state)
{
    (void)state;
    torture_make_compiler(1, 0.4);
    factor = 1;
    for (int handled = 0; handled < 2; handled++) {
        pid_t child = torture_start(handled ? handles_signals : signals_its_group);
        int status = -1;
        usleep(150000);
        assert_int_equal(kill(-child, SIGINT), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, handled ? 0 : SIGINT);
        assert_int_equal(torture_orphans_left(5), 0);
        assert_int_equal(torture_files("cache"), handled);
        assert_int_equal(torture_files("tmp"), !handled);
    }
}

/* The child has no thread that compiles: it compiles itself. */
static void forks_while_it_compiles(void)
{
    pthread_t thread;
    int status = -1;
    torture_use_compiler();
    CHECK(!pthread_create(&thread, NULL, compile_thread, NULL));
    usleep(150000);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        compiles();
        CHECK(compiled() == 1);
        _exit(0);
    }
    CHECK(!pthread_join(thread, NULL) && compiled() == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void test_fork(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the sanitizer refuses threads in the child of a threaded process */
#endif
    torture_make_compiler(1, 0.5);
    factor = 1;
    assert_int_equal(end_by(0, forks_while_it_compiles, 0), 0);
    assert_int_equal(torture_files("cache"), 1);
    assert_int_equal(torture_files("tmp"), 0);
}

/* ---- temporary files ---- */

static int make(const char *name, int is_folder)
{
    char path[256];
    torture_path(path, sizeof path, name);
    assert_true(!is_folder || !mkdir(path, 0700));
    int file = open(path, is_folder ? O_RDONLY : O_WRONLY | O_CREAT, 0600);
    assert_true(file >= 0);
    return file;
}

/* The next one to make a temporary file removes what is not locked, and nothing else. */
static void test_abandoned(void **state)
{
    (void)state;
    char path[256], temporary[256];
    torture_path(path, sizeof path, "cache");
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 50; i++) {
        snprintf(temporary, sizeof temporary, "cache/flashinfer-temporary-%06d", i);
        close(make(temporary, i % 2));
    }
    close(make("cache/flashinfer-temporary-000001/cc.o", 0));
    const char *const others[] = {"cache/flashinfer-temporary-12345", "cache/flashinfer-temporary-1234567", "cache/m-cpu-0.so"};
    for (int i = 0; i < 3; i++)
        close(make(others[i], 0));
    int locked[] = {make("cache/flashinfer-temporary-locked", 0), make("cache/flashinfer-temporary-folder", 1)};
    assert_int_equal(flock(locked[0], LOCK_EX) || flock(locked[1], LOCK_EX), 0);
    for (int i = 0; i < 3; i++) {
        int file = file_temporary(path, temporary, sizeof temporary);
        assert_true(file >= 0);
        assert_int_equal(torture_files("cache"), 6);
        int second = folder_temporary(path, temporary, sizeof temporary);
        assert_true(second >= 0);
        assert_int_equal(torture_files("cache"), 7);
        folder_remove(second, temporary);
        assert_int_equal(torture_files("cache"), 6);
        close(file);
    }
    close(locked[0]);
    close(locked[1]);
    close(file_temporary(path, temporary, sizeof temporary));
    assert_int_equal(torture_files("cache"), 4);
}

static int setup(void **state)
{
    char path[128];
    int status = setup_folder(state);
    torture_path(path, sizeof path, "tmp");
    return status || mkdir(path, 0700);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown_folder)
    const struct CMUnitTest tests[] = {CASE(test_race),
                                       CASE(test_look_up),
                                       CASE(test_kill),
                                       CASE(test_signals),
                                       CASE(test_exit),
                                       CASE(test_no_orphans),
                                       CASE(test_interrupt_from_terminal),
                                       CASE(test_fork),
                                       CASE(test_abandoned)};
    ready = mmap(NULL, sizeof *ready, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    srand(4);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
