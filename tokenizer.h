// tokenizer.h - byte-level BPE, GPT-2's tokenizer: text to ids and back, from a GGUF's keys.
//
//     tokenizer_from_gguf()   the vocabulary and the merges, checked
//     next_word()             step 1: text is cut into words, by GPT-2's pattern
//     encode_word()           step 2: a word's bytes are merged, the earliest learned pair first
//     encode(), decode()      both steps over a text, and the way back
//     encode_documents()      a text file's documents, as data/prepare.py makes tokens of them
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
#include <tuple>
#include <unordered_map>
#include <vector>
#include "gguf.h"
#include "sha256.h"
#include "unicode_tables.h"

struct Merge {
    int left, right;   // ids
    int rank;          // 0 was learned first
    int id;            // the token that it makes
};

struct Tokenizer {
    std::vector<std::string> tokens;             // the bytes of each id
    // Tokens that are found whole in a text, before it is cut into words; sorted by their bytes.
    std::vector<int> user_defined;               // in every text
    std::vector<int> special;                    // these, and control tokens such as end-of-text
    int eot;                                     // end-of-text
    int byte_ids[256];                           // the token of each single byte
    std::vector<Merge> merges;                   // sorted by the pair, then by rank
};

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

// The class of the character at text[at], whose length in bytes goes to *length. A byte that is no
// part of valid UTF-8 is 'o'.
inline char class_at(const std::string& text, size_t at, size_t* length) {
    int c = utf8_character(text, at, length);
    return c < 0 ? 'o' : unicode_class(c);
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

// The order of Tokenizer.merges. A hash table would be a tenth faster, but the file's maker could
// choose pairs that all collide in it.
inline bool pair_is_less(const Merge& a, const Merge& b) {
    return std::tie(a.left, a.right, a.rank) < std::tie(b.left, b.right, b.rank);
}

// What makes one token of two; null if nothing does.
inline const Merge* find_merge(const Tokenizer& t, int left, int right) {
    Merge first = {left, right, 0, 0};
    auto found = std::lower_bound(t.merges.begin(), t.merges.end(), first, pair_is_less);
    bool same = found != t.merges.end() && found->left == left && found->right == right;
    return same ? &*found : nullptr;
}

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
        const Merge* merge = find_merge(t, ids[i], ids[next[i]]);
        if (merge) queue.push({merge->rank, i, merge->left, merge->right, merge->id});
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

// The longest of `ids`, which are sorted by their bytes, with which text[at...] begins; -1: none.
// Those that begin alike are neighbours, so each further byte narrows the range from both sides.
inline int longest_at(const Tokenizer& t, const std::vector<int>& ids, const std::string& text,
                      size_t at) {
    int longest = -1;
    auto first = ids.begin(), last = ids.end();
    for (size_t n = 0; first != last && at + n < text.size(); n++) {   // all are longer than n
        auto byte = [&](int id) { return (uint8_t)t.tokens[id][n]; };
        uint8_t next = (uint8_t)text[at + n];
        first = std::partition_point(first, last, [&](int id) { return byte(id) < next; });
        last = std::partition_point(first, last, [&](int id) { return byte(id) == next; });
        if (first != last && t.tokens[*first].size() == n + 1) longest = *first++;
    }
    return longest;
}

// The ids of a text. With `special`, control tokens that are spelled out in it, such as
// <|endoftext|>, become their ids; without, they are bytes like any others, so a stranger's text
// cannot forge them. Tokens that the vocabulary's maker has defined are found in both cases.
inline std::vector<int> encode(const Tokenizer& t, const std::string& text, bool special = false) {
    const std::vector<int>& whole = special ? t.special : t.user_defined;
    std::vector<int> out;
    size_t start = 0;   // of what is not encoded yet
    for (size_t at = 0; at < text.size() && !whole.empty();) {
        int id = longest_at(t, whole, text, at);
        if (id < 0) {
            at++;
            continue;
        }
        encode_plain(out, t, text.substr(start, at - start));
        out.push_back(id);
        start = at += t.tokens[id].size();
    }
    encode_plain(out, t, text.substr(start));
    return out;
}

// Appends a document, after end-of-text. One of nothing but white space is none.
inline void encode_document(std::vector<int>& out, const Tokenizer& t, const std::string& text) {
    size_t at = 0, length;
    while (at < text.size() && class_at(text, at, &length) == 's') at += length;
    if (at == text.size()) return;
    out.push_back(t.eot);
    std::vector<int> ids = encode(t, text);
    out.insert(out.end(), ids.begin(), ids.end());
}

// The ids of a text file, by the rule of data/prepare.py: lines that read <|endoftext|> separate
// its documents and belong to none, and a byte order mark at its start is dropped.
inline std::vector<int> encode_documents(const Tokenizer& t, const std::string& text) {
    std::vector<int> out;
    size_t start = text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? 3 : 0, next;   // of the document
    for (size_t at = start; at < text.size(); at = next) {   // line by line
        size_t end = std::min(text.find('\n', at), text.size());
        next = std::min(end + 1, text.size());
        if (end > at && text[end - 1] == '\r') end--;
        if (text.compare(at, end - at, "<|endoftext|>") != 0) continue;
        encode_document(out, t, text.substr(start, at - start));
        start = next;
    }
    encode_document(out, t, text.substr(start));
    return out;
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

// Prints what is complete in `pending` and keeps the rest: a character may span several tokens.
// A byte that belongs to no character, which a model is free to produce, is shown as U+FFFD. On a
// terminal, so is what it would obey: a text could otherwise move the cursor or set the title.
inline void print_utf8(std::string& pending, bool last) {
    static const bool terminal = isatty(STDOUT_FILENO);
    std::string out;
    size_t at = 0;
    for (size_t length; at < pending.size(); at += length) {
        int c = utf8_character(pending, at, &length);
        if (c == UTF8_CUT && !last) break;
        if (c < 0) out += "\xef\xbf\xbd";
        else if (!terminal || c == '\n' || c == '\t') out.append(pending, at, length);
        else out += gguf_printable(pending.substr(at, length), length);
    }
    pending.erase(0, at);
    fwrite(out.data(), 1, out.size(), stdout);
    fflush(stdout);
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

// What tokenizer.ggml.token_type says of each token. A normal one is spelled in visible bytes, all
// others are written as they are; of these, no text makes those of other types.
enum { NORMAL_TOKEN = 1, CONTROL_TOKEN = 3, USER_DEFINED_TOKEN = 4 };

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
                        const std::map<std::string, int>& ids) {
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
        t.merges.push_back({l->second, r->second, (int)rank, whole->second});
    }
    std::sort(t.merges.begin(), t.merges.end(), pair_is_less);
}

inline Tokenizer tokenizer_from_gguf(const Gguf& g) {
    const char* path = g.file.path.c_str();
    std::string model = gguf_string(g, "tokenizer.ggml.model");
    if (model != "gpt2")
        fail("%s: key tokenizer.ggml.model: \"%s\", expected \"gpt2\"", path,
             gguf_printable(model, 60).c_str());
    std::string pre = gguf_string_or(g, "tokenizer.ggml.pre", "gpt-2");
    if (pre != "gpt-2")
        fail("%s: key tokenizer.ggml.pre: \"%s\", expected \"gpt-2\" (another way to cut words)",
             path, gguf_printable(pre, 60).c_str());

    std::vector<std::string> visible = gguf_strings(g, "tokenizer.ggml.tokens");
    std::vector<int64_t> types(visible.size(), NORMAL_TOKEN);
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
    std::map<std::string, int> ids;
    std::unordered_map<std::string, uint8_t> bytes = visible_bytes();
    for (size_t id = 0; id < visible.size(); id++) {
        if (!ids.emplace(visible[id], (int)id).second)
            fail("%s: key tokenizer.ggml.tokens: \"%s\" appears twice, the second time as id %zu",
                 path, gguf_printable(visible[id], 40).c_str(), id);
        bool control = types[id] == CONTROL_TOKEN || id == eot;
        bool user_defined = types[id] == USER_DEFINED_TOKEN && !control;
        bool spelled = types[id] == NORMAL_TOKEN && !control;
        t.tokens.push_back(spelled ? token_from_visible(bytes, visible[id]) : visible[id]);
        if (visible[id].empty()) continue;
        if (user_defined) t.user_defined.push_back((int)id);
        if (user_defined || control) t.special.push_back((int)id);
        auto byte = bytes.find(visible[id]);
        if (spelled && byte != bytes.end()) t.byte_ids[byte->second] = (int)id;
    }
    for (int b = 0; b < 256; b++)
        if (t.byte_ids[b] < 0)
            fail("%s: key tokenizer.ggml.tokens: no token for byte %d, expected all 256 (is it a"
                 " byte-level BPE?)", path, b);
    auto by_bytes = [&](int a, int b) { return t.tokens[a] < t.tokens[b]; };
    std::sort(t.user_defined.begin(), t.user_defined.end(), by_bytes);
    std::sort(t.special.begin(), t.special.end(), by_bytes);
    read_merges(t, g, ids);
    return t;
}
