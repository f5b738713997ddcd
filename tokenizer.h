// tokenizer.h - byte-level BPE, GPT-2's tokenizer: text to ids and back, from a GGUF's keys.
//
//     tokenizer_from_gguf()   the vocabulary and the merges, checked
//     next_word()             step 1: text is cut into words, by GPT-2's pattern
//     encode_word()           step 2: a word's bytes are merged, the earliest learned pair first
//     encode(), decode()      both steps over a text, and the way back
//
// The ids are exactly those of tiktoken and of llama.cpp for "gpt-2"; data/bpe.py learns such
// merges and explains why they help. Any bytes can be encoded, and decode() gives the same bytes
// back: a byte that is no part of valid UTF-8 counts as one character that is neither letter,
// number nor white space (llama.cpp, too, cuts it so, but then replaces it by U+FFFD, which loses
// it).
#pragma once
#include <algorithm>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>
#include "gguf.h"
#include "sha256.h"
#include "unicode_tables.h"

struct Merge {
    int rank;   // 0 was learned first
    int id;     // the token that it makes
};

struct Tokenizer {
    std::vector<std::string> tokens;             // the bytes of each id
    std::vector<int> control;                    // ids that no text spells, such as end-of-text
    int eot;                                     // end-of-text
    int byte_ids[256];                           // the token of each single byte
    std::unordered_map<uint64_t, Merge> merges;  // by merge_key(left id, right id)
};

inline uint64_t merge_key(int left, int right) { return (uint64_t)left << 32 | (uint32_t)right; }

// ---- characters ---------------------------------------------------------------------------------

// 'L' letter, 'N' number, 's' white space, 'o' other. The runs are spread out once, so that a
// look-up is one load: 1.1 MB.
inline char unicode_class(uint32_t character) {
    static const std::string classes = [] {
        std::string all;
        all.reserve(0x110000);
        for (const char* run = UNICODE_RUNS; *run;) {
            char* end;
            all.append(strtoul(run + 1, &end, 10), run[0]);
            run = end;
        }
        return all;
    }();
    return classes[character];
}

// The class of the character at text[at], whose length in bytes goes to *length. What is not valid
// UTF-8 (a stray or missing continuation, a form longer than needed, half of a surrogate pair, a
// number above U+10FFFF) is one byte long and 'o'.
inline char class_at(const std::string& text, size_t at, size_t* length) {
    const uint8_t* s = (const uint8_t*)text.data() + at;
    *length = 1;
    if (s[0] < 0x80) return unicode_class(s[0]);
    size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || n > text.size() - at) return 'o';
    uint32_t c = s[0] & (0x7F >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 'o';
        c = c << 6 | (s[i] & 0x3F);
    }
    const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < smallest[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 'o';
    *length = n;
    return unicode_class(c);
}

// ---- words --------------------------------------------------------------------------------------

// Where the word that begins at `at` ends. GPT-2's pattern, tried from left to right:
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline size_t next_word(const std::string& text, size_t at) {
    if (text[at] == '\'')
        for (const char* ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
            if (text.compare(at, strlen(ending), ending) == 0) return at + strlen(ending);

    // One class of characters, with the one space before them.
    size_t length, i = at;
    if (text[i] == ' ' && i + 1 < text.size() && class_at(text, i + 1, &length) != 's') i++;
    char wanted = class_at(text, i, &length);
    if (wanted != 's') {
        while (i < text.size() && class_at(text, i, &length) == wanted) i += length;
        return i;
    }

    // White space: all of it at the end of the text; before a word all but the last character,
    // which the word may take along; and that last one, if it is all there is.
    size_t last = at;
    while (i < text.size() && class_at(text, i, &length) == 's') {
        last = i;
        i += length;
    }
    return i == text.size() || last == at ? i : last;
}

// ---- merges -------------------------------------------------------------------------------------

struct MergeCandidate {
    int rank;
    size_t at;         // position of the left token
    int left, right;   // the ids when it was found; if they have changed since, it is out of date
    int id;
};

// The top of a std::priority_queue is its largest: the lowest rank, and of equal ones the leftmost.
inline bool operator<(const MergeCandidate& a, const MergeCandidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

// Appends the ids of one word. A queue of candidates and a linked list of tokens make this n log n
// for n bytes: going over the word again for each merge would be n^2, and a megabyte without a
// space is a word.
inline void encode_word(std::vector<int>& out, const Tokenizer& t, const char* word, size_t n) {
    const size_t none = (size_t)-1;
    std::vector<int> ids(n);                       // -1: was merged into a token on its left
    std::vector<size_t> next(n), previous(n);      // the neighbours that are still there
    for (size_t i = 0; i < n; i++) {
        ids[i] = t.byte_ids[(uint8_t)word[i]];
        next[i] = i + 1;
        previous[i] = i == 0 ? none : i - 1;
    }
    std::priority_queue<MergeCandidate> queue;
    auto consider = [&](size_t i) {
        if (i == none || next[i] == n) return;
        auto found = t.merges.find(merge_key(ids[i], ids[next[i]]));
        if (found == t.merges.end()) return;
        queue.push({found->second.rank, i, ids[i], ids[next[i]], found->second.id});
    };
    for (size_t i = 0; i < n; i++) consider(i);
    while (!queue.empty()) {
        MergeCandidate c = queue.top();
        queue.pop();
        size_t right = next[c.at];
        if (ids[c.at] != c.left || right == n || ids[right] != c.right) continue;
        ids[c.at] = c.id;
        ids[right] = -1;
        next[c.at] = next[right];
        if (next[right] != n) previous[next[right]] = c.at;
        consider(previous[c.at]);
        consider(c.at);
    }
    for (int id : ids)
        if (id >= 0) out.push_back(id);
}

// ---- text ---------------------------------------------------------------------------------------

inline void encode_plain(std::vector<int>& out, const Tokenizer& t, const std::string& text) {
    for (size_t at = 0; at < text.size();) {
        size_t end = next_word(text, at);
        encode_word(out, t, text.data() + at, end - at);
        at = end;
    }
}

// The ids of a text. With `special`, control tokens that are spelled out in it, such as
// <|endoftext|>, become their ids; without, they are bytes like any others, so a stranger's text
// cannot forge them.
inline std::vector<int> encode(const Tokenizer& t, const std::string& text, bool special = false) {
    std::vector<int> out;
    if (!special) {
        encode_plain(out, t, text);
        return out;
    }
    std::vector<size_t> found(t.control.size(), 0);   // where each control token occurs next
    bool fresh = true;
    for (size_t at = 0;; fresh = false) {
        size_t first = std::string::npos, which = 0;
        for (size_t i = 0; i < t.control.size(); i++) {
            const std::string& token = t.tokens[t.control[i]];
            if (fresh || (found[i] != std::string::npos && found[i] < at))
                found[i] = text.find(token, at);
            bool longer = found[i] == first && first != std::string::npos &&
                          token.size() > t.tokens[t.control[which]].size();
            if (found[i] < first || longer) first = found[i], which = i;
        }
        if (first == std::string::npos) {
            encode_plain(out, t, text.substr(at));
            return out;
        }
        encode_plain(out, t, text.substr(at, first - at));
        out.push_back(t.control[which]);
        at = first + t.tokens[t.control[which]].size();
    }
}

inline const std::string& token_bytes(const Tokenizer& t, int id) {
    if (id < 0 || (size_t)id >= t.tokens.size())
        fail("token id %d: expected 0 to %zu, the vocabulary's last", id, t.tokens.size() - 1);
    return t.tokens[id];
}

inline std::string decode(const Tokenizer& t, const std::vector<int>& ids) {
    std::string out;
    for (int id : ids) out += token_bytes(t, id);
    return out;
}

// ---- from a GGUF --------------------------------------------------------------------------------
// There, tokens are text in which each byte stands as one visible character: those that are
// visible in Latin-1 as themselves, the other 68 as U+0100, U+0101, ... in order. A space, byte
// 32, is written "Ġ".

inline bool byte_is_visible(int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

inline std::string utf8(uint32_t c) {   // for c < 0x800
    if (c < 0x80) return std::string(1, (char)c);
    return {(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))};
}

// {visible character in UTF-8: the byte it stands for}
inline std::unordered_map<std::string, uint8_t> visible_bytes() {
    std::unordered_map<std::string, uint8_t> bytes;
    uint32_t hidden = 0x100;
    for (int b = 0; b < 256; b++) bytes[utf8(byte_is_visible(b) ? b : hidden++)] = (uint8_t)b;
    return bytes;
}

// The bytes that a visible token stands for; a token with any other character stands for itself.
inline std::string token_from_visible(const std::unordered_map<std::string, uint8_t>& bytes,
                                      const std::string& visible) {
    std::string out;
    for (size_t i = 0; i < visible.size();) {
        size_t n = (uint8_t)visible[i] < 0x80 ? 1 : 2;
        auto found = bytes.find(visible.substr(i, n));
        if (found == bytes.end()) return visible;
        out += (char)found->second;
        i += n;
    }
    return out;
}

inline bool tokenizer_present(const Gguf& g) { return gguf_key(g, "tokenizer.ggml.tokens"); }

// What tells two tokenizers apart: the sha256 of the values of .tokens and .merges, as they stand
// in a GGUF. data/bpe.py computes the same, for the file's key and for each token shard's header.
inline std::string tokenizer_sha256(const Gguf& g) {
    const char* key = "tokenizer.legible.sha256";
    Sha256 sum;
    for (const char* name : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
        const GgufKey& k = gguf_need(g, name, true, "an array of strings");
        sha256_add(sum, k.data, k.bytes);
    }
    std::string found = sha256_hex(sum), said = gguf_string_or(g, key, found);
    if (said != found)
        fail("%s: key %s: \"%s\", but tokens and merges have %s (were they changed afterwards?)",
             g.file.path.c_str(), key, gguf_printable(said, 64).c_str(), found.c_str());
    return found;
}

// The merges "left right", the earliest learned first. What a merge makes must be a token. A part
// that is no token can never arise, since the bytes and all that merges make are tokens: such a
// merge is dead. A vocabulary of single bytes holds one, because llama.cpp wants at least one
// merge.
inline void read_merges(Tokenizer& t, const Gguf& g,
                        const std::unordered_map<std::string, int>& ids) {
    std::vector<std::string> merges = gguf_strings(g, "tokenizer.ggml.merges");
    for (size_t rank = 0; rank < merges.size(); rank++) {
        const std::string& merge = merges[rank];
        size_t space = merge.find(' ');
        std::string left = merge.substr(0, space);
        std::string right = space == std::string::npos ? "" : merge.substr(space + 1);
        auto whole = ids.find(left + right);
        if (whole == ids.end())
            fail("%s: key tokenizer.ggml.merges: merge %zu, \"%s\", makes no token of the"
                 " vocabulary", g.file.path.c_str(), rank, gguf_printable(merge, 40).c_str());
        auto l = ids.find(left), r = ids.find(right);
        if (l == ids.end() || r == ids.end()) continue;
        t.merges.emplace(merge_key(l->second, r->second), Merge{(int)rank, whole->second});
    }
}

inline Tokenizer tokenizer_from_gguf(const Gguf& g) {
    const char* path = g.file.path.c_str();
    std::string model = gguf_string(g, "tokenizer.ggml.model");
    if (model != "gpt2")
        fail("%s: key tokenizer.ggml.model: \"%s\", expected \"gpt2\"", path, model.c_str());
    std::string pre = gguf_string_or(g, "tokenizer.ggml.pre", "gpt-2");
    if (pre != "gpt-2")
        fail("%s: key tokenizer.ggml.pre: \"%s\", expected \"gpt-2\" (another way to cut words)",
             path, pre.c_str());

    std::vector<std::string> visible = gguf_strings(g, "tokenizer.ggml.tokens");
    std::vector<int64_t> types(visible.size(), 1);   // 1 is spelled in bytes, the rest as it is
    if (gguf_key(g, "tokenizer.ggml.token_type")) types = gguf_ints(g, "tokenizer.ggml.token_type");
    uint64_t eot = gguf_int(g, "tokenizer.ggml.eos_token_id");
    if (types.size() != visible.size())
        fail("%s: key tokenizer.ggml.token_type: %zu values, expected %zu, one a token", path,
             types.size(), visible.size());
    if (eot >= visible.size())
        fail("%s: key tokenizer.ggml.eos_token_id: %llu, expected less than %zu, the number of"
             " tokens", path, (unsigned long long)eot, visible.size());

    Tokenizer t;
    t.eot = (int)eot;
    std::fill(t.byte_ids, t.byte_ids + 256, -1);
    std::unordered_map<std::string, int> ids;
    std::unordered_map<std::string, uint8_t> bytes = visible_bytes();
    for (size_t id = 0; id < visible.size(); id++) {
        if (!ids.emplace(visible[id], (int)id).second)
            fail("%s: key tokenizer.ggml.tokens: \"%s\" appears twice, the second time as id %zu",
                 path, gguf_printable(visible[id], 40).c_str(), id);
        bool control = types[id] == 3 || id == eot;
        bool spelled = types[id] == 1 && !control;
        t.tokens.push_back(spelled ? token_from_visible(bytes, visible[id]) : visible[id]);
        if (control && !visible[id].empty()) t.control.push_back((int)id);
        auto byte = bytes.find(visible[id]);
        if (spelled && byte != bytes.end()) t.byte_ids[byte->second] = (int)id;
    }
    for (int b = 0; b < 256; b++)
        if (t.byte_ids[b] < 0)
            fail("%s: key tokenizer.ggml.tokens: no token for byte %d, expected all 256 (is it a"
                 " byte-level BPE?)", path, b);
    read_merges(t, g, ids);
    return t;
}
