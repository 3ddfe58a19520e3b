/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Answers of resolvers (RFC 1035): for which name, and with which addresses. Pure,
 * so it is also compiled for user space and compared with another parser there.
 *
 * Of a name only that counts which filters ask for, by the keys of
 * `waylay_core::HostPattern`.
 */
#pragma once

#define WL_MESSAGE_BYTES 4096 /* what a message has more is not looked at */
#define WL_MAX_RECORDS 64
#define WL_MAX_LABELS 128
#define WL_MAX_NAME 253 /* 255 on the wire */
#define WL_NAME_AT 12 /* in a message */

/* A message that is being read. */
struct wl_message {
	__u32 busy;
	__u32 length;
	__u32 at;
	__u32 broken; /* it has been read beyond its end */
	__u32 left;   /* records */
	__u32 name_length;
	__u32 label_left; /* bytes of a label, while a name is read */
	__u32 ttl; /* of the address, in seconds */
	__u32 key_count;
	__u64 digest; /* of the name's end, as far as it is looked at */
	__u64 keys[WL_LINEAGE]; /* of the name, those that are asked for */
	__u8 address[16];
	__u8 name[256]; /* in lower case, with dots */
	__u8 bytes[WL_MESSAGE_BYTES];
};

WL_INLINE __u32 wl_take_8(struct wl_message *m)
{
	__u32 at = m->at;

	if (at >= m->length) {
		m->broken = 1;
		return 0;
	}
	m->at = at + 1;
	return m->bytes[at & (WL_MESSAGE_BYTES - 1)];
}

WL_INLINE __u32 wl_take_16(struct wl_message *m)
{
	__u32 upper = wl_take_8(m);

	return upper << 8 | wl_take_8(m);
}

enum wl_name_end {
	WL_NAME_GOES_ON = 0,
	WL_NAME_ENDS = 1,
	WL_NAME_IS_NONE = 2,
};

/* The next byte of a name. */
WL_GLOBAL int wl_read_letter(struct wl_message *m)
{
	__u32 byte, count;

	if (!m)
		return WL_NAME_IS_NONE;
	byte = wl_take_8(m);
	count = m->name_length;
	if (m->broken)
		return WL_NAME_IS_NONE;
	if (m->label_left) {
		m->label_left--;
		if (byte == '.')
			return WL_NAME_IS_NONE;
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
	} else {
		if (!byte)
			return WL_NAME_ENDS;
		if (byte > 63)
			return WL_NAME_IS_NONE;
		m->label_left = byte;
		if (m->at == WL_NAME_AT + 1)
			return WL_NAME_GOES_ON;
		byte = '.';
	}
	m->name[count & 255] = byte;
	m->name_length = count + 1;
	return WL_NAME_GOES_ON;
}

/* The name that was asked for, its labels with dots between them; whether there is
 * one. It is the first of a message, so there is nothing that it could point to. */
WL_GLOBAL int wl_read_name(struct wl_message *m)
{
	int end = WL_NAME_GOES_ON;

	if (!m)
		return 0;
	m->label_left = 0;
	m->name_length = 0;
	WL_KEEP_LOOP
	for (int i = 0; i < WL_MAX_NAME + 2; i++) {
		end = wl_read_letter(m);
		if (end)
			break;
	}
	return end == WL_NAME_ENDS && m->name_length && m->name_length <= WL_MAX_NAME;
}

/* Whether it is the answer to one question of the Internet's class. */
WL_GLOBAL int wl_read_question(struct wl_message *m)
{
	__u32 flags, questions;

	if (!m)
		return 0;
	m->at = 2;
	m->broken = 0;
	flags = wl_take_16(m);
	questions = wl_take_16(m);
	m->left = wl_take_16(m);
	m->at = WL_NAME_AT;
	/* An answer, to a query, without an error. */
	if (m->broken || (flags & 0xf80f) != 0x8000 || questions != 1)
		return 0;
	if (!wl_read_name(m))
		return 0;
	wl_take_16(m);
	return wl_take_16(m) == 1 && !m->broken;
}

WL_GLOBAL int wl_note_key(struct wl_message *m, __u32 tables, __u64 key)
{
	if (!m || !wl_number_of_id(tables, WL_AT_HOSTS, key))
		return 0;
	for (__u32 i = 0; i < WL_LINEAGE; i++) {
		if (i == m->key_count) {
			m->keys[i] = key;
			m->key_count = i + 1;
			break;
		}
		if (m->keys[i] == key)
			break;
	}
	return 0;
}

WL_INLINE __u64 wl_finish_key(__u64 digest)
{
	digest = (digest ^ digest >> 33) * 0xff51afd7ed558ccd;
	digest = (digest ^ digest >> 33) * 0xc4ceb9fe1a85ec53;
	digest ^= digest >> 33;
	return digest ?: 1;
}

/* Goes on by a byte towards the name's beginning. */
WL_GLOBAL int wl_digest_letter(struct wl_message *m, __u32 tables, __u32 at)
{
	__u64 digest;
	__u32 byte;

	if (!m)
		return 0;
	digest = m->digest;
	byte = m->name[at & 255];
	if (byte == '.')
		wl_note_key(m, tables, wl_finish_key(digest ^ 0x5bd1e9957b7d159c));
	digest = (digest ^ byte) * 0x9e3779b97f4a7c15;
	m->digest = digest ^ digest >> 32;
	return 0;
}

/* Notes what covers the name: from its last byte to its first, so that all names
 * above come by on the way. */
WL_GLOBAL int wl_find_keys(struct wl_message *m, __u32 tables)
{
	if (!m)
		return 0;
	m->digest = 0xcbf29ce484222325;
	WL_KEEP_LOOP
	for (__u32 i = 0; i < WL_MAX_NAME; i++) {
		if (i >= m->name_length)
			break;
		wl_digest_letter(m, tables, m->name_length - 1 - i);
	}
	return wl_note_key(m, tables, wl_finish_key(m->digest));
}

WL_GLOBAL int wl_skip_name(struct wl_message *m)
{
	if (!m)
		return 0;
	WL_KEEP_LOOP
	for (int i = 0; i < WL_MAX_LABELS; i++) {
		__u32 byte = wl_take_8(m);

		if (m->broken)
			return 0;
		if (!byte)
			return 1;
		if (byte >= 0xc0) {
			wl_take_8(m);
			return !m->broken;
		}
		if (byte > 63)
			return 0;
		m->at += byte;
	}
	return 0;
}

enum wl_record {
	WL_NO_RECORD = 0, /* none more that can be read */
	WL_OTHER_RECORD = 1,
	WL_ADDRESS_RECORD = 2,
};

/* Reads on by one record. Whatever names stand between, all addresses of an answer
 * are those of the name that was asked for. */
WL_GLOBAL int wl_read_record(struct wl_message *m)
{
	__u32 type, class, length, at;

	if (!m || !m->left || !wl_skip_name(m))
		return WL_NO_RECORD;
	m->left--;
	type = wl_take_16(m);
	class = wl_take_16(m);
	m->ttl = wl_take_16(m) << 16;
	m->ttl |= wl_take_16(m);
	length = wl_take_16(m);
	at = m->at;
	m->at = at + length;
	if (m->broken || m->at > m->length)
		return WL_NO_RECORD;
	if (class == 1 && type == 1 && length == 4) {
		__builtin_memset(m->address, 0, 10);
		m->address[10] = m->address[11] = 0xff;
		for (__u32 i = 0; i < 4; i++)
			m->address[12 + i] = m->bytes[(at + i) & (WL_MESSAGE_BYTES - 1)];
		return WL_ADDRESS_RECORD;
	}
	if (class == 1 && type == 28 && length == 16) {
		for (__u32 i = 0; i < 16; i++)
			m->address[i] = m->bytes[(at + i) & (WL_MESSAGE_BYTES - 1)];
		return WL_ADDRESS_RECORD;
	}
	return WL_OTHER_RECORD;
}
