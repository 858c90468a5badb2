/* SPDX-License-Identifier: Apache-2.0 */
/* Filled lines, or troff. */
#include "cli/page.h"

#include <stdio.h>
#include <string.h>

enum { LINE = 100, INDENT = 2 };

/* Backslashes and dashes mean themselves; a line may not begin with what troff takes for a request. */
static void print_troff(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bool first = i == 0 || text[i - 1] == '\n';
        if (first && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", stdout);
        if (text[i] == '\\' || text[i] == '-')
            fputs(text[i] == '-' ? "\\-" : "\\e", stdout);
        else
            putchar(text[i]);
    }
}

/* Words of the text up to an empty line, in lines that begin at `indent`; the first one is there already. */
static const char *fill(const char *text, int indent)
{
    for (int column = indent; *text && strncmp(text, "\n\n", 2);) {
        text += strspn(text, " ");
        int length = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + length > LINE) {
            printf("\n%*s", indent, "");
            column = indent;
        }
        printf("%s%.*s", column > indent ? " " : "", length, text);
        column += length + (column > indent);
        text += length;
        text += *text == '\n' && text[1] != '\n';
    }
    putchar('\n');
    return text + strspn(text, "\n");
}

void page_section(struct page *page, const char *title)
{
    if (page->man)
        printf(".%s %s\n", page->nested ? "SS" : "SH", title);
    else
        printf("%s%s\n", page->open ? "\n" : "", title);
    page->open = true;
}

void page_text(struct page *page, const char *text)
{
    if (page->man) {
        for (const char *end; *text; text = end + strspn(end, "\n")) {
            end = strstr(text, "\n\n");
            end = end ? end : text + strlen(text);
            puts(".PP");
            print_troff(text, (size_t)(end - text));
            putchar('\n');
        }
        return;
    }
    while (*text) {
        printf("%*s", INDENT, "");
        text = fill(text, INDENT);
        if (*text)
            putchar('\n');
    }
}

void page_item(struct page *page, int width, const char *term, const char *meaning)
{
    if (page->man) {
        fputs(".TP\n.B ", stdout);
        print_troff(term, strlen(term));
        putchar('\n');
        print_troff(meaning, strlen(meaning));
        putchar('\n');
        return;
    }
    int column = INDENT + width + 2;
    if ((int)strlen(term) > width)
        printf("%*s%s\n%*s", INDENT, "", term, column, "");
    else
        printf("%*s%-*s  ", INDENT, "", width, term);
    fill(meaning, column);
}

void page_lines(struct page *page, const char *lines)
{
    if (page->man) {
        puts(".nf");
        print_troff(lines, strlen(lines));
        puts(".fi");
        return;
    }
    while (*lines) {
        int length = (int)strcspn(lines, "\n");
        printf("%*s%.*s\n", INDENT, "", length, lines);
        lines += length + (lines[length] == '\n');
    }
}
