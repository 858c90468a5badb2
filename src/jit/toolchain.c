/* SPDX-License-Identifier: Apache-2.0 */
/* Compilers: where they are, what tells one build from another, and how one is run. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/nvrtc.h"
#include "core/environment.h"
#include "core/file.h"
#include "jit/internal.h"

extern char **environ;

static char *cc; /* resolved path of the C compiler, NULL if there is none */
static pthread_once_t cc_once = PTHREAD_ONCE_INIT;

static char *executable(const char *path)
{
    struct stat status;
    return !stat(path, &status) && S_ISREG(status.st_mode) && !access(path, X_OK) ? strdup(path) : NULL;
}

/* As a shell finds a command: a name with a slash is a path, another is looked for in the folders of PATH. */
static char *find_program(const char *name)
{
    if (strchr(name, '/'))
        return executable(name);
    char *found = NULL;
    for (const char *folder = environment()->path; *name && *folder && !found;) {
        int length = (int)strcspn(folder, ":");
        char path[4096];
        snprintf(path, sizeof path, "%.*s/%s", length, folder, name);
        if (length > 0)
            found = executable(path);
        folder += length + (folder[length] == ':');
    }
    return found;
}

static void find_cc(void)
{
    const struct environment *env = environment();
    if (*env->cc) {
        cc = find_program(env->cc);
        return;
    }
    const char *const names[] = {env->build_cc, "cc", "gcc", "clang"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !cc; i++)
        cc = find_program(names[i]);
}

flashinfer_status jit_find_cc(const char **path)
{
    pthread_once(&cc_once, find_cc);
    *path = cc;
    if (cc)
        return FLASHINFER_OK;
    const struct environment *env = environment();
    if (*env->cc)
        return fail(FLASHINFER_NO_COMPILER, "no C compiler, which compiles CPU kernels: FLASHINFER_CC is %s, which is no "
                    "program", env->cc);
    return fail(FLASHINFER_NO_COMPILER, "no C compiler, which compiles CPU kernels: tried %s%scc, gcc and clang in PATH=%s; "
                "install gcc or clang, or set FLASHINFER_CC to one", env->build_cc, *env->build_cc ? ", " : "", env->path);
}

/* The build id that linkers write into an ELF file, in hex; false if it has none. */
static bool read_build_id(int file, char *buffer, size_t size)
{
    ElfW(Ehdr) header;
    if (pread(file, &header, sizeof header, 0) != sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG))
        return false;
    for (int i = 0; i < header.e_phnum; i++) {
        ElfW(Phdr) segment;
        off_t at = (off_t)header.e_phoff + (off_t)i * header.e_phentsize;
        if (pread(file, &segment, sizeof segment, at) != sizeof segment || segment.p_type != PT_NOTE)
            continue;
        ElfW(Nhdr) note;
        off_t end = (off_t)(segment.p_offset + segment.p_filesz);
        for (at = (off_t)segment.p_offset; pread(file, &note, sizeof note, at) == sizeof note && at < end;) {
            off_t contents = at + (off_t)sizeof note + (off_t)((note.n_namesz + 3) & ~3u);
            uint8_t id[64];
            if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz <= sizeof id && 2 * note.n_descsz < size) {
                if (pread(file, id, note.n_descsz, contents) != (ssize_t)note.n_descsz)
                    return false;
                for (unsigned b = 0; b < note.n_descsz; b++)
                    snprintf(buffer + 2 * b, 3, "%02x", id[b]);
                return note.n_descsz > 0;
            }
            at = contents + (off_t)((note.n_descsz + 3) & ~3u);
        }
    }
    return false;
}

/* A build id means the same wherever the file lies. A script (ccache, a wrapper) has only its place, size and
 * time. */
flashinfer_status jit_toolchain_identity(enum jit_target target, char *buffer, size_t size)
{
    const char *path;
    TRY(target == JIT_CUDA ? nvrtc_path(&path) : jit_find_cc(&path));
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status)) {
        int error = errno;
        if (file >= 0)
            close(file);
        return fail(FLASHINFER_NO_COMPILER, "compiler %s cannot be read: %s", path, strerror(error));
    }
    if (!read_build_id(file, buffer, size))
        snprintf(buffer, size, "%.150s %lld %lld.%09ld", path, (long long)status.st_size,
                 (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    close(file);
    return FLASHINFER_OK;
}

/* A terminal for the program to run in: when this process dies, however it dies, the kernel hangs up on the
 * program and on all that it started. -1 if there is none to be had; such a program runs to its end. */
static int open_terminal(char *path, size_t size)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal >= 0 && (grantpt(terminal) || unlockpt(terminal) || ptsname_r(terminal, path, size))) {
        close(terminal);
        terminal = -1;
    }
    return terminal;
}

static int add_files(posix_spawn_file_actions_t *actions, int input, int output, int terminal, const char *terminal_path)
{
    int error = 0;
    if (terminal >= 0) /* opening it is what makes it the new session's own */
        error = posix_spawn_file_actions_addopen(actions, terminal, terminal_path, O_RDWR, 0);
    if (terminal >= 0 && !error)
        error = posix_spawn_file_actions_addclose(actions, terminal);
    const int from[] = {input, output, output};
    for (int to = 0; to < 3 && !error; to++)
        error = posix_spawn_file_actions_adddup2(actions, from[to], to);
    return error;
}

static int spawn(char *const *argv, char *const *variables, int input, int output, int terminal,
                 const char *terminal_path, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGCHLD);
    sigaddset(&defaults, SIGHUP);
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    if (!(error = posix_spawnattr_init(&attributes))) {
        error = add_files(&actions, input, output, terminal, terminal_path);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &defaults);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
                                                  | (terminal >= 0 ? POSIX_SPAWN_SETSID : 0));
        if (!error)
            error = posix_spawn(pid, argv[0], &actions, &attributes, argv, variables);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int wait_for(pid_t pid, struct text *output)
{
    int status = 0;
    pid_t waited;
    while ((waited = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    /* A program that ignores SIGCHLD, or waits for all children, leaves us no status. The output must tell. */
    if (waited < 0)
        return 0;
    if (WIFSIGNALED(status))
        text_print(output, "(ended by signal %d)\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* This process's variables, but for TMPDIR. */
static char **variables_with(char *temporary_dir)
{
    int n = 0, kept = 0;
    while (environ && environ[n]) /* none after clearenv() */
        n++;
    char **variables = calloc((size_t)n + 2, sizeof *variables);
    for (int i = 0; variables && i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7))
            variables[kept++] = environ[i];
    if (variables)
        variables[kept] = temporary_dir;
    return variables;
}

/* Input and output are files in memory: no pipe can fill up and nothing is left behind. */
flashinfer_status jit_run_program(char *const *argv, const char *temporary_dir, const struct text *input, struct text *output,
                                  int *exit_code)
{
    char terminal_path[64];
    struct text variable = {0};
    text_print(&variable, "TMPDIR=%s", temporary_dir);
    char **variables = variable.data ? variables_with(variable.data) : NULL;
    int terminal = open_terminal(terminal_path, sizeof terminal_path);
    int in = memfd_create("flashinfer-input", MFD_CLOEXEC), out = memfd_create("flashinfer-output", MFD_CLOEXEC);
    pid_t pid = 0;
    bool right = variables && in >= 0 && out >= 0 && file_write(in, input->data, input->size) && lseek(in, 0, SEEK_SET) == 0;
    int error = right ? spawn(argv, variables, in, out, terminal, terminal_path, &pid) : errno;
    if (right && error && terminal >= 0)
        error = spawn(argv, variables, in, out, -1, "", &pid);
    if (!error) {
        *exit_code = wait_for(pid, output);
        error = file_read_open(out, output) ? 0 : errno;
    }
    const int opened[] = {terminal, in, out};
    for (size_t i = 0; i < sizeof opened / sizeof *opened; i++)
        if (opened[i] >= 0)
            close(opened[i]);
    free(variables);
    text_free(&variable);
    return error ? fail(FLASHINFER_NO_COMPILER, "%s cannot be run: %s", argv[0], strerror(error)) : text_check(output);
}

const char *jit_toolchain(enum jit_target target, char *buffer, size_t size)
{
    const char *path;
    const struct nvrtc *nvrtc;
    if (target == JIT_CUDA) {
        int major = 0, minor = 0;
        if (nvrtc_get(&nvrtc) || nvrtc_path(&path) || nvrtc->version(&major, &minor))
            snprintf(buffer, size, "%s", flashinfer_last_error());
        else
            snprintf(buffer, size, "NVRTC %d.%d (%s)", major, minor, path);
        return buffer;
    }
    struct text nothing = {0}, output = {0};
    int exit_code = 0;
    if (jit_find_cc(&path) || jit_run_program((char *[]){cc, (char[]){"--version"}, NULL}, environment()->temporary_dir,
                                            &nothing, &output, &exit_code))
        snprintf(buffer, size, "%s", flashinfer_last_error());
    else
        snprintf(buffer, size, "%.*s (%s)", (int)strcspn(output.data, "\n"), output.data, path);
    text_free(&output);
    return buffer;
}
