// test_gguf.cpp - gguf.h: what is written is read back, the 16-bit numbers are right, and no
// damaged file does more than be refused with a message that names it.
//
// Damage is tried in child processes: one that opens the file and reads every part of it must exit
// with 0, or with 1 and a message. A crash is a signal, and a hang is ended by alarm().
#include <ctime>
#include <filesystem>
#include "check.h"

static std::string folder;

static std::string write_bytes(const char* name, const std::string& bytes) {
    std::string path = folder + "/" + name;
    FILE* f = fopen(path.c_str(), "wb");
    if (!f || fwrite(bytes.data(), 1, bytes.size(), f) != bytes.size() || fclose(f) != 0)
        fail("%s: cannot be written", path.c_str());
    return path;
}

static std::string read_bytes(const std::string& path) {
    MappedFile f = map_file(path);
    std::string bytes((const char*)f.data, f.size);
    unmap_file(f);
    return bytes;
}

// ---- damage -------------------------------------------------------------------------------------

// Touches every byte that a program could reach through the structure.
static void read_everything(const std::string& path) {
    Gguf g = gguf_open(path);
    volatile unsigned sum = 0;
    for (const GgufKey& k : g.keys) {
        for (uint64_t i = 0; i < k.bytes; i++) sum = sum + k.data[i];
        if (gguf_value_text(k, 1000).empty()) _exit(2);
        if (k.type == GGUF_ARRAY && k.element == GGUF_STRING) gguf_strings(g, k.name);
    }
    for (const GgufTensor& t : g.tensors) {
        for (uint64_t i = 0; i < t.bytes; i++) sum = sum + t.data[i];
        if (gguf_tensor(g, t.name) != &t) _exit(2);
        if (t.type == GGML_F32 || t.type == GGML_F16 || t.type == GGML_BF16 || t.type == GGML_F64) {
            std::vector<float> out(t.count);
            gguf_to_float(out.data(), g, t, 0, t.count);
        }
    }
    gguf_close(g);
}

static bool holds(const std::string& message, const std::string& part) {
    return message.find(part) != std::string::npos;
}

static void check_refused(const std::string& path, const char* what, const std::string& word) {
    Outcome o = in_child([&] { read_everything(path); });
    bool says = holds(o.message, path) && holds(o.message, word);
    check(o.code == 1 && says, "%s: exit code %d, message \"%s\", expected 1, the path and \"%s\"",
          what, o.code, o.message.c_str(), word.c_str());
}

// ---- files by hand ------------------------------------------------------------------------------

static std::string u32(uint32_t x) { return std::string((const char*)&x, 4); }
static std::string u64(uint64_t x) { return std::string((const char*)&x, 8); }
static std::string str(const std::string& s) { return u64(s.size()) + s; }

static std::string header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return "GGUF" + u32(version) + u64(tensors) + u64(keys);
}

static std::string info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                        uint64_t offset) {
    std::string bytes = str(name) + u32((uint32_t)dims.size());
    for (uint64_t d : dims) bytes += u64(d);
    return bytes + u32(type) + u64(offset);
}

// One F32 tensor of 8 elements after the given infos, with room for its data.
static std::string with_data(std::string bytes) {
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return bytes + std::string(64, 'x');
}

// ---- round trip ---------------------------------------------------------------------------------

static const Floats VALUES = {1, -2, 0.5f, 0, 65504, -0.25f};
static const uint16_t HALVES[] = {0x3c00, 0xc000, 0x3800, 0, 0x7bff, 0xb400};
static const uint16_t BFLOATS[] = {0x3f80, 0xc000, 0x3f00, 0, 0x4780, 0xbe80};   // 65536 for 65504

static GgufWriter every_kind() {
    GgufWriter w;
    gguf_put_string(w, "general.architecture", "test");
    gguf_put_int(w, "an.int", 4000000000u);
    gguf_put_u64(w, "a.u64", 1ull << 60);
    gguf_put_float(w, "a.float", 1e-5f);
    double tenth = 0.1;
    gguf_put(w, "a.double", GGUF_F64, GGUF_F64, 1, &tenth, 8);
    gguf_put(w, "a.bool", GGUF_BOOL, GGUF_BOOL, 1, "\1", 1);
    gguf_put_string(w, "a.string", std::string("h\xc3\xa9\0\n", 5));
    gguf_put_strings(w, "strings", {"", "a", "bc"});
    gguf_put_strings(w, "no.strings", {});
    int32_t ints[] = {1, -3, 2147483647};
    gguf_put(w, "ints", GGUF_ARRAY, GGUF_I32, 3, ints, sizeof ints);
    gguf_put_tensor(w, "f32", GGML_F32, {3, 2}, VALUES.data());
    gguf_put_tensor(w, "f16", GGML_F16, {6}, HALVES);
    gguf_put_tensor(w, "bf16", GGML_BF16, {1, 2, 3, 1}, BFLOATS);
    return w;
}

static void test_round_trip() {
    std::string path = folder + "/a.gguf", copy = folder + "/b.gguf";
    gguf_write(every_kind(), path);
    Gguf g = gguf_open(path);
    check(g.version == 3 && g.keys.size() == 10 && g.tensors.size() == 3, "keys and tensors");
    check(gguf_int(g, "an.int") == 4000000000u && gguf_int(g, "a.u64") == 1ull << 60, "integers");
    check(gguf_float(g, "a.float") == (double)1e-5f && gguf_float(g, "a.double") == 0.1, "floats");
    check(gguf_value_text(*gguf_key(g, "a.bool")) == "true", "bool as text");
    check(gguf_string(g, "a.string") == std::string("h\xc3\xa9\0\n", 5), "string");
    check(gguf_strings(g, "strings") == std::vector<std::string>({"", "a", "bc"}), "strings");
    check(gguf_strings(g, "no.strings").empty(), "an empty array");
    check(gguf_ints(g, "ints") == std::vector<int64_t>({1, -3, 2147483647}), "array of i32");
    check(gguf_value_text(*gguf_key(g, "ints"), 2) == "[1, -3, ...] (3)", "array as text");
    check(gguf_value_text(*gguf_key(g, "a.string")) == "\"h\xc3\xa9\\x00\\x0a\"", "string as text");
    check(gguf_int_or(g, "absent", 7) == 7 && gguf_string_or(g, "absent", "x") == "x", "fallbacks");
    check(!gguf_key(g, "absent") && !gguf_tensor(g, "absent"), "absent names");
    check(gguf_shape(*gguf_tensor(g, "bf16")) == "{1, 2, 3, 1}", "shape as text");
    for (const GgufTensor& t : g.tensors) {
        Floats all(6), part(2);
        gguf_to_float(all.data(), g, t, 0, 6);
        gguf_to_float(part.data(), g, t, 3, 2);
        Floats want = VALUES;
        if (t.name == "bf16") want[4] = 65536;
        check(all == want && part[0] == want[3] && part[1] == want[4], "values of tensor %s",
              t.name.c_str());
        check(((uintptr_t)t.data - (uintptr_t)g.file.data) % 32 == 0, "alignment of tensor %s",
              t.name.c_str());
    }
    GgufWriter w;
    for (const GgufKey& k : g.keys) gguf_put_key(w, k);
    for (const GgufTensor& t : g.tensors)
        gguf_put_tensor(w, t.name, t.type, std::vector<uint64_t>(t.dims, t.dims + t.n_dims),
                        t.data);
    gguf_write(w, copy);
    std::string bytes = read_bytes(path);
    check(read_bytes(copy) == bytes, "copied key by key, the file has the same bytes");
    check(bytes.size() % 32 == 0, "the file's end is padded");
    // A link that waits under the temporary name is not followed, and nothing is left behind.
    std::string link = copy + text(".legible-%ld-0.tmp", (long)getpid());
    if (symlink(path.c_str(), link.c_str()) != 0) fail("%s: cannot be linked", link.c_str());
    gguf_write(GgufWriter(), copy);
    check(read_bytes(path) == bytes, "a file behind a link under a temporary name was written to");
    check(read_bytes(copy).size() < bytes.size(), "a file was not replaced");
    unlink(link.c_str());
    int files = 0;
    for (auto& entry : std::filesystem::directory_iterator(folder))
        files += entry.is_regular_file();
    check(files == 2, "%d files are there, expected 2: a temporary file is left", files);
    gguf_close(g);
    report("round trip");
}

static void test_other_alignments() {
    for (uint32_t alignment : {8u, 64u, 4096u}) {
        GgufWriter w;
        gguf_put_int(w, "general.alignment", alignment);
        gguf_put_tensor(w, "a", GGML_F32, {3}, VALUES.data());
        gguf_put_tensor(w, "b", GGML_F32, {3}, VALUES.data());
        std::string path = folder + "/aligned.gguf";
        gguf_write(w, path);
        Gguf g = gguf_open(path);
        const uint8_t *a = g.tensors[0].data, *b = g.tensors[1].data;
        check((uint64_t)(a - g.file.data) % alignment == 0 &&
              b - a == (alignment == 8 ? 16 : (int)alignment) &&
              memcmp(b, VALUES.data(), 12) == 0, "alignment %u", alignment);
        gguf_close(g);
    }
    report("other alignments");
}

// ---- numbers of 16 bits -------------------------------------------------------------------------

// What a number of 16 bits means, from its definition: a sign, then an exponent, then a fraction of
// this many bits.
static double meaning(int bits, int fraction_bits) {
    int one = 1 << fraction_bits, fraction = bits & (one - 1);
    int exponent = (bits & 0x7fff) >> fraction_bits, most = 0x7fff >> fraction_bits;
    int last = -most / 2 - fraction_bits;   // the fraction's last bit counts 2^(exponent + last)
    double magnitude = exponent == 0     ? ldexp(fraction, 1 + last)
                       : exponent < most ? ldexp(one + fraction, exponent + last)
                       : fraction        ? NAN : INFINITY;
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void test_16_bits(const char* name, float (*widen)(uint16_t), int fraction_bits) {
    int wrong = 0;
    for (int bits = 0; bits < 65536; bits++) {
        float f = widen((uint16_t)bits);
        double want = meaning(bits, fraction_bits);
        wrong += want != want ? f == f : f != want || std::signbit(f) != (bits >= 0x8000);
    }
    check(wrong == 0, "%s: %d of 65536 are wrong", name, wrong);
    report(name);
}

// ---- strings that may hold anything -------------------------------------------------------------

static void test_strings() {
    const char* cases[][2] = {
        {"a \xc3\xa9 \xe4\xb8\x96 \xf0\x9f\xa6\x99", "a \xc3\xa9 \xe4\xb8\x96 \xf0\x9f\xa6\x99"},
        {"\x1b[2J\n\r\x7f", "\\x1b[2J\\x0a\\x0d\\x7f"},
        {"\xc2\x9b" "31m \xc2\x80\xc2\x9f\xc2\xa0", "\\xc2\\x9b31m \\xc2\\x80\\xc2\\x9f\xc2\xa0"},
        {"\x9b\xff\xc3", "\\x9b\\xff\\xc3"},                         // not UTF-8
        {"\xed\xa0\x80\xf4\x90\x80\x80", "\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80"},
        {"\xc0\x9b\xe0\x82\x9b", "\\xc0\\x9b\\xe0\\x82\\x9b"},      // U+009B, longer than needed
        {"\xe2\x80\xa9|\xe2\x80\xaa\xe2\x80\xae|\xe2\x80\xaf",       // direction of writing
         "\xe2\x80\xa9|\\xe2\\x80\\xaa\\xe2\\x80\\xae|\xe2\x80\xaf"},
        {"\xe2\x81\xa5|\xe2\x81\xa6\xe2\x81\xa9|\xe2\x81\xaa",
         "\xe2\x81\xa5|\\xe2\\x81\\xa6\\xe2\\x81\\xa9|\xe2\x81\xaa"}};
    for (auto& c : cases)
        check(gguf_printable(c[0], 100) == c[1], "printable: \"%s\", expected \"%s\"",
              gguf_printable(c[0], 100).c_str(), c[1]);
    check(gguf_printable("ab\xe4\xb8\x96" "d", 3) == "ab\xe4\xb8\x96...", "cut between characters");

    size_t length;
    for (std::string cut : {"\xc3", "\xe4\xb8", "\xf0\x9f\xa6"})
        check(utf8_character(cut, 0, &length) == UTF8_CUT && length == 1, "cut: \"%s\"",
              gguf_printable(cut, 9).c_str());
    check(utf8_character("\xe0\x80", 0, &length) == UTF8_WRONG, "wrong before it is cut");
    check(utf8_character("x\xf0\x9f\xa6\x99", 1, &length) == 0x1f999 && length == 4, "U+1F999");
    report("strings");
}

// Looking through all names for each would take a minute.
static void test_many_names() {
    const int MANY = 100000;
    std::string keys, infos;
    for (int i = 0; i < MANY; i++) {
        keys += str("key" + std::to_string(i)) + u32(GGUF_U32) + u32((uint32_t)i);
        infos += info("tensor" + std::to_string(i), {8}, 0, 32 * (uint64_t)i);
    }
    std::string bytes = header(MANY, MANY) + keys + infos;
    bytes.resize(gguf_pad(bytes.size(), 32) + 32 * (size_t)MANY);
    Gguf g = gguf_open(write_bytes("many.gguf", bytes));
    std::clock_t start = std::clock();
    int wrong = 0;
    for (int i = 0; i < MANY; i++) {
        wrong += gguf_int(g, "key" + std::to_string(i)) != (uint64_t)i;
        wrong += gguf_tensor(g, "tensor" + std::to_string(i)) != &g.tensors[i];
    }
    double seconds = (double)(std::clock() - start) / CLOCKS_PER_SEC;
    check(wrong == 0, "%d of %d names were not found", wrong, MANY);
    check(seconds < 10, "%d names were looked up in %.1f s", MANY, seconds);
    gguf_close(g);
    report("many names");
}

// ---- files that are wrong in one place ----------------------------------------------------------

static void test_wrong_files() {
    const uint64_t FAR = 1ull << 62;
    std::string key = str("k") + u32(GGUF_U32) + u32(1);
    // A file of one key k; of a key general.alignment; of one tensor; of two.
    auto value = [](uint32_t type, const std::string& bytes) {
        return header(0, 1) + str("k") + u32(type) + bytes;
    };
    auto alignment = [](uint32_t type, const std::string& bytes) {
        return header(0, 1) + str("general.alignment") + u32(type) + bytes;
    };
    auto one = [](const std::string& infos) { return with_data(header(1, 0) + infos); };
    auto two = [](const std::string& infos) { return with_data(header(2, 0) + infos); };
    struct {
        const char* what;
        std::string bytes, word;
    } cases[] = {
        {"another format", "GGML0000000000000000000000", "not a GGUF"},
        {"shorter than the magic", "GG", "copied completely"},
        {"big endian", header(0, 0, 0x03000000), "big-endian"},
        {"version 1", header(0, 0, 1), "version 1"},
        {"version 4", header(0, 0, 4), "version 4"},
        {"2^62 keys", header(0, FAR) + key, "key 1 of 4611686018427387904"},
        {"2^62 tensors", header(FAR, 0), "tensor 0 of 4611686018427387904"},
        {"a 2^62-byte name", header(0, 1) + u64(FAR) + "k", "name of 4611686018427387904 bytes"},
        {"a key without a name", header(0, 1) + str("") + u32(4) + u32(1), "name of 0 bytes"},
        {"an escape", header(0, 1) + str("k\x1b[2J") + u32(4) + u32(1), "control character"},
        {"an escape of C1", header(0, 1) + str("k\xc2\x9b") + u32(4) + u32(1), "\\xc2\\x9b"},
        {"no UTF-8", one(info("t\xff", {8}, 0, 0)), "\\xff"},
        {"a key twice", header(0, 2) + key + key, "appears twice"},
        {"type 13", value(13, u64(0)), "type 13"},
        {"array of arrays", value(9, u32(9) + u64(0)), "array of arrays"},
        {"2^62 u64s", value(9, u32(10) + u64(FAR)), "4611686018427387904 values"},
        {"2^61+1 u64s", value(9, u32(10) + u64((FAR >> 1) + 1) + u64(0)), "values"},
        {"2^62 strings", value(9, u32(8) + u64(FAR)), "4611686018427387904 values"},
        {"a string of 2^64-1", value(8, u64(~0ull)), "18446744073709551615 bytes"},
        {"a string past the end", value(9, u32(8) + u64(2) + str("a") + u64(9)), "needs 9 bytes"},
        {"a bool of 2", value(7, "\x02"), "a bool of 2"},
        {"alignment 24", alignment(4, u32(24)), "power of two"},
        {"alignment 0", alignment(4, u32(0)), "power of two"},
        {"alignment 4", alignment(4, u32(4)), "power of two"},
        {"alignment of text", alignment(8, str("x")), "an integer"},
        {"a name of 64 bytes", one(info(std::string(64, 'a'), {8}, 0, 0)), "1 to 63"},
        {"no dimensions", one(info("t", {}, 0, 0)), "0 dimensions"},
        {"5 dimensions", one(info("t", {1, 1, 1, 1, 1}, 0, 0)), "5 dimensions"},
        {"a dimension of 0", one(info("t", {8, 0}, 0, 0)), "dimension 1 is 0"},
        {"a product past 2^64", one(info("t", {1ull << 32, 1ull << 32}, 0, 0)), "overflow"},
        {"bytes past 2^64", one(info("t", {FAR + 8}, 0, 0)), "more than can be counted"},
        {"more than the file", one(info("t", {17}, 0, 0)), "needs 68 bytes"},
        {"a second too long", two(info("t", {8}, 0, 0) + info("u", {9}, 0, 32)), "needs 36 bytes"},
        {"type 4", one(info("t", {8}, 4, 0)), "unknown type 4"},
        {"half a block", one(info("t", {16}, 8, 0)), "multiple of 32"},
        {"offset 4", one(info("t", {8}, 0, 4)), "offset 4, expected 0"},
        {"overlapping", two(info("t", {8}, 0, 0) + info("u", {8}, 0, 0)), "expected 32"},
        {"offset 2^63", one(info("t", {8}, 0, 1ull << 63)), "offset"},
        {"a tensor twice", two(info("t", {8}, 0, 0) + info("t", {8}, 0, 32)), "twice"},
    };
    for (const auto& c : cases) check_refused(write_bytes("wrong.gguf", c.bytes), c.what, c.word);
    check_refused(folder + "/absent.gguf", "no such file", "No such file");
    check_refused(folder, "a folder", "is a folder, expected a regular file");
    check_refused(write_bytes("empty.gguf", ""), "an empty file", "empty");

    std::string good[] = {header(0, 0), header(0, 0, 2), header(0, 1) + key,
                          with_data(header(1, 0) + info("t", {8}, 0, 0)),
                          with_data(header(1, 0) + info("t", {64}, 24, 0))};
    for (const std::string& bytes : good) {
        std::string path = write_bytes("good.gguf", bytes);
        Outcome o = in_child([&] { read_everything(path); });
        check(o.code == 0, "a small correct file: exit code %d, %s", o.code, o.message.c_str());
    }
    report("wrong files");
}

// Asking for a key in the wrong way is an error that names file, key, what was found and expected.
static void test_wrong_keys() {
    std::string path = folder + "/a.gguf";
    gguf_write(every_kind(), path);
    struct {
        const char* what;
        std::function<void(const Gguf&)> ask;
        std::string message;
    } cases[] = {
        {"missing", [](auto& g) { gguf_int(g, "absent"); }, "absent: missing, expected an integer"},
        {"text", [](auto& g) { gguf_int(g, "a.string"); }, "of type string, expected an integer"},
        {"array", [](auto& g) { gguf_int(g, "ints"); }, "type array of i32, expected an integer"},
        {"value", [](auto& g) { gguf_ints(g, "an.int"); }, "key an.int: 4000000000 of type u32"},
        {"integer", [](auto& g) { gguf_float(g, "an.int"); }, "expected a f32 or f64"},
        {"no string", [](auto& g) { gguf_string(g, "an.int"); }, "expected a string"},
        {"no strings", [](auto& g) { gguf_strings(g, "ints"); }, "expected an array of strings"},
        {"below 0", [](auto& g) { gguf_int(g, "negative"); }, "-5 of type i32, expected 0 or more"},
    };
    std::string more = str("negative") + u32(GGUF_I32) + u32((uint32_t)-5);
    // The tensors' infos become unread bytes at the end.
    std::string bytes = header(0, 11) + more + read_bytes(path).substr(24);
    path = write_bytes("keys.gguf", bytes);
    Gguf g = gguf_open(path);
    for (const auto& c : cases) {
        Outcome o = in_child([&] { c.ask(g); });
        check(o.code == 1 && holds(o.message, path) && holds(o.message, c.message),
              "a wrong key (%s): exit code %d, %s", c.what, o.code, o.message.c_str());
    }
    gguf_close(g);

    path = write_bytes("q4.gguf", with_data(header(1, 0) + info("t", {32}, 2, 0)));
    g = gguf_open(path);
    float f;
    Outcome o = in_child([&] { gguf_to_float(&f, g, g.tensors[0], 0, 1); });
    check(o.code == 1 && holds(o.message, path + ": tensor t: type Q4_0"), "Q4_0: %d, %s", o.code,
          o.message.c_str());
    gguf_expect_only(g, {"s", "t"});
    o = in_child([&] { gguf_expect_only(g, {"s"}); });
    check(o.code == 1 && holds(o.message, path + ": tensor t: unexpected"), "a tensor too many: %s",
          o.message.c_str());
    gguf_close(g);
    report("wrong keys");
}

// ---- damage everywhere --------------------------------------------------------------------------

// Every truncation, and every byte changed in three ways.
static void test_damage() {
    gguf_write(every_kind(), folder + "/a.gguf");
    std::string good = read_bytes(folder + "/a.gguf");
    int cases = (int)good.size() * 4, refused = 0, opened = 0, bad = 0;
    for (int i = 0; i < cases; i++) {
        std::string bytes = good;
        int at = i / 4;
        if (i % 4 == 0) bytes.resize(at);
        else bytes[at] = (char)(bytes[at] ^ (i % 4 == 1 ? 1 : i % 4 == 2 ? 0x80 : 0xff));
        std::string path = write_bytes("damaged.gguf", bytes);
        Outcome o = in_child([&] { read_everything(path); });
        bool says = holds(o.message, path) && o.message.find("error: ") == 0;
        if (o.code == 0) opened++;
        else if (o.code == 1 && says) refused++;
        else if (bad++ < 10)
            printf("FAIL: case %d at byte %d: exit code %d, \"%s\"\n", i % 4, at, o.code,
                   o.message.c_str());
    }
    check(bad == 0, "%d of %d damaged files were neither read nor refused", bad, cases);
    check(refused > cases / 4 && opened > cases / 20,
          "%d refused, %d opened: is the damage done?", refused, opened);
    printf("%d damaged files: %d refused, %d read\n", cases, refused, opened);
}

int main(int argc, char** argv) {
    char name[] = "/tmp/test_gguf.XXXXXX";
    if (!mkdtemp(name)) fail("%s: cannot be made", name);
    folder = name;
    int code = run_tests(argc, argv,
                         {{"round_trip", test_round_trip},
                          {"other_alignments", test_other_alignments},
                          {"half", [] { test_16_bits("half", half_to_float, 10); }},
                          {"bfloat16", [] { test_16_bits("bfloat16", bfloat16_to_float, 7); }},
                          {"strings", test_strings},
                          {"wrong_files", test_wrong_files},
                          {"wrong_keys", test_wrong_keys},
                          {"damage", test_damage},
                          // last: a process that has used much memory forks slowly
                          {"many_names", test_many_names}});
    std::filesystem::remove_all(folder);
    return code;
}
