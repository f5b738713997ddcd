// test_dataloader.cpp - token shards, and the order of the windows, against a second, slower way
// to say the same: here each window is spelled out from DESIGN's formula, p = (s*B + r) * T,
// by plain loops over the shards.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>
#include "../dataloader.h"
#include "../sha256.h"
#include "check.h"

typedef std::vector<int> Ints;
typedef std::vector<Ints> Windows;   // rows: T inputs and the last target

static std::string folder;

// ---- making shards ------------------------------------------------------------------------------

static void write_bytes(const std::string& path, const std::vector<char>& bytes) {
    FILE* f = fopen(path.c_str(), "wb");
    bool written = f && (bytes.empty() || fwrite(bytes.data(), 1, bytes.size(), f) == bytes.size());
    if (!written || fclose(f) != 0)
        fail("%s: cannot be written", path.c_str());
}

static std::vector<char> shard_bytes(const Ints& tokens, int magic = 20240520, int version = 1,
                                     int claimed = -1) {
    std::vector<int32_t> header(256, 0);
    header[0] = magic;
    header[1] = version;
    header[2] = claimed == -1 ? (int)tokens.size() : claimed;
    std::vector<char> bytes(1024 + 2 * tokens.size());
    memcpy(bytes.data(), header.data(), 1024);
    for (size_t i = 0; i < tokens.size(); i++) {
        uint16_t token = (uint16_t)tokens[i];
        memcpy(&bytes[1024 + 2 * i], &token, 2);
    }
    return bytes;
}

// Tokens that tell where they came from: every one is used once, over all shards of a test.
static Ints count_up(int first, int n) {
    Ints tokens;
    for (int i = 0; i < n; i++) tokens.push_back(first + i);
    return tokens;
}

// Writes shards of these sizes to a folder of their own, and returns the pattern that names them.
static std::string make_shards(const char* name, const Ints& sizes, std::vector<Ints>& shards) {
    std::string path = folder + "/" + name;
    std::filesystem::create_directories(path);
    int first = 0;
    shards.clear();
    for (size_t i = 0; i < sizes.size(); i++) {
        shards.push_back(count_up(first, sizes[i]));
        first += sizes[i];
        write_bytes(path + text("/train_%03zu.bin", i),
                    shard_bytes(shards.back(), 20240520, 1, sizes[i]));
    }
    return path + "/train_*.bin";
}

// ---- the same order, said plainly ---------------------------------------------------------------

static Windows expected_windows(const std::vector<Ints>& shards, int B, int T) {
    Windows all;
    for (const Ints& tokens : shards)
        for (int s = 0; (s + 1) * B * T + 1 <= (int)tokens.size(); s++)
            for (int r = 0; r < B; r++) {
                int p = (s * B + r) * T;
                all.push_back(Ints(tokens.begin() + p, tokens.begin() + p + T + 1));
            }
    return all;
}

// Windows first to first + n - 1 of a run, read `part` rows at a time. Targets must be the inputs
// shifted by one.
static Windows read_windows(DataLoader& d, int64_t first, int64_t n, int part = 3) {
    Windows rows;
    Ints inputs(part * d.T), targets(part * d.T);
    bool shifted = true;
    for (int64_t i = 0; i < n; i += part) {
        int now = (int)std::min<int64_t>(part, n - i);
        read_rows(d, first + i, now, inputs.data(), targets.data());
        for (int r = 0; r < now; r++) {
            Ints row(inputs.begin() + r * d.T, inputs.begin() + (r + 1) * d.T);
            row.push_back(targets[(r + 1) * d.T - 1]);
            for (int t = 0; t + 1 < d.T; t++) shifted &= targets[r * d.T + t] == row[t + 1];
            rows.push_back(row);
        }
    }
    check(shifted, "T %d: targets are not the inputs shifted by one", d.T);
    return rows;
}

static Windows sorted(Windows rows) {
    std::sort(rows.begin(), rows.end());
    return rows;
}

static void close_loader(DataLoader& d) {
    for (TokenShard& s : d.shards) unmap_file(s.file);
}

// ---- sequential ---------------------------------------------------------------------------------

static void test_sequential() {
    struct Case { Ints sizes; int B, T; };
    const std::vector<Case> cases = {
        {{100, 57, 200}, 2, 8},    // tails of every shard are dropped
        {{33, 12, 65}, 4, 8},      // exactly one batch, none at all, exactly two
        {{64, 33}, 4, 8},          // one token short of two batches
        {{20}, 1, 1}, {{20}, 3, 1}, {{31, 31}, 1, 30}, {{0, 1, 9}, 1, 8}};
    std::vector<Ints> shards;
    for (size_t i = 0; i < cases.size(); i++) {
        const Case& c = cases[i];
        std::string pattern = make_shards(text("sequential%zu", i).c_str(), c.sizes, shards);
        Windows expected = expected_windows(shards, c.B, c.T);
        DataLoader d = open_loader("--train", pattern, c.B, c.T, false, 1);
        int64_t n = d.windows;
        check(n == (int64_t)expected.size(), "case %zu: %lld windows, expected %zu", i,
              (long long)n, expected.size());
        check(read_windows(d, 0, n) == expected, "case %zu: epoch 0 is not in order", i);
        check(read_windows(d, 5 * n, n, 7) == expected,
              "case %zu: after the last shard must come the first", i);
        for (int64_t first = 0; first < n; first += c.B) {
            Windows batch(expected.begin() + first, expected.begin() + first + c.B);
            check(read_windows(d, 3 * n + first, c.B) == batch, "case %zu: batch at %lld", i,
                  (long long)first);
        }
        close_loader(d);
    }
    report("sequential order");
}

// B*T + 1 tokens are one batch. B*T are none: then single windows are read, over the end of shards
// and of epochs.
static void test_boundary() {
    std::vector<Ints> shards;
    for (int B : {1, 3, 4})
        for (int T : {1, 7, 8}) {
            std::string pattern = make_shards("boundary", {B * T + 1}, shards);
            DataLoader d = open_loader("--train", pattern, B, T, false, 1);
            check(d.windows == B, "%d tokens: %lld windows, expected one batch of %d x %d",
                  B * T + 1, (long long)d.windows, B, T);
            check(read_windows(d, 0, B) == expected_windows(shards, B, T),
                  "%d x %d: the only batch", B, T);
            close_loader(d);
        }
    const int B = 4, T = 8;
    for (bool shuffled : {false, true}) {
        std::string pattern = make_shards("small", {B * T, T + 1, T, 2 * T + 3}, shards);
        DataLoader d = open_loader("--train", pattern, B, T, shuffled, 1);
        Windows single = expected_windows(shards, 1, T), all = read_windows(d, 0, 2 * d.windows);
        check(d.windows == (int64_t)single.size() && d.windows == 3 + 1 + 0 + 2,
              "%lld single windows, expected 6", (long long)d.windows);
        for (int64_t epoch : {0, 1}) {
            Windows one(all.begin() + epoch * d.windows, all.begin() + (epoch + 1) * d.windows);
            check(shuffled ? sorted(one) == sorted(single) : one == single, "epoch %d of them",
                  (int)epoch);
        }
        close_loader(d);
    }
    report("smallest shard");
}

// ---- shuffled -----------------------------------------------------------------------------------

static void test_shuffled() {
    const int B = 3, T = 8, EPOCHS = 4;
    std::vector<Ints> shards;
    std::string pattern = make_shards("shuffled", {500, 24, 25, 777}, shards);
    Windows same = expected_windows(shards, B, T);
    DataLoader d = open_loader("--train", pattern, B, T, true, 42);
    std::vector<Windows> epochs;
    const int64_t n = d.windows;
    for (int e = 0; e < EPOCHS; e++) epochs.push_back(read_windows(d, e * n, n));
    for (int e = 0; e < EPOCHS; e++) {
        check(sorted(epochs[e]) == sorted(same), "epoch %d is no permutation of the windows", e);
        check(epochs[e] != same, "epoch %d is not shuffled", e);
        for (int f = 0; f < e; f++)
            check(epochs[e] != epochs[f], "epochs %d and %d have one order", f, e);
    }
    // A function of (seed, window), whatever was read before, and however a batch is cut.
    DataLoader other = open_loader("--train", pattern, B, T, true, 42);
    for (int e : {3, 0, 2, 1, 1})
        for (int64_t at : {n - 1, (int64_t)0, n / 2}) {
            Windows want(epochs[e].begin() + at, epochs[e].end());
            for (int part : {1, 2, B})
                check(read_windows(other, e * n + at, n - at, part) == want,
                      "window %lld of epoch %d on, %d at a time", (long long)at, e, part);
        }
    // Some window must move far: a shuffle within shards, or of whole batches, is not enough.
    int torn = 0, wandered = 0;
    for (size_t i = 0; i < same.size(); i += B) {
        size_t from = std::find(same.begin(), same.end(), epochs[0][i]) - same.begin();
        size_t next = std::find(same.begin(), same.end(), epochs[0][i + 1]) - same.begin();
        torn += next != from + 1;
        wandered += (from < same.size() / 2) != (i < same.size() / 2);
    }
    int batches = (int)(same.size() / B);
    check(torn > batches / 2, "only %d of %d batches are of windows from different places", torn,
          batches);
    check(wandered > batches / 4, "only %d of %d batches start with a window of the other half",
          wandered, batches);
    for (uint64_t seed : {0, 1, 43}) {
        DataLoader e = open_loader("--train", pattern, B, T, true, seed);
        Windows rows = read_windows(e, 0, e.windows);
        check(rows != epochs[0] && rows != epochs[1], "seeds 42 and %d give one order", (int)seed);
        check(sorted(rows) == sorted(same), "seed %d: no permutation of the windows", (int)seed);
        close_loader(e);
    }
    close_loader(d);
    close_loader(other);
    report("shuffled order");
}

// ---- beyond 2^31 --------------------------------------------------------------------------------

// A shard of more than 2 GiB, of which only the last tokens take room on the disk; under two names,
// so that positions in all of the data pass 2^31 too.
static void test_large() {
    const int64_t COUNT = 1200000000;
    const int B = 4, T = 1024;
    std::string path = folder + "/large", first = path + "/train_000.bin";
    std::filesystem::create_directories(path);
    write_bytes(first, shard_bytes({}, 20240520, 1, (int)COUNT));
    int64_t batches = (COUNT - 1) / (B * T);
    int64_t last = (batches - 1) * B * T;   // where the last batch begins
    std::vector<uint16_t> tokens(B * T + 1);
    ssize_t bytes = 2 * (ssize_t)tokens.size();
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] = (uint16_t)(i + 7);
    int fd = open(first.c_str(), O_WRONLY);
    bool made = fd >= 0 && ftruncate(fd, 1024 + 2 * COUNT) == 0 &&
                pwrite(fd, tokens.data(), bytes, 1024 + 2 * last) == bytes;
    struct stat info = {};
    if (fd >= 0) {
        // Blocks of 512 bytes: is it really sparse?
        made = made && fstat(fd, &info) == 0 && info.st_blocks < 1 << 20;
        close(fd);
    }
    if (!made || link(first.c_str(), (path + "/train_001.bin").c_str()) != 0) {
        printf("SKIP: shards beyond 2 GiB: this file system has no sparse files of that size\n");
        std::filesystem::remove_all(path);
        return;
    }
    DataLoader d = open_loader("--train", path + "/train_*.bin", B, T, false, 1);
    check(d.windows == 2 * batches * B, "large: %lld windows, expected %lld", (long long)d.windows,
          (long long)(2 * batches * B));
    Ints inputs(B * T), targets(B * T);
    for (int64_t position : {batches - 1, 2 * batches - 1}) {
        read_rows(d, position * B, B, inputs.data(), targets.data());
        bool right = true;
        for (int i = 0; i < B * T; i++)
            right &= inputs[i] == tokens[i] && targets[i] == tokens[i + 1];
        check(right, "large: batch %lld of %lld: not the tokens at the end of its shard",
              (long long)position, (long long)(2 * batches));
    }
    close_loader(d);
    std::filesystem::remove_all(path);
    report("beyond 2 GiB");
}

// ---- sha256 and fingerprints --------------------------------------------------------------------

static std::string sha256_of(const std::string& bytes, size_t part) {
    Sha256 sum;
    for (size_t i = 0; i < bytes.size(); i += part)
        sha256_add(sum, &bytes[i], std::min(part, bytes.size() - i));
    return sha256_hex(sum);
}

static void test_fingerprints() {
    // FIPS 180-4's examples, and a length around each place where the padding needs another block.
    const struct { std::string bytes; const char* sha256; } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {std::string(1000000, 'a'),
         "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
        {std::string(55, 'a'), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {std::string(56, 'a'), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {std::string(63, 'a'), "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {std::string(64, 'a'), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"}};
    for (auto& c : cases)
        for (size_t part : {1, 3, 63, 64, 65, 1 << 20})
            check(sha256_of(c.bytes, part) == c.sha256, "sha256 of %zu bytes in parts of %zu: %s",
                  c.bytes.size(), part, sha256_of(c.bytes, part).c_str());
    std::vector<char> bytes = shard_bytes(count_up(0, 100));
    std::string path = folder + "/made.bin", hex;
    write_bytes(path, bytes);
    TokenShard unknown = open_shard(path);
    check(unknown.tokenizer == "", "a shard without a tokenizer's sha256 claims one");
    for (int i = 0; i < 32; i++) {
        bytes[12 + i] = (char)(7 * i);
        hex += text("%02x", 7 * i & 255);
    }
    write_bytes(path, bytes);
    TokenShard known = open_shard(path);
    check(known.tokenizer == hex, "a shard's tokenizer: %s", known.tokenizer.c_str());
    unmap_file(unknown.file);
    unmap_file(known.file);
    report("fingerprints");
}

// ---- errors -------------------------------------------------------------------------------------

static void test_errors() {
    std::string path = folder + "/bad.bin";
    Ints tokens = count_up(0, 100);
    auto bad = [&](const char* name, const std::vector<char>& bytes,
                   std::vector<std::string> words) {
        write_bytes(path, bytes);
        words.push_back(path);
        expect_error(name, words, [&] { open_loader("--train", path, 2, 8, false, 1); });
    };
    std::vector<char> good = shard_bytes(tokens), cut = good, longer = good, short_header = good;
    cut.resize(good.size() - 1);
    longer.push_back(0);
    short_header.resize(1023);
    bad("bad magic", shard_bytes(tokens, 20240521), {"20240521", "20240520"});
    bad("bad version", shard_bytes(tokens, 20240520, 2), {"version 2", "expected 1"});
    bad("cut off", cut, {"1223 bytes", "expected 1224"});
    bad("too long", longer, {"1225 bytes", "expected 1224"});
    bad("cut off in the header", short_header, {"1023 bytes"});
    bad("negative count", shard_bytes(tokens, 20240520, 1, -100), {"-100"});
    bad("most negative count", shard_bytes(tokens, 20240520, 1, INT32_MIN), {"-2147483648"});
    bad("count beyond the end", shard_bytes(tokens, 20240520, 1, INT32_MAX), {"2147483647"});
    bad("empty", {}, {"empty"});
    bad("no window: T tokens", shard_bytes(count_up(0, 8)), {"--train", "9 tokens"});
    bad("no window: no tokens", shard_bytes({}, 20240520, 1, 0), {"--train"});
    std::vector<Ints> shards;
    // Enough together, but windows never cross.
    std::string parts = make_shards("parts", {8, 8, 8}, shards);
    expect_error("no window: in three shards", {"--train", parts},
                 [&] { open_loader("--train", parts, 2, 8, false, 1); });
    std::string none = folder + "/none_*.bin";
    expect_error("no file", {"--val", none}, [&] { open_loader("--val", none, 2, 8, false, 1); });
    expect_error("a folder", {folder, "a folder", "regular file"},
                 [&] { open_loader("--val", folder, 2, 8, false, 1); });
    write_bytes(path, good);
    std::filesystem::create_directories(folder + "/second");
    write_bytes(folder + "/second/a.bin", good);
    write_bytes(folder + "/second/b.bin", cut);
    expect_error("the second of two", {"second/b.bin"},
                 [&] { open_loader("--train", folder + "/second/*", 2, 8, false, 1); });
    report("errors");
}

int main(int argc, char** argv) {
    const char* tmp = getenv("TMPDIR");
    folder = std::string(tmp ? tmp : "/tmp") + "/test_dataloader.XXXXXX";
    if (!mkdtemp(&folder[0])) fail("%s: cannot be created: %s", folder.c_str(), strerror(errno));
    int code = run_tests(argc, argv,
                         {{"sequential", test_sequential},
                          {"boundary", test_boundary},
                          {"shuffled", test_shuffled},
                          {"large", test_large},
                          {"fingerprints", test_fingerprints},
                          {"errors", test_errors}});
    std::filesystem::remove_all(folder);
    return code;
}
