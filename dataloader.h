// dataloader.h - token shards, and the order in which a run reads them.
//
// A shard is llm.c's: 256 int32 (magic 20240520, version 1, token count, 8 words of our own,
// zeros), then uint16 tokens. The 8 words, which llm.c leaves 0, are the sha256 of the tokenizer
// that made it (tokenizer_sha256 in tokenizer.h); all 0 means that it is not known.
//
// A row is a window of T + 1 tokens: T inputs, and the same shifted by one as targets. Windows of a
// shard lie T apart and share their end token with the next; B of them make the batch of a step;
// what is left of the shard once no batch of B*T + 1 tokens fits is dropped:
//
//     row r of batch s of a shard reads tokens p .. p+T,  p = (s*B + r) * T
//
// (Where no shard holds a batch, batches are made of single windows, over the ends of shards and
// epochs.) Sequential order takes window after window, shard after shard; shuffled order permutes
// the same windows, anew in each epoch, by a seed. A run's windows are numbered through all its
// epochs, and step s reads those from s*B to s*B + B - 1: what a run reads is a function of the
// seed and the step, and however gradient accumulation cuts a batch, its rows are the same.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>
#include <glob.h>
#include "files.h"
#include "numerics.h"

struct TokenShard {
    MappedFile file;
    const uint16_t* tokens;
    int64_t count;            // tokens
    int64_t first_window;     // windows of the shards before this one
    std::string tokenizer;    // the sha256 of its tokenizer in 64 hexadecimal digits; "": unknown
};

struct DataLoader {
    std::vector<TokenShard> shards;
    int T;
    bool shuffled;
    uint64_t seed;
    int vocabulary = 65536;       // tokens that the model knows: no other may come
    int64_t windows;              // in an epoch
    int64_t ordered = -1;         // when shuffled, the epoch
    std::vector<int64_t> order;   //     whose order this is
};

inline TokenShard open_shard(const std::string& path) {
    const int HEADER = 256, MAGIC = 20240520, VERSION = 1;
    TokenShard s;
    s.file = map_file(path);
    const char* name = path.c_str();
    // prepare.py's own note: complete files are on their way from there into this folder.
    if (access((parent_folder(path) + "/.prepare.tmp/manifest.json").c_str(), F_OK) == 0)
        fail("%s: data/prepare.py was stopped while it replaced the files of this folder: old and "
             "new ones are mixed (any prepare.py --out %s finishes that)", name,
             parent_folder(path).c_str());
    if (s.file.size < HEADER * 4)
        fail("%s: %llu bytes, shorter than a token shard's header of %d", name,
             (unsigned long long)s.file.size, HEADER * 4);
    int32_t header[3];
    memcpy(header, s.file.data, sizeof header);
    const uint8_t* sha256 = s.file.data + sizeof header;
    for (int i = 0; i < 32; i++) s.tokenizer += text("%02x", sha256[i]);
    if (s.tokenizer == std::string(64, '0')) s.tokenizer = "";
    if (header[0] != MAGIC)
        fail("%s: magic number %d, expected %d (is this a token shard? data/prepare.py makes them)",
             name, header[0], MAGIC);
    if (header[1] != VERSION) fail("%s: version %d, expected %d", name, header[1], VERSION);
    s.count = header[2];
    uint64_t expected = HEADER * 4 + 2 * (uint64_t)s.count;
    if (header[2] < 0 || s.file.size != expected)
        fail("%s: %llu bytes, expected %llu for the %d tokens of its header (cut off?)", name,
             (unsigned long long)s.file.size, (unsigned long long)expected, header[2]);
    s.tokens = (const uint16_t*)(s.file.data + HEADER * 4);
    return s;
}

inline int64_t windows_in(const TokenShard& s, int64_t B, int T) {
    return s.count < 1 ? 0 : (s.count - 1) / (B * T) * B;
}

// Fisher and Yates's shuffle (Knuth, The Art of Computer Programming, 3.4.2, algorithm P).
inline void shuffle_windows(DataLoader& d, int64_t epoch) {
    Rng rng = make_rng(d.seed, RNG_ORDER, (uint64_t)epoch);
    d.ordered = epoch;
    d.order.resize(d.windows);
    for (size_t i = 0; i < d.order.size(); i++) d.order[i] = (int64_t)i;
    for (size_t i = d.order.size(); i > 1; i--)
        std::swap(d.order[i - 1], d.order[random_below(rng, i)]);
}

// The shards that a glob pattern names, in the order of their names, for batches of B rows of T
// tokens. flag: its name in errors.
inline DataLoader open_loader(const char* flag, const std::string& pattern, int64_t B, int T,
                              bool shuffled, uint64_t seed) {
    DataLoader d;
    d.T = T;
    d.shuffled = shuffled;
    d.seed = seed;
    glob_t found;
    if (glob(pattern.c_str(), 0, nullptr, &found) != 0)
        fail("%s %s: no such file (data/prepare.py makes token shards)", flag, pattern.c_str());
    std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
    bool whole = false;
    for (const std::string& path : paths) {
        d.shards.push_back(open_shard(path));
        whole = whole || windows_in(d.shards.back(), B, T) > 0;
    }
    d.windows = 0;
    for (TokenShard& s : d.shards) {
        s.first_window = d.windows;
        d.windows += windows_in(s, whole ? B : 1, T);
    }
    if (d.windows == 0)
        fail("%s %s: no shard has the %d tokens of one window (lower --seq)", flag, pattern.c_str(),
             T + 1);
    return d;
}

// Windows first to first + rows - 1 of the run, as inputs and targets (rows, T).
inline void read_rows(DataLoader& d, int64_t first, int rows, int* inputs, int* targets) {
    for (int r = 0; r < rows; r++) {
        int64_t epoch = (first + r) / d.windows, window = (first + r) % d.windows;
        if (d.shuffled && d.ordered != epoch) shuffle_windows(d, epoch);
        if (d.shuffled) window = d.order[window];
        auto after = [](int64_t w, const TokenShard& s) { return w < s.first_window; };
        auto next = std::upper_bound(d.shards.begin(), d.shards.end(), window, after);
        const TokenShard& s = *(next - 1);
        const uint16_t* p = s.tokens + (window - s.first_window) * d.T;
        for (int t = 0; t <= d.T; t++)
            if (p[t] >= d.vocabulary)
                fail("%s: token %lld is %d, expected 0 to %d (was the shard made with another "
                     "tokenizer?)", s.file.path.c_str(), (long long)(p + t - s.tokens), p[t],
                     d.vocabulary - 1);
        for (int t = 0; t < d.T; t++) {
            inputs[r * d.T + t] = p[t];
            targets[r * d.T + t] = p[t + 1];
        }
    }
}
