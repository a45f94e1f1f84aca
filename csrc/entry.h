/*
 * entry.h - how a record is written as text: the time, and the JSON of one entry. Shared by logger (--forward-format) and csrc/ext
 * (followers), so that an entry looks the same everywhere. Pure, no allocation; the caller gives room for ENTRY_JSON_MAX.
 */
#ifndef VIGIL_ENTRY_H
#define VIGIL_ENTRY_H
#include <stddef.h>
#include <string.h>

#include "ring.h"

#define ENTRY_TIME 27           /* 2026-03-21T12:00:00.123456Z */
/* Every byte as \u00xx or U+FFFD, the name too, and the words around them. */
#define ENTRY_JSON_MAX (6 * (VG_LINE_MAX + 128) + 256)

static inline char *entry_digits(char *to, uint64_t number, int width)
{
    for (int at = width - 1; at >= 0; at--) {
        to[at] = (char)('0' + number % 10);
        number /= 10;
    }
    return to + width;
}

static inline char *entry_number(char *to, uint64_t number)
{
    char text[20];
    size_t length = 0;

    do
        text[length++] = (char)('0' + number % 10);
    while (number /= 10);
    while (length)
        *to++ = text[--length];
    return to;
}

/* RFC 3339, UTC, microseconds: ENTRY_TIME bytes, no NUL. */
static inline char *entry_time(char *to, uint64_t real_ns)
{
    uint64_t seconds = real_ns / 1000000000u, micros = real_ns / 1000u % 1000000u, second = seconds % 86400;
    /* Days since 0000-03-01, so that the leap day is the last of its year; 146,097 days are 400 years. */
    uint64_t day = seconds / 86400 + 719468, era = day / 146097, of_era = day % 146097;
    uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;

    day = of_year - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);
    to = entry_digits(to, year, 4);
    *to++ = '-';
    to = entry_digits(to, month, 2);
    *to++ = '-';
    to = entry_digits(to, day, 2);
    *to++ = 'T';
    to = entry_digits(to, second / 3600, 2);
    *to++ = ':';
    to = entry_digits(to, second / 60 % 60, 2);
    *to++ = ':';
    to = entry_digits(to, second % 60, 2);
    *to++ = '.';
    to = entry_digits(to, micros, 6);
    *to++ = 'Z';
    return to;
}

/* Bytes of the well-formed UTF-8 sequence at `text`, 0 if there is none (RFC 3629: no surrogates, no overlong forms). */
static inline size_t entry_sequence(const unsigned char *text, size_t length)
{
    unsigned first = text[0];
    unsigned low = 0x80, high = 0xbf;
    size_t size;

    if (first < 0xc2)
        return first < 0x80;
    if (first < 0xe0) {
        size = 2;
    } else if (first < 0xf0) {
        size = 3;
        if (first == 0xe0)
            low = 0xa0;
        else if (first == 0xed)
            high = 0x9f;
    } else if (first < 0xf5) {
        size = 4;
        if (first == 0xf0)
            low = 0x90;
        else if (first == 0xf4)
            high = 0x8f;
    } else {
        return 0;
    }
    if (length < size || text[1] < low || text[1] > high)
        return 0;
    for (size_t at = 2; at < size; at++)
        if ((text[at] & 0xc0) != 0x80)
            return 0;
    return size;
}

/* Whether any of eight bytes is not plain: below a blank, a quote, a backslash, or not ASCII. */
static inline bool entry_any_special(const unsigned char *text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t word, quote, slash;

    memcpy(&word, text, sizeof word);
    quote = word ^ ones * '"';
    slash = word ^ ones * '\\';
    return ((word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & tops) != 0;
}

/* The inside of a JSON string. */
static inline char *entry_escape(char *to, const unsigned char *text, size_t length)
{
    static const char hex[] = "0123456789abcdef";

    while (length) {
        size_t size;
        unsigned char byte = *text;

        if (length >= 8 && !entry_any_special(text)) {
            memcpy(to, text, 8);
            to += 8;
            text += 8;
            length -= 8;
            continue;
        }
        if (byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\') {
            *to++ = (char)byte;
            size = 1;
        } else if (byte == '"' || byte == '\\') {
            *to++ = '\\';
            *to++ = (char)byte;
            size = 1;
        } else if (byte < 0x20) {
            *to++ = '\\';
            if (byte == '\t') {
                *to++ = 't';
            } else if (byte == '\r') {
                *to++ = 'r';
            } else if (byte == '\n') {
                *to++ = 'n';
            } else {
                memcpy(to, "u00", 3);
                to[3] = hex[byte >> 4];
                to[4] = hex[byte & 15];
                to += 5;
            }
            size = 1;
        } else {
            size = entry_sequence(text, length);
            if (size) {
                memcpy(to, text, size);
                to += size;
            } else {
                memcpy(to, "\xef\xbf\xbd", 3);
                to += 3;
                size = 1;
            }
        }
        text += size;
        length -= size;
    }
    return to;
}

static inline char *entry_words(char *to, const char *words)
{
    size_t length = strlen(words);

    memcpy(to, words, length);
    return to + length;
}

/* {"seq":...}, without a newline. */
static inline char *entry_json(char *to, const struct vg_record *record, const unsigned char *message, const char *service)
{
    to = entry_words(to, "{\"seq\":");
    to = entry_number(to, record->seq);
    to = entry_words(to, ",\"timestamp\":\"");
    to = entry_time(to, record->real_ns);
    to = entry_words(to, "\",\"service\":\"");
    to = entry_escape(to, (const unsigned char *)service, strlen(service));
    to = entry_words(to, record->flags & VG_RECORD_STDERR ? "\",\"stream\":\"stderr\",\"message\":\"" : "\",\"stream\":\"stdout\",\"message\":\"");
    to = entry_escape(to, message, record->length);
    *to++ = '"';
    if (record->flags & VG_RECORD_PARTIAL)
        to = entry_words(to, ",\"partial\":true");
    *to++ = '}';
    return to;
}
#endif
