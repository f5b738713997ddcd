// dataloader.h - token shards, and the order in which a run reads them.
//
// A shard is llm.c's: 256 int32 (magic 20240520, version 1, token count, zeros), then uint16
// tokens. A row of a batch is a window of T + 1 tokens: T inputs, and the same shifted by one as
// targets. Windows of a shard lie T apart and share their end token with the next; B of them make
// a batch; what is left of the shard once no batch of B*T + 1 tokens fits is dropped:
//
//     row r of batch s of a shard reads tokens p .. p+T,  p = (s*B + r) * T
//
// Sequential order takes batch after batch, shard after shard. Shuffled order permutes
// the same windows, anew in each epoch, by a seed: what a run reads is a function of
// (seed, epoch, position) and nothing else.
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
};

struct DataLoader {
    std::vector<TokenShard> shards;
    int B, T;
    bool shuffled;
    uint64_t seed;
    int vocabulary = 65536;       // tokens that the model knows: no other may come
    int64_t batches;              // in an epoch
    int64_t epoch, position;      // the next batch: epochs done, and batches of this one done
    std::vector<int64_t> order;   // this epoch's windows, when shuffled
};

inline TokenShard open_shard(const std::string& path) {
    const int HEADER = 256, MAGIC = 20240520, VERSION = 1;
    TokenShard s;
    s.file = map_file(path);
    const char* name = path.c_str();
    if (s.file.size < HEADER * 4)
        fail("%s: %llu bytes, shorter than a token shard's header of %d", name,
             (unsigned long long)s.file.size, HEADER * 4);
    int32_t header[3];
    memcpy(header, s.file.data, sizeof header);
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

inline int64_t windows_in(const TokenShard& s, int B, int T) {
    return s.count < 1 ? 0 : (s.count - 1) / ((int64_t)B * T) * B;
}

// Fisher and Yates's shuffle (Knuth, The Art of Computer Programming, 3.4.2, algorithm P).
inline void shuffle_windows(DataLoader& d) {
    Rng rng = make_rng(d.seed, RNG_ORDER, (uint64_t)d.epoch);
    d.order.resize(d.batches * d.B);
    for (size_t i = 0; i < d.order.size(); i++) d.order[i] = (int64_t)i;
    for (size_t i = d.order.size(); i > 1; i--)
        std::swap(d.order[i - 1], d.order[random_below(rng, i)]);
}

// Sets the next batch. Errors: a position past the epoch's end.
inline void loader_seek(DataLoader& d, int64_t epoch, int64_t position) {
    if (epoch < 0 || position < 0 || position >= d.batches)
        fail("data: batch %lld of epoch %lld, but an epoch has %lld batches (was the run's data "
             "changed?)", (long long)position, (long long)epoch, (long long)d.batches);
    d.epoch = epoch;
    d.position = position;
    if (d.shuffled) shuffle_windows(d);
}

// The shards that a glob pattern names, in the order of their names. flag: its name in errors.
inline DataLoader open_loader(const char* flag, const std::string& pattern, int B, int T,
                              bool shuffled, uint64_t seed) {
    DataLoader d;
    d.B = B;
    d.T = T;
    d.shuffled = shuffled;
    d.seed = seed;
    glob_t found;
    if (glob(pattern.c_str(), 0, nullptr, &found) != 0)
        fail("%s %s: no such file (data/prepare.py makes token shards)", flag, pattern.c_str());
    int64_t windows = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        TokenShard s = open_shard(found.gl_pathv[i]);
        s.first_window = windows;
        windows += windows_in(s, B, T);
        d.shards.push_back(s);
    }
    globfree(&found);
    d.batches = windows / B;
    if (d.batches == 0)
        fail("%s %s: no shard has the %lld tokens of one batch of %d x %d (lower --batch or --seq)",
             flag, pattern.c_str(), (long long)B * T + 1, B, T);
    loader_seek(d, 0, 0);
    return d;
}

// The next batch, inputs and targets (B, T).
inline void next_batch(DataLoader& d, int* inputs, int* targets) {
    for (int r = 0; r < d.B; r++) {
        int64_t window = d.position * d.B + r;
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
    bool last = d.position + 1 == d.batches;
    if (last) loader_seek(d, d.epoch + 1, 0);
    else d.position++;
}
