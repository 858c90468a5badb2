/* SPDX-License-Identifier: Apache-2.0 */
/* A page of documentation: sections, paragraphs, terms with what they mean. Printed for a terminal, with lines filled, or as
 * troff for man. */
#ifndef CLI_PAGE_H
#define CLI_PAGE_H

#include <stdbool.h>

struct page {
    bool man;
    bool open;   /* something stands above */
    bool nested; /* man: its sections stand below one of a larger page */
};

void page_section(struct page *page, const char *title);

/* Paragraphs, with an empty line between. */
void page_text(struct page *page, const char *text);

/* A term and its meaning, which stands beside it if the term is at most `width` wide. */
void page_item(struct page *page, int width, const char *term, const char *meaning);

/* Lines as they are. */
void page_lines(struct page *page, const char *lines);

#endif
