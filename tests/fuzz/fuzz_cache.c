/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the disk cache: any bytes, or a right file cut, lengthened and changed. The file that was written is read back as it
 * is; no other is ever a hit. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "jit/internal.h"
#include "tests/fuzz/fuzz.h"

enum { PAYLOAD = 300, MAX_FILE = 4096 };

static char folder[] = "/tmp/flashinfer-fuzz-XXXXXX", path[256];
static struct jit_spec spec;
static struct jit_job job[2]; /* the second lends its file to the first */
static uint8_t right[2][MAX_FILE];
static size_t right_size[2];
static char payload[PAYLOAD];

static void remove_folder(void)
{
    unlink(path);
    rmdir(folder);
}

static void write_file(const uint8_t *bytes, size_t size)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_CHECK(file >= 0 && write(file, bytes, size) == (ssize_t)size && !close(file), "%s cannot be written", path);
}

static void make_right(int i)
{
    struct text binary = {.data = payload, .size = PAYLOAD};
    char name[256];
    for (int byte = 0; byte < PAYLOAD; byte++)
        payload[byte] = (char)(7 * byte + i);
    job[i].spec = &spec;
    memset(job[i].key, 17 + i, sizeof job[i].key);
    snprintf(job[i].file, sizeof job[i].file, "kernel-%d.so", i);
    FUZZ_CHECK(jit_cache_write(&job[i], &binary), "%s", flashinfer_last_error());
    jit_cache_file(&job[i], name, sizeof name);
    int file = open(name, O_RDONLY);
    right_size[i] = (size_t)read(file, right[i], MAX_FILE);
    FUZZ_CHECK(right_size[i] > PAYLOAD && right_size[i] < MAX_FILE / 2, "%zu bytes", right_size[i]);
    close(file);
    unlink(name);
    memcpy(path, name, sizeof path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FUZZ_CHECK(mkdtemp(folder), "%s cannot be made", folder);
    setenv("FLASHINFER_CACHE_DIR", folder, 1);
    make_right(1);
    make_right(0);
    atexit(remove_folder);
    return 0;
}

/* What the input makes of a right file. */
static size_t change(struct fuzz_input *in, uint8_t *bytes)
{
    int which = fuzz_byte(in) % 8 == 0;
    size_t size = right_size[which];
    memcpy(bytes, right[which], size);
    while (in->at < in->end) {
        int how = fuzz_below(in, 6);
        size_t at = fuzz_bytes(in, 2) % (size + 1), count = fuzz_byte(in);
        if (how == 0) {
            size = at;
        } else if (how == 1 && size + count <= MAX_FILE) {
            memset(bytes + size, fuzz_byte(in), count);
            size += count;
        } else if (how == 2 && at < size) {
            bytes[at] = (uint8_t)(bytes[at] ^ count);
        } else if (how == 3 && at < size) {
            size -= count < size - at ? count : size - at;
            memmove(bytes + at, bytes + at + count, size - at);
        } else if (how == 4 && at + 8 <= size) {
            uint64_t word = fuzz_bytes(in, 8);
            memcpy(bytes + at, &word, sizeof word);
        } else if (how == 5 && at <= right_size[1] && at <= size) {
            size_t rest = right_size[1] - at; /* the other's end */
            memcpy(bytes + at, right[1] + at, rest);
            size = at + rest;
        }
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[2 * MAX_FILE];
    struct fuzz_input in = {data, data + size};
    struct text found = {0};
    bool raw = fuzz_byte(&in) % 4 == 0;
    size_t file_size = raw ? (size_t)(in.end - in.at) : change(&in, bytes);
    const uint8_t *file = raw ? in.at : bytes;
    write_file(file, file_size);
    bool same = file_size == right_size[0] && !memcmp(file, right[0], file_size), hit = jit_cache_read(&job[0], &found);
    FUZZ_CHECK(hit == same, "%s, and it %s the file that was written", hit ? "a hit" : "no hit", same ? "is" : "is not");
    FUZZ_CHECK(!hit || (found.size == PAYLOAD && !memcmp(found.data, payload, PAYLOAD)), "another content");
    text_free(&found);
    return 0;
}
