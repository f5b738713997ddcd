// gguf.h - GGUF, the one container: weights, optimizer state, tokenizers and golden values are all
// GGUF files. This header reads and writes them and knows nothing of what they mean.
//
// The file, little endian throughout:
//
//     "GGUF"  u32 version = 3  u64 n_tensors  u64 n_keys
//     n_keys    x { string name, u32 value type, value }
//     n_tensors x { string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset }
//     zeros up to a multiple of general.alignment (a key; 32 if it is absent)      <- data start
//     n_tensors x { data, zeros up to a multiple of the alignment }
//
//     string = u64 length, bytes          array = u32 element type, u64 count, elements
//     offset = from the data start: the running sum of the padded sizes, in the order of the infos
//     dims   = fastest first: a row-major matrix [rows][cols] is written {cols, rows}
//
// Parts: the types; numbers of 16 bits; strings that may hold anything; opening (where everything
// is checked, so that nothing after it can step outside the file); looking up keys and tensors;
// writing.
#pragma once
#include <cinttypes>
#include <map>
#include <set>
#include <string_view>
#include <vector>
#include "bundle.h"
#include "files.h"
#include "numerics.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place: little endian");

// ---- types --------------------------------------------------------------------------------------

// The type of a key's value.
enum GgufType : uint32_t {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES
};

struct GgufTypeFacts {
    const char* name;
    uint64_t bytes;   // 0: not fixed
};

inline GgufTypeFacts gguf_type_facts(uint32_t type) {
    static const GgufTypeFacts facts[GGUF_TYPES] = {
        {"u8", 1}, {"i8", 1}, {"u16", 2}, {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
        {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};
    return type < GGUF_TYPES ? facts[type] : GgufTypeFacts{"unknown", 0};
}

// The types of a tensor's elements that this project reads or writes.
enum GgmlType : uint32_t {
    GGML_F32 = 0, GGML_F16 = 1, GGML_Q4_0 = 2, GGML_Q4_1 = 3, GGML_Q8_0 = 8, GGML_Q4_K = 12,
    GGML_Q5_K = 13, GGML_Q6_K = 14, GGML_I32 = 26, GGML_F64 = 28, GGML_BF16 = 30
};

struct GgmlTypeFacts {
    uint32_t type;
    const char* name;
    uint64_t block;   // elements in a block
    uint64_t bytes;   // bytes of a block; 0: an unknown type
};

// Types that files in the wild hold, so that `show` can print them. Quantized ones store a block of
// elements together; what lies in a block, and which types can be computed with, says quants.h.
inline GgmlTypeFacts ggml_type_facts(uint32_t type) {
    static const GgmlTypeFacts facts[] = {
        {GGML_F32, "F32", 1, 4},      {GGML_F16, "F16", 1, 2},      {GGML_BF16, "BF16", 1, 2},
        {GGML_F64, "F64", 1, 8},      {GGML_I32, "I32", 1, 4},      {GGML_Q4_0, "Q4_0", 32, 18},
        {GGML_Q4_1, "Q4_1", 32, 20},  {GGML_Q8_0, "Q8_0", 32, 34},  {GGML_Q4_K, "Q4_K", 256, 144},
        {GGML_Q5_K, "Q5_K", 256, 176}, {GGML_Q6_K, "Q6_K", 256, 210},
        {6, "Q5_0", 32, 22},          {7, "Q5_1", 32, 24},          {10, "Q2_K", 256, 84},
        {11, "Q3_K", 256, 110},
        {24, "I8", 1, 1},             {25, "I16", 1, 2},            {27, "I64", 1, 8}};
    for (const GgmlTypeFacts& f : facts)
        if (f.type == type) return f;
    return GgmlTypeFacts{type, "unknown", 1, 0};
}

struct GgufKey {
    std::string name;
    GgufType type = GGUF_U32;
    GgufType element = GGUF_U32;     // of an array; otherwise the same as type
    uint64_t count = 1;              // elements of an array; otherwise 1
    const uint8_t* data = nullptr;   // the first element, in the mapping. Not aligned: use memcpy.
    uint64_t bytes = 0;              // of all elements, strings with their lengths
};

struct GgufTensor {
    std::string name;
    GgmlType type = GGML_F32;
    int n_dims = 0;
    uint64_t dims[4] = {1, 1, 1, 1};   // fastest first, unused ones 1
    uint64_t count = 0;                // elements: the product of dims
    const uint8_t* data = nullptr;     // in the mapping, aligned to at least 8 bytes
    uint64_t bytes = 0;
};

struct Gguf {
    MappedFile file;
    uint32_t version = 0;
    uint64_t alignment = 32;
    std::vector<GgufKey> keys;
    std::vector<GgufTensor> tensors;
    // Where each name stands. Trees, because no choice of names makes them slow, as it does a hash
    // table.
    std::map<std::string, size_t> key_at, tensor_at;
};

// ---- numbers of 16 bits -------------------------------------------------------------------------
//
//     float     1 sign  8 exponent (bias 127)  23 fraction
//     half      1 sign  5 exponent (bias  15)  10 fraction
//     bfloat16  1 sign  8 exponent (bias 127)   7 fraction: the upper half of a float

inline float bfloat16_to_float(uint16_t b) { return bits_to_float((uint32_t)b << 16); }

// Shifted into a float's place, a half's exponent is too small by 127 - 15 = 112. A multiplication
// by 2^112 mends that, and is exact for subnormals too.
inline float half_to_float(uint16_t h) {
    uint32_t magnitude = (h & 0x7fffu) << 13;
    uint32_t bits = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
    if (magnitude >= 0x0f800000) bits = magnitude | 0x7f800000;   // infinity and NaN
    return bits_to_float(bits | (h & 0x8000u) << 16);
}

// Rounded to the nearest, halfway to even; 65520 and above are infinity. A half below 2^-14 is a
// multiple of 2^-24, as is a float between 1/2 and 1: adding 1/2 rounds to such a one.
inline uint16_t float_to_half(float x) {
    uint32_t sign = float_to_bits(x) >> 16 & 0x8000, magnitude = float_to_bits(x) & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);   // NaN
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000)
        return (uint16_t)(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

// ---- strings ------------------------------------------------------------------------------------

enum : int { UTF8_WRONG = -1, UTF8_CUT = -2 };

// The character at s[at], whose length in bytes goes to *length. A byte that is no part of valid
// UTF-8 is UTF8_WRONG, and where s ends within a character it is UTF8_CUT: each is one byte long.
// Unicode 15, table 3-7: the first byte fixes the length and what the second may be, so that no
// form is longer than needed, half of a surrogate pair, or above U+10FFFF.
inline int utf8_character(const std::string& s, size_t at, size_t* length) {
    const uint8_t* byte = (const uint8_t*)s.data() + at;
    uint8_t first = byte[0];
    *length = 1;
    if (first < 0x80) return first;
    if (first < 0xc2 || first > 0xf4) return UTF8_WRONG;
    size_t n = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;    // not too long
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;   // no surrogates
    int character = first & (0x7f >> n);
    for (size_t i = 1; i < n; i++) {
        if (i == s.size() - at) return UTF8_CUT;
        if (byte[i] < (i == 1 ? low : 0x80) || byte[i] > (i == 1 ? high : 0xbf)) return UTF8_WRONG;
        character = character << 6 | (byte[i] & 0x3f);
    }
    *length = n;
    return character;
}

// A string that may hold anything, safe to print, cut after `longest` bytes. As \xNN stand the
// characters that a terminal would obey or that hide others: control characters (C0, DEL, and C1,
// of which U+009B begins an escape sequence), and those that turn the direction of writing; so do
// bytes that are no UTF-8.
inline std::string gguf_printable(const std::string& s, size_t longest) {
    std::string out;
    for (size_t i = 0, length; i < s.size() && i < longest; i += length) {
        int c = utf8_character(s, i, &length);
        bool shown = c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(c >= 0x202a && c <= 0x202e) &&
                     !(c >= 0x2066 && c <= 0x2069);
        if (shown) out.append(s, i, length);
        else
            for (size_t j = i; j < i + length; j++) out += text("\\x%02x", (uint8_t)s[j]);
    }
    return s.size() > longest ? out + "..." : out;
}

// ---- opening ------------------------------------------------------------------------------------
//
// A file may come from anywhere, so each length is compared with what is left of the file before it
// is used, by division or subtraction that cannot overflow. Counts are never allocated in advance.

struct GgufCursor {
    const MappedFile& file;
    uint64_t at;
    std::string what;   // for messages: "header", "key 3", "tensor blk.0.attn_norm.weight"
};

inline uint64_t gguf_left(const GgufCursor& c) { return c.file.size - c.at; }

// The next n bytes, or an error.
inline const uint8_t* gguf_take(GgufCursor& c, uint64_t n) {
    if (n > gguf_left(c))
        fail("%s: %s: needs %" PRIu64 " bytes at offset %" PRIu64 ", but the file ends at %" PRIu64
             " (was it copied completely?)", c.file.path.c_str(), c.what.c_str(), n, c.at,
             c.file.size);
    const uint8_t* p = c.file.data + c.at;
    c.at += n;
    return p;
}

inline uint32_t gguf_take_u32(GgufCursor& c) {
    uint32_t x;
    memcpy(&x, gguf_take(c, 4), 4);
    return x;
}

inline uint64_t gguf_take_u64(GgufCursor& c) {
    uint64_t x;
    memcpy(&x, gguf_take(c, 8), 8);
    return x;
}

// Names are compared and printed as C strings: they hold no NUL, and nothing that a terminal obeys.
inline std::string gguf_take_name(GgufCursor& c, uint64_t longest) {
    uint64_t n = gguf_take_u64(c);
    if (n == 0 || n > longest)
        fail("%s: %s: name of %" PRIu64 " bytes, expected 1 to %" PRIu64, c.file.path.c_str(),
             c.what.c_str(), n, longest);
    std::string name((const char*)gguf_take(c, n), n);
    if (gguf_printable(name, longest) != name)
        fail("%s: %s: the name \"%s\" has a control character, or is not UTF-8",
             c.file.path.c_str(), c.what.c_str(), gguf_printable(name, 60).c_str());
    return name;
}

inline GgufKey gguf_take_key(GgufCursor& c) {
    const char* path = c.file.path.c_str();
    GgufKey k;
    k.name = gguf_take_name(c, 65535);
    c.what = "key " + k.name;
    uint32_t type = gguf_take_u32(c), element = type;
    if (type == GGUF_ARRAY) {
        element = gguf_take_u32(c);
        k.count = gguf_take_u64(c);
        if (element == GGUF_ARRAY)
            fail("%s: key %s: an array of arrays, which no known key uses", path, k.name.c_str());
    }
    if (element >= GGUF_TYPES)
        fail("%s: key %s: type %" PRIu32 ", expected 0 to %d", path, k.name.c_str(), element,
             GGUF_TYPES - 1);
    k.type = (GgufType)type;
    k.element = (GgufType)element;
    uint64_t size = element == GGUF_STRING ? 8 : gguf_type_facts(element).bytes;   // at least
    if (k.count > gguf_left(c) / size)
        fail("%s: key %s: %" PRIu64 " values of type %s, but the file ends after %" PRIu64
             " bytes (was it copied completely?)", path, k.name.c_str(), k.count,
             gguf_type_facts(element).name, gguf_left(c));
    uint64_t start = c.at;
    k.data = c.file.data + start;
    if (element == GGUF_STRING)
        for (uint64_t i = 0; i < k.count; i++) gguf_take(c, gguf_take_u64(c));
    else
        gguf_take(c, k.count * size);
    k.bytes = c.at - start;
    for (uint64_t i = 0; element == GGUF_BOOL && i < k.count; i++)
        if (k.data[i] > 1)
            fail("%s: key %s: a bool of %d, expected 0 or 1", path, k.name.c_str(), k.data[i]);
    return k;
}

// Reads a tensor's info. The data itself is found later: where it starts is known after all infos.
inline GgufTensor gguf_take_tensor(GgufCursor& c, uint64_t* offset) {
    const char* path = c.file.path.c_str();
    GgufTensor t;
    t.name = gguf_take_name(c, 63);
    c.what = "tensor " + t.name;
    uint32_t n_dims = gguf_take_u32(c);
    if (n_dims < 1 || n_dims > 4)
        fail("%s: tensor %s: %" PRIu32 " dimensions, expected 1 to 4", path, t.name.c_str(),
             n_dims);
    t.n_dims = (int)n_dims;
    t.count = 1;
    for (int i = 0; i < t.n_dims; i++) {
        t.dims[i] = gguf_take_u64(c);
        if (t.dims[i] == 0 || __builtin_mul_overflow(t.count, t.dims[i], &t.count))
            fail("%s: tensor %s: dimension %d is %" PRIu64 ", expected at least 1 and no overflow",
                 path, t.name.c_str(), i, t.dims[i]);
    }
    uint32_t type = gguf_take_u32(c);
    GgmlTypeFacts facts = ggml_type_facts(type);
    if (facts.bytes == 0)
        fail("%s: tensor %s: unknown type %" PRIu32, path, t.name.c_str(), type);
    if (t.dims[0] % facts.block != 0)
        fail("%s: tensor %s: %s rows of %" PRIu64 ", expected a multiple of %" PRIu64, path,
             t.name.c_str(), facts.name, t.dims[0], facts.block);
    if (__builtin_mul_overflow(t.count / facts.block, facts.bytes, &t.bytes))
        fail("%s: tensor %s: %" PRIu64 " elements are more than can be counted", path,
             t.name.c_str(), t.count);
    t.type = (GgmlType)type;
    *offset = gguf_take_u64(c);
    return t;
}

inline uint64_t gguf_pad(uint64_t n, uint64_t alignment) {
    return (n + alignment - 1) / alignment * alignment;
}

inline uint64_t gguf_int_or(const Gguf& g, const std::string& name, uint64_t fallback);

// After all infos: gives every tensor its place in the data.
inline void gguf_place_tensors(Gguf& g, uint64_t infos_end, const std::vector<uint64_t>& offsets) {
    const char* path = g.file.path.c_str();
    uint64_t data_start = gguf_pad(infos_end, g.alignment), expected = 0;
    uint64_t size = g.file.size > data_start ? g.file.size - data_start : 0;
    for (size_t i = 0; i < g.tensors.size(); i++) {
        GgufTensor& t = g.tensors[i];
        if (offsets[i] != expected)
            fail("%s: tensor %s: offset %" PRIu64 ", expected %" PRIu64
                 " (the padded sizes of the tensors before it)", path, t.name.c_str(), offsets[i],
                 expected);
        if (expected > size || t.bytes > size - expected)
            fail("%s: tensor %s: needs %" PRIu64 " bytes at %" PRIu64 " of the data, but it has %"
                 PRIu64 " (was the file copied completely?)", path, t.name.c_str(), t.bytes,
                 expected, size);
        t.data = g.file.data + data_start + expected;
        expected = gguf_pad(expected + t.bytes, g.alignment);
    }
}

// Opens a file, or the one in a bundle, and checks its whole structure. Keys and tensors point into
// the mapping, so they live until gguf_close.
inline Gguf gguf_open(const std::string& path) {
    Gguf g;
    g.file = map_file(path, read_bundle(path).gguf_at);
    GgufCursor c{g.file, 0, "header"};
    if (memcmp(gguf_take(c, 4), "GGUF", 4) != 0)
        fail("%s: is not a GGUF file: it does not begin with \"GGUF\"", path.c_str());
    g.version = gguf_take_u32(c);
    if (g.version == __builtin_bswap32(2) || g.version == __builtin_bswap32(3))
        fail("%s: is a big-endian GGUF file, expected little endian", path.c_str());
    if (g.version != 2 && g.version != 3)   // 2 has the same layout; 1 had counts of 32 bits
        fail("%s: GGUF version %" PRIu32 ", expected 2 or 3", path.c_str(), g.version);
    uint64_t n_tensors = gguf_take_u64(c), n_keys = gguf_take_u64(c);

    for (uint64_t i = 0; i < n_keys; i++) {
        c.what = "key " + std::to_string(i) + " of " + std::to_string(n_keys);
        g.keys.push_back(gguf_take_key(c));
        if (!g.key_at.emplace(g.keys.back().name, i).second)
            fail("%s: key %s: appears twice", path.c_str(), g.keys.back().name.c_str());
    }
    g.alignment = gguf_int_or(g, "general.alignment", 32);
    if (g.alignment < 8 || g.alignment > 65536 || (g.alignment & (g.alignment - 1)) != 0)
        fail("%s: key general.alignment: %" PRIu64 ", expected a power of two from 8 to 65536",
             path.c_str(), g.alignment);

    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < n_tensors; i++) {
        c.what = "tensor " + std::to_string(i) + " of " + std::to_string(n_tensors);
        offsets.push_back(0);
        g.tensors.push_back(gguf_take_tensor(c, &offsets.back()));
        if (!g.tensor_at.emplace(g.tensors.back().name, i).second)
            fail("%s: tensor %s: appears twice", path.c_str(), g.tensors.back().name.c_str());
    }
    gguf_place_tensors(g, c.at, offsets);
    return g;
}

inline void gguf_close(Gguf& g) {
    unmap_file(g.file);
    g.keys.clear();
    g.tensors.clear();
    g.key_at.clear();
    g.tensor_at.clear();
}

// ---- looking up ---------------------------------------------------------------------------------

inline const GgufKey* gguf_key(const Gguf& g, const std::string& name) {
    auto found = g.key_at.find(name);
    return found == g.key_at.end() ? nullptr : &g.keys[found->second];
}

inline const GgufTensor* gguf_tensor(const Gguf& g, const std::string& name) {
    auto found = g.tensor_at.find(name);
    return found == g.tensor_at.end() ? nullptr : &g.tensors[found->second];
}

// For a model's loader, which knows the names of all its tensors: another one is an error, because
// a file that holds more than its keys say is not the model that it seems to be.
inline void gguf_expect_only(const Gguf& g, const std::set<std::string>& names) {
    for (const GgufTensor& t : g.tensors)
        if (!names.count(t.name))
            fail("%s: tensor %s: unexpected, the keys describe a model without it (is a key such as"
                 " the block_count wrong?)", g.file.path.c_str(), t.name.c_str());
}

// "u32" or "array of string", for messages.
inline std::string gguf_type_text(const GgufKey& k) {
    const char* element = gguf_type_facts(k.element).name;
    return k.type == GGUF_ARRAY ? std::string("array of ") + element : element;
}

// Element i of integers, as 64 bits that are signed or not as the type says; false for other types.
inline bool gguf_element_int(const GgufKey& k, uint64_t i, uint64_t* bits, bool* negative) {
    uint64_t size = gguf_type_facts(k.element).bytes, x = 0;
    bool is_signed = false;
    switch (k.element) {
        case GGUF_U8: case GGUF_U16: case GGUF_U32: case GGUF_U64: break;
        case GGUF_I8: case GGUF_I16: case GGUF_I32: case GGUF_I64: is_signed = true; break;
        default: return false;
    }
    memcpy(&x, k.data + i * size, size);
    *negative = is_signed && (x >> (8 * size - 1)) != 0;
    if (*negative && size < 8) x |= ~0ull << (8 * size);   // extend the sign
    *bits = x;
    return true;
}

inline double gguf_element_float(const GgufKey& k, uint64_t i) {
    if (k.element == GGUF_F32) {
        float f;
        memcpy(&f, k.data + 4 * i, 4);
        return f;
    }
    double d;
    memcpy(&d, k.data + 8 * i, 8);
    return d;
}

// The string at *p, which moves past it, in the mapping. Lengths were checked when the file was
// opened.
inline std::string_view gguf_next_view(const uint8_t** p) {
    uint64_t n;
    memcpy(&n, *p, 8);
    std::string_view s((const char*)*p + 8, n);
    *p += 8 + n;
    return s;
}

inline std::string gguf_next_string(const uint8_t** p) { return std::string(gguf_next_view(p)); }

// A key's value for people: strings in quotes, an array's first `most` elements and its length.
inline std::string gguf_value_text(const GgufKey& k, uint64_t most = 4) {
    std::string out;
    const uint8_t* p = k.data;
    for (uint64_t i = 0; i < k.count && i < most; i++) {
        uint64_t bits;
        bool negative;
        if (i > 0) out += ", ";
        if (k.element == GGUF_STRING) out += '"' + gguf_printable(gguf_next_string(&p), 60) + '"';
        else if (k.element == GGUF_BOOL) out += k.data[i] ? "true" : "false";
        else if (gguf_element_int(k, i, &bits, &negative))
            out += negative ? std::to_string((int64_t)bits) : std::to_string(bits);
        else out += text("%.9g", gguf_element_float(k, i));
    }
    if (k.type != GGUF_ARRAY) return out;
    return "[" + out + (k.count > most ? ", ..." : "") + "] (" + std::to_string(k.count) + ")";
}

[[noreturn]] inline void gguf_fail_key(const Gguf& g, const GgufKey& k, const char* expected) {
    fail("%s: key %s: %s of type %s, expected %s", g.file.path.c_str(), k.name.c_str(),
         gguf_value_text(k).c_str(), gguf_type_text(k).c_str(), expected);
}

// A key that must be there, as one value or as an array.
inline const GgufKey& gguf_need(const Gguf& g, const std::string& name, bool array,
                                const char* expected) {
    const GgufKey* k = gguf_key(g, name);
    if (!k) fail("%s: key %s: missing, expected %s", g.file.path.c_str(), name.c_str(), expected);
    if ((k->type == GGUF_ARRAY) != array) gguf_fail_key(g, *k, expected);
    return *k;
}

inline uint64_t gguf_int(const Gguf& g, const std::string& name) {
    const GgufKey& k = gguf_need(g, name, false, "an integer");
    uint64_t bits;
    bool negative;
    if (!gguf_element_int(k, 0, &bits, &negative)) gguf_fail_key(g, k, "an integer");
    if (negative) gguf_fail_key(g, k, "0 or more");
    return bits;
}

inline double gguf_float(const Gguf& g, const std::string& name) {
    const GgufKey& k = gguf_need(g, name, false, "a f32 or f64");
    if (k.element != GGUF_F32 && k.element != GGUF_F64) gguf_fail_key(g, k, "a f32 or f64");
    return gguf_element_float(k, 0);
}

inline std::string gguf_string(const Gguf& g, const std::string& name) {
    const GgufKey& k = gguf_need(g, name, false, "a string");
    if (k.element != GGUF_STRING) gguf_fail_key(g, k, "a string");
    const uint8_t* p = k.data;
    return gguf_next_string(&p);
}

inline uint64_t gguf_int_or(const Gguf& g, const std::string& name, uint64_t fallback) {
    return gguf_key(g, name) ? gguf_int(g, name) : fallback;
}

inline std::string gguf_string_or(const Gguf& g, const std::string& name,
                                  const std::string& fallback) {
    return gguf_key(g, name) ? gguf_string(g, name) : fallback;
}

inline bool gguf_bool_or(const Gguf& g, const std::string& name, bool fallback) {
    if (!gguf_key(g, name)) return fallback;
    const GgufKey& k = gguf_need(g, name, false, "a bool");
    if (k.element != GGUF_BOOL) gguf_fail_key(g, k, "a bool");
    return k.data[0];
}

// An array of strings, which stay in the mapping: for those that are many.
inline std::vector<std::string_view> gguf_views(const Gguf& g, const std::string& name) {
    const GgufKey& k = gguf_need(g, name, true, "an array of strings");
    if (k.element != GGUF_STRING) gguf_fail_key(g, k, "an array of strings");
    const uint8_t* p = k.data;
    std::vector<std::string_view> out;
    out.reserve(k.count);
    for (uint64_t i = 0; i < k.count; i++) out.push_back(gguf_next_view(&p));
    return out;
}

inline std::vector<std::string> gguf_strings(const Gguf& g, const std::string& name) {
    std::vector<std::string_view> views = gguf_views(g, name);
    return std::vector<std::string>(views.begin(), views.end());
}

inline std::vector<int64_t> gguf_ints(const Gguf& g, const std::string& name) {
    const GgufKey& k = gguf_need(g, name, true, "an array of integers");
    std::vector<int64_t> out;
    for (uint64_t i = 0; i < k.count; i++) {
        uint64_t bits;
        bool negative;
        if (!gguf_element_int(k, i, &bits, &negative) || (!negative && bits > INT64_MAX))
            gguf_fail_key(g, k, "an array of integers below 2^63");
        out.push_back((int64_t)bits);
    }
    return out;
}

// "{768, 2304}", for messages.
inline std::string gguf_shape(const GgufTensor& t) {
    std::string out = "{";
    for (int i = 0; i < t.n_dims; i++) out += (i ? ", " : "") + std::to_string(t.dims[i]);
    return out + "}";
}

// out[i] = element first + i of g's tensor t, for i < count; first + count <= t.count.
inline void gguf_to_float(float* out, const Gguf& g, const GgufTensor& t, uint64_t first,
                          uint64_t count) {
    if (t.type == GGML_F32) {
        memcpy(out, t.data + 4 * first, 4 * count);
    } else if (t.type == GGML_F64) {
        const double* data = (const double*)t.data + first;
        for (uint64_t i = 0; i < count; i++) out[i] = (float)data[i];
    } else if (t.type == GGML_F16 || t.type == GGML_BF16) {
        const uint16_t* data = (const uint16_t*)t.data + first;
        float (*widen)(uint16_t) = t.type == GGML_F16 ? half_to_float : bfloat16_to_float;
        for (uint64_t i = 0; i < count; i++) out[i] = widen(data[i]);
    } else {
        fail("%s: tensor %s: type %s, expected F32, F16, BF16 or F64", g.file.path.c_str(),
             t.name.c_str(), ggml_type_facts(t.type).name);
    }
}

// ---- writing ------------------------------------------------------------------------------------

struct GgufPending {
    GgufTensor tensor;
    const void* data;
};

// Collects what a file will hold. Keys and tensors are written in the order in which they were put,
// and nothing else enters the file (no time, no host), so equal content gives equal bytes.
struct GgufWriter {
    std::string keys;   // as they will stand in the file
    uint64_t n_keys = 0;
    uint64_t alignment = 32;
    std::vector<GgufPending> tensors;
    std::set<std::string> names;   // of keys and tensors: neither may appear twice
};

inline void gguf_append(std::string& out, const void* bytes, size_t n) {
    out.append((const char*)bytes, n);
}
inline void gguf_append_u32(std::string& out, uint32_t x) { gguf_append(out, &x, 4); }
inline void gguf_append_u64(std::string& out, uint64_t x) { gguf_append(out, &x, 8); }

inline void gguf_append_string(std::string& out, const std::string& s) {
    gguf_append_u64(out, s.size());
    out += s;
}

// A copy of any key, from a file or made by the functions below.
inline void gguf_put_key(GgufWriter& w, const GgufKey& k) {
    if (!w.names.insert("key " + k.name).second)
        fail("key %s: put twice into a file", k.name.c_str());
    gguf_append_string(w.keys, k.name);
    gguf_append_u32(w.keys, k.type);
    if (k.type == GGUF_ARRAY) {
        gguf_append_u32(w.keys, k.element);
        gguf_append_u64(w.keys, k.count);
    }
    gguf_append(w.keys, k.data, k.bytes);
    w.n_keys++;
    bool negative;
    if (k.name == "general.alignment") gguf_element_int(k, 0, &w.alignment, &negative);
}

// All keys that another writer collected.
inline void gguf_put_keys(GgufWriter& w, const GgufWriter& from) {
    for (const std::string& name : from.names)
        if (!w.names.insert(name).second) fail("%s: put twice into a file", name.c_str());
    w.keys += from.keys;
    w.n_keys += from.n_keys;
}

inline void gguf_put(GgufWriter& w, const std::string& name, GgufType type, GgufType element,
                     uint64_t count, const void* data, uint64_t bytes) {
    GgufKey k;
    k.name = name;
    k.type = type;
    k.element = element;
    k.count = count;
    k.data = (const uint8_t*)data;
    k.bytes = bytes;
    gguf_put_key(w, k);
}

inline void gguf_put_int(GgufWriter& w, const std::string& name, uint32_t x) {
    gguf_put(w, name, GGUF_U32, GGUF_U32, 1, &x, 4);
}

inline void gguf_put_u64(GgufWriter& w, const std::string& name, uint64_t x) {
    gguf_put(w, name, GGUF_U64, GGUF_U64, 1, &x, 8);
}

inline void gguf_put_float(GgufWriter& w, const std::string& name, float x) {
    gguf_put(w, name, GGUF_F32, GGUF_F32, 1, &x, 4);
}

inline void gguf_put_string(GgufWriter& w, const std::string& name, const std::string& x) {
    std::string bytes;
    gguf_append_string(bytes, x);
    gguf_put(w, name, GGUF_STRING, GGUF_STRING, 1, bytes.data(), bytes.size());
}

inline void gguf_put_strings(GgufWriter& w, const std::string& name,
                             const std::vector<std::string>& x) {
    std::string bytes;
    for (const std::string& s : x) gguf_append_string(bytes, s);
    gguf_put(w, name, GGUF_ARRAY, GGUF_STRING, x.size(), bytes.data(), bytes.size());
}

// A tensor. data, as the file will hold it, must live until gguf_write; for gguf_begin it may be
// null.
inline void gguf_put_tensor(GgufWriter& w, const std::string& name, GgmlType type,
                            const std::vector<uint64_t>& dims, const void* data) {
    const char* n = name.c_str();
    if (!w.names.insert("tensor " + name).second) fail("tensor %s: put twice into a file", n);
    if (name.empty() || name.size() > 63) fail("tensor %s: name must have 1 to 63 bytes", n);
    if (dims.empty() || dims.size() > 4) fail("tensor %s: must have 1 to 4 dimensions", n);
    GgufPending p;
    p.tensor.name = name;
    p.tensor.type = type;
    p.tensor.n_dims = (int)dims.size();
    p.tensor.count = 1;
    for (size_t i = 0; i < dims.size(); i++) p.tensor.count *= p.tensor.dims[i] = dims[i];
    if (p.tensor.count == 0) fail("tensor %s: has no elements", n);
    GgmlTypeFacts facts = ggml_type_facts(type);
    p.tensor.bytes = p.tensor.count / facts.block * facts.bytes;
    p.data = data;
    w.tensors.push_back(p);
}

inline void gguf_write_padding(AtomicFile& f, uint64_t written, uint64_t alignment) {
    std::string zeros(gguf_pad(written, alignment) - written, '\0');
    atomic_write(f, zeros.data(), zeros.size());
}

// Begins a file: all but the tensors' data, which follow in their order.
inline AtomicFile gguf_begin(const GgufWriter& w, const std::string& path) {
    std::string head = "GGUF";
    gguf_append_u32(head, 3);
    gguf_append_u64(head, w.tensors.size());
    gguf_append_u64(head, w.n_keys);
    head += w.keys;
    uint64_t offset = 0;
    for (const GgufPending& p : w.tensors) {
        gguf_append_string(head, p.tensor.name);
        gguf_append_u32(head, (uint32_t)p.tensor.n_dims);
        for (int i = 0; i < p.tensor.n_dims; i++) gguf_append_u64(head, p.tensor.dims[i]);
        gguf_append_u32(head, p.tensor.type);
        gguf_append_u64(head, offset);
        offset = gguf_pad(offset + p.tensor.bytes, w.alignment);
    }
    AtomicFile f = atomic_open(path);
    atomic_write(f, head.data(), head.size());
    gguf_write_padding(f, head.size(), w.alignment);
    return f;
}

// Writes everything: path is replaced in one piece when all of it is on disk. read: copies a part
// of a tensor's data to the host, for data on a device; a megabyte at a time, so that saving a
// model takes no room for another copy of it.
inline void gguf_write(const GgufWriter& w, const std::string& path,
                       void (*read)(void* host, const void* data, size_t bytes) = nullptr) {
    AtomicFile f = gguf_begin(w, path);
    std::string piece(1 << 20, '\0');
    for (const GgufPending& p : w.tensors) {
        if (!read) atomic_write(f, p.data, p.tensor.bytes);
        for (uint64_t at = 0; read && at < p.tensor.bytes; at += piece.size()) {
            const size_t n = (size_t)std::min<uint64_t>(piece.size(), p.tensor.bytes - at);
            read(&piece[0], (const char*)p.data + at, n);
            atomic_write(f, piece.data(), n);
        }
        gguf_write_padding(f, p.tensor.bytes, w.alignment);
    }
    atomic_close(f);
}
