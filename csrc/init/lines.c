/*
 * lines.c - the splitter.
 *
 * Lines end with LF or CR LF, which are removed; NUL and invalid UTF-8 stay. A line of more than VG_LINE_MAX bytes becomes several
 * records, all but the last with VG_RECORD_PARTIAL. Calls ring_make_room; says nothing: it cannot fail.
 */
#include "lines.h"

#include <string.h>

/* What is still to be split: `held` and then `text`. */
struct rest {
    const unsigned char *held, *text;
    size_t held_length, text_length;
};

static void take(struct rest *rest, unsigned char *to, size_t count)
{
    size_t first = count < rest->held_length ? count : rest->held_length;

    if (first) {
        if (to)
            memcpy(to, rest->held, first);
        rest->held += first;
        rest->held_length -= first;
    }
    if (to)
        memcpy(to + first, rest->text, count - first);
    rest->text += count - first;
    rest->text_length -= count - first;
}

static unsigned char byte_at(const struct rest *rest, size_t index)
{
    return index < rest->held_length ? rest->held[index] : rest->text[index - rest->held_length];
}

static void put(const struct lines_in *in, struct lines_out *out, struct rest *rest, size_t length, bool partial)
{
    uint64_t end = out->head + vg_record_size(length);
    unsigned char *at = in->ring->data + in->head % in->ring->capacity + (out->head - in->head);
    struct vg_record *record = (struct vg_record *)(void *)at;

    ring_make_room(in->ring, end);
    record->seq = out->seq++;
    record->line = out->line++;
    record->real_ns = in->real_ns;
    record->length = (uint16_t)length;
    record->flags = (uint8_t)(in->flags | (partial ? (unsigned)VG_RECORD_PARTIAL : 0u));
    record->nth_high = (uint8_t)(out->nth >> 32);
    record->nth_low = (uint32_t)out->nth;
    if (in->flags & VG_RECORD_FORWARD)
        out->nth++;
    take(rest, at + sizeof *record, length);
    out->head = end;
    if (!partial)
        out->whole = end;
}

void lines_split(const struct lines_in *in, struct lines_out *out)
{
    struct rest rest = { in->held, in->text, in->held_length, in->text_length };

    out->head = in->head;
    out->line = in->line;
    out->seq = in->seq;
    out->nth = in->nth;
    out->whole = 0;
    out->padding = 0;
    for (;;) {
        size_t total = rest.held_length + rest.text_length, window = total, found, length;
        const unsigned char *newline;

        if (window > VG_LINE_MAX + 2)   /* the longest message with its CR LF */
            window = VG_LINE_MAX + 2;
        newline = window > rest.held_length ? memchr(rest.text, '\n', window - rest.held_length) : NULL;
        if (newline) {
            found = rest.held_length + (size_t)(newline - rest.text);
            length = found && byte_at(&rest, found - 1) == '\r' ? found - 1 : found;
            if (length <= VG_LINE_MAX) {
                put(in, out, &rest, length, false);
                take(&rest, NULL, found + 1 - length);
                continue;
            }
        } else if (total <= VG_LINE_MAX || (total == VG_LINE_MAX + 1 && byte_at(&rest, VG_LINE_MAX) == '\r')) {
            break;
        }
        put(in, out, &rest, VG_LINE_MAX, true);
    }
    if (in->end) {
        if (rest.held_length + rest.text_length > VG_LINE_MAX)
            put(in, out, &rest, VG_LINE_MAX, true);
        if (rest.held_length + rest.text_length)
            put(in, out, &rest, rest.held_length + rest.text_length, false);
    }
    out->rest_length = (uint32_t)(rest.held_length + rest.text_length);
    take(&rest, in->rest, out->rest_length);
}
