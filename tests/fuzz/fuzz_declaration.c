/* SPDX-License-Identifier: Apache-2.0 */
/* Whole declarations: shapes with alternatives, leading axes, dtypes that follow others, defaults, conditions, rules, all from
 * the input. One that is wrong is refused in a sentence. Of one that compiles, shapes and rules give what a reader without memory
 * gets from the text. A line is one argument: its kind (I O B n N E D P), then fields with `;` between them: name, shape or
 * names, the ENUM that chooses, the argument whose dtype it has, a condition. `R` begins a rule, `d` the dimensions. */
#include <string.h>

#include "op/program_compile.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/grammar.h"

enum { MOST_ARGS = 12, MOST_RULES = 6, FIELDS = 5 };

static struct {
    struct op op;
    struct op_arg args[MOST_ARGS + 1];
    const char *rules[MOST_RULES + 1];
    int num_args, num_rules;
    char text[4096];
    size_t used;
} made;

static const char *keep(const char *text, size_t length)
{
    char *kept = made.text + made.used;
    if (made.used + length + 1 > sizeof made.text)
        return "";
    memcpy(kept, text, length);
    kept[length] = 0;
    made.used += length + 1;
    return kept;
}

static void add_argument(char kind, const char *const *field, uint8_t flags)
{
    static const char kinds[] = "IOBNnED";
    static const uint8_t kind_of[] = {OP_IN, OP_OUT, OP_INOUT, OP_NUMBER, OP_INT, OP_ENUM, OP_DTYPE};
    const char *found = kind ? strchr(kinds, kind) : NULL;
    if (!found || made.num_args == MOST_ARGS)
        return;
    struct op_arg *arg = &made.args[made.num_args];
    *arg = (struct op_arg){.name = field[0], .kind = kind_of[found - kinds], .flags = flags & 31, .bytes = 8};
    arg->offset = (uint16_t)(8 + 8 * made.num_args++);
    if (kind == 'E' || kind == 'D')
        arg->bytes = 4;
    if (kind == 'E')
        arg->names = field[1];
    else if (kind == 'n' && field[1][0])
        arg->value_of = field[1];
    else if (kind != 'D' && field[1][0])
        arg->shape = field[1];
    arg->by = field[2][0] ? field[2] : NULL;
    arg->dtype.like = field[3][0] ? field[3] : NULL;
    arg->dtype.set = arg->dtype.like || kind == 'N' || kind == 'n' ? 0 : F16 | F32;
    arg->required_if = field[4][0] ? field[4] : NULL;
}

static void read_declaration(struct fuzz_input *in)
{
    static _Atomic(const struct program *) compiled;
    memset(&made, 0, sizeof made);
    compiled = NULL;
    while (in->at < in->end) {
        size_t length;
        const char *line = fuzz_until(in, '\n', &length), *field[FIELDS];
        if (length == 0)
            break;
        struct fuzz_input fields = {(const uint8_t *)line + 1, (const uint8_t *)line + length};
        if (line[0] == 'R' && made.num_rules < MOST_RULES)
            made.rules[made.num_rules++] = keep(line + 1, length - 1);
        if (line[0] == 'd')
            made.op.dims = keep(line + 1, length - 1);
        uint8_t flags = fuzz_byte(&fields);
        for (int i = 0; i < FIELDS; i++) {
            size_t size;
            const char *text = fuzz_until(&fields, ';', &size);
            field[i] = keep(text, size);
        }
        add_argument(line[0], field, flags);
    }
    made.op.name = "fuzz";
    made.op.family = made.op.summary = "";
    made.op.args = made.args;
    made.op.args_bytes = 8 + 8 * (size_t)made.num_args;
    made.op.rules = made.rules;
    made.op.compiled = &compiled;
}

struct values {
    const struct program *program;
    const int64_t *dim;
};

static bool look_up(void *context, const char *name, int length, int64_t *value)
{
    const struct values *values = context;
    for (int i = 0; i < values->program->num_symbols; i++)
        if ((int)strlen(values->program->symbol[i].name) == length &&
            !memcmp(values->program->symbol[i].name, name, (size_t)length)) {
            *value = values->dim[i];
            return true;
        }
    return false;
}

static void check_shape(struct values *values, int arg)
{
    const struct op_arg *declared = &made.args[arg];
    int64_t shape[TENSOR_MAX_DIMS], leading[2] = {3, 5}, choice = 0;
    int ndim = 0, label_length = 0, left = 0, length, at = 0;
    const char *text = "", *axis, *label = NULL;
    bool found = program_shape(values->program, arg, values->dim, leading, 2, shape, &ndim), expected = declared->shape;
    if (expected && declared->by) {
        int by = program_argument(values->program, declared->by);
        look_up(values, declared->by, (int)strlen(declared->by), &choice);
        label = op_enum_name(&made.args[by], choice, &label_length);
        expected = label;
    }
    expected = expected && grammar_alternative(declared->shape, label, label_length, &text, &left);
    while (expected && grammar_axis(&text, &left, &axis, &length)) {
        int64_t size = -1;
        if (length == 3 && !memcmp(axis, "...", 3)) {
            at += 2;
            continue;
        }
        expected = grammar_evaluate(axis, length, look_up, values, &size) == GRAMMAR_VALUE && size >= 0 && at < TENSOR_MAX_DIMS;
        FUZZ_CHECK(!found || (expected && at < ndim && shape[at] == size), "axis %d of \"%s\" is %lld", at, declared->shape,
                   (long long)size);
        at++;
    }
    expected = expected && at <= TENSOR_MAX_DIMS;
    FUZZ_CHECK(found == expected && (!found || at == ndim), "%s \"%s\": %d", declared->name,
               declared->shape ? declared->shape : "", found);
}

static void check_rules(struct values *values)
{
    for (int i = 0; i < made.num_rules; i++) {
        int64_t value = 0;
        enum grammar_outcome outcome = grammar_evaluate(made.rules[i], (int)strlen(made.rules[i]), look_up, values, &value);
        bool holds = program_rule_holds(values->program, i, values->dim, UINT64_MAX);
        FUZZ_CHECK(outcome == GRAMMAR_TOO_DEEP || holds == (outcome == GRAMMAR_VALUE && value), "%s: %d", made.rules[i], holds);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    int64_t dim[OP_MAX_DIMS];
    read_declaration(&in);
    for (int i = 0; i < OP_MAX_DIMS; i++)
        dim[i] = in.at < in.end ? (int8_t)fuzz_byte(&in) : i % 5;
    struct program *program = program_compile(&made.op);
    if (!program) {
        FUZZ_CHECK(!strncmp(flashinfer_last_error(), "the declaration of fuzz is wrong: ", 34), "%s", flashinfer_last_error());
        return 0;
    }
    atomic_store(made.op.compiled, program);
    struct values values = {program, dim};
    for (int i = 0; i < program->num_args; i++)
        check_shape(&values, i);
    check_rules(&values);
    if (op_validate(&made.op))
        FUZZ_CHECK(!strncmp(flashinfer_last_error(), "the declaration of fuzz is wrong: ", 34), "%s", flashinfer_last_error());
    free(program);
    return 0;
}
