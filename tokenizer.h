// tokenizer.h - byte-level BPE, the tokenizer of GPT-2 and of Llama 3: text to ids and back, from a
// GGUF's keys.
//
//     tokenizer_from_gguf()   the vocabulary and the merges, checked
//     next_word()             step 1: text is cut into words, by the pattern of the model's family
//     encode_word()           step 2: a word's bytes are merged, the earliest learned pair first
//     encode(), decode()      both steps over a text, and the way back
//     encode_documents()      a text file's documents, as data/prepare.py makes tokens of them
//
// The ids are exactly those of tiktoken and of llama.cpp; data/bpe.py learns such merges and
// explains why they help. Any bytes can be encoded, and decode() gives the same bytes back: a byte
// that is no part of valid UTF-8 counts as one character that is neither letter, number nor white
// space (llama.cpp, too, cuts it so, but then replaces it by U+FFFD, which loses it). The one
// exception is a vocabulary without tokens for some bytes, such as SmolLM2's, which has none for
// 21 that its makers' text never held: there they are left out, as llama.cpp does.
#pragma once
#include <algorithm>
#include <array>
#include <queue>
#include <string>
#include <string_view>
#include <vector>
#include <sys/random.h>
#include "gguf.h"
#include "sha256.h"
#include "unicode_tables.h"

struct Merge {
    int left, right;   // ids
    int id;            // the token that it makes
};

enum Cut { CUT_GPT2, CUT_SMOLLM, CUT_LLAMA3 };

// The tokenizers that are known, by the file's key tokenizer.ggml.pre, and how they differ.
struct TokenizerKind {
    const char* pre;
    Cut cut;           // how text is cut into words
    bool whole_words;  // a word that is a token is that token, whatever the merges would make of it
    bool all_bytes;    // the vocabulary has a token for each byte
    bool bos;          // a text begins with bos_token_id, unless add_bos_token says no
};

inline const TokenizerKind TOKENIZER_KINDS[] = {
    {"gpt-2", CUT_GPT2, false, true, true},
    {"smollm", CUT_SMOLLM, false, false, false},
    {"llama-bpe", CUT_LLAMA3, true, true, true}};

struct Tokenizer {
    TokenizerKind kind = TOKENIZER_KINDS[0];
    std::vector<std::string> tokens;             // the bytes of each id
    // Tokens that are found whole in a text, before it is cut into words; sorted by their bytes.
    std::vector<int> user_defined;               // in every text
    std::vector<int> special;                    // these, and control tokens such as end-of-text
    int eot = -1;                                // end-of-text, or what else the file calls "eos"
    int begin = -1;                              // a text begins with it; -1: with none
    std::vector<int> ends;                       // each ends a text: eot, and a turn's end
    int byte_ids[256];                           // the token of each single byte; -1: none
    std::vector<Merge> merges;                   // the earliest learned first; ranks are indices
    std::vector<int> merge_at;                   // a hash table of them by their pair
    std::vector<int> word_at;                    // with whole_words: one of normal tokens by bytes
};

// ---- hash tables --------------------------------------------------------------------------------
//
// A vocabulary has 100,000 names to look up before the first token can be made; trees take ten
// times as long. But whoever makes a file that is to be slow could choose names that all collide
// under a hash he knows. So both hashes depend on numbers that are drawn anew in each run: for any
// choice of names, long chains are then improbable. Only the time taken depends on the draw.

inline uint64_t hash_key(int which) {
    static const std::array<uint64_t, 3> keys = [] {
        std::array<uint64_t, 3> drawn;
        if (getentropy(drawn.data(), sizeof drawn) != 0)
            fail("getentropy: no random numbers: %s", strerror(errno));
        return drawn;
    }();
    return keys[which];
}

// The string is a polynomial's coefficients; the hash is its value modulo 2^61 - 1 at a random
// point. Two strings of n bytes agree in at most n of the 2^61 points (Carter and Wegman 1979).
inline uint64_t hash_string(std::string_view s) {
    const uint64_t P = (1ull << 61) - 1, point = hash_key(0) & P;
    uint64_t h = 0;
    for (uint8_t byte : s) {
        unsigned __int128 product = (unsigned __int128)(h + byte + 1) * point;
        h = (uint64_t)(product & P) + (uint64_t)(product >> 61);   // the same, modulo P
        h = h >= P ? h - P : h;
    }
    return h;
}

// The upper bits of a sum of products with random factors (Dietzfelbinger 1996).
inline uint64_t hash_pair(int left, int right) {
    return (hash_key(1) * (uint32_t)left + hash_key(2) * (uint32_t)right) >> 32;
}

// Room for n entries: each slot holds an entry's index, or -1. At least half remain free.
inline std::vector<int> hash_table(size_t n) {
    size_t slots = 2;
    while (slots < 2 * n) slots *= 2;
    return std::vector<int>(slots, -1);
}

// The slot that holds the entry with this hash for which same() is true, or the free one where it
// would be.
template <class Same>
size_t find_slot(const std::vector<int>& slots, uint64_t hash, Same same) {
    size_t i = hash & (slots.size() - 1);
    while (slots[i] >= 0 && !same(slots[i])) i = (i + 1) & (slots.size() - 1);
    return i;
}

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

// The class of the character at text[at], whose length in bytes goes to *length; '-' at the end. A
// byte that is no part of valid UTF-8 is 'o'. Whether U+FEFF is white space depends on the
// tokenizer: make_unicode_tables.py says why.
inline char class_at(const std::string& text, size_t at, size_t* length, bool bom_is_space = true) {
    *length = 0;
    if (at >= text.size()) return '-';
    int c = utf8_character(text, at, length);
    return c < 0 || (c == 0xFEFF && !bom_is_space) ? 'o' : unicode_class(c);
}

// ---- words --------------------------------------------------------------------------------------

// The length of the English ending at text[at], as in it's and we'll; 0: none. Of the letters that
// are like these but for their case, one is not ASCII: U+017F, the long s. Patterns with (?i:)
// match it; llama.cpp's form of Llama 3's does not, and this follows the pattern.
inline size_t ending_at(const std::string& text, size_t at, bool any_case) {
    if (text[at] != '\'') return 0;
    if (any_case && text.compare(at + 1, 2, "\xC5\xBF") == 0) return 3;
    for (const char* ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
        size_t n = strlen(ending), i = 1;
        auto fold = [&](char c) { return any_case && c >= 'A' && c <= 'Z' ? c + 32 : c; };
        while (i < n && at + i < text.size() && fold(text[at + i]) == ending[i]) i++;
        if (i == n) return n;
    }
    return 0;
}

// Where white space that begins at `at` is cut. At the end of the text all of it is a word; before
// a word all but its last character, which the word may take along; and that last one, if it is
// all there is. In SmolLM's pattern, numbers take nothing along, so before one it stays whole.
inline size_t cut_space(const std::string& text, size_t at, Cut cut) {
    size_t i = at, last = at, length;
    char next;
    while ((next = class_at(text, i, &length, cut == CUT_GPT2)) == 's') {
        last = i;
        i += length;
    }
    bool whole = next == '-' || (cut == CUT_SMOLLM && next == 'N') || last == at;
    return whole ? i : last;
}

// GPT-2's pattern, tried from left to right:
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// SmolLM makes each \p{N} a word of its own first, and then cuts what lies between them so.
inline size_t next_word_gpt2(const std::string& text, size_t at, Cut cut) {
    size_t ending = ending_at(text, at, false), length;
    if (ending) return at + ending;
    auto class_of = [&](size_t i) { return class_at(text, i, &length, cut == CUT_GPT2); };

    // One class of characters, with the one space before them.
    char first = class_of(at);
    if (cut == CUT_SMOLLM && first == 'N') return at + length;
    char wanted = text[at] == ' ' ? class_of(at + 1) : first;
    if (wanted == 's' || wanted == '-' || (cut == CUT_SMOLLM && wanted == 'N'))
        return cut_space(text, at, cut);
    size_t i = at + (text[at] == ' ');
    while (class_of(i) == wanted) i += length;
    return i;
}

// Llama 3's pattern, tried from left to right:
//     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
//     |\s*[\r\n]+|\s+(?!\S)|\s+
inline size_t next_word_llama3(const std::string& text, size_t at) {
    size_t ending = ending_at(text, at, true), length;
    if (ending) return at + ending;
    auto class_of = [&](size_t i) { return class_at(text, i, &length, false); };
    // At the end of the text stands a NUL.
    auto is_break = [&](size_t i) { return text[i] == '\r' || text[i] == '\n'; };

    // Letters, with whatever one character stands before them.
    char first = class_of(at);
    size_t i = at + (first == 'L' || first == 'N' || is_break(at) ? 0 : length);
    if (class_of(i) == 'L') {
        while (class_of(i) == 'L') i += length;
        return i;
    }
    i = at;
    if (first == 'N') {
        for (int n = 0; n < 3 && class_of(i) == 'N'; n++) i += length;
        return i;
    }
    // Other characters, with a space before them and the line breaks after them.
    if (text[i] == ' ') i++;
    if (class_of(i) == 'o') {
        while (class_of(i) == 'o') i += length;
        while (is_break(i)) i++;
        return i;
    }
    // White space up to its last line break.
    size_t after_break = at;
    for (i = at; class_of(i) == 's'; i += length)
        if (is_break(i)) after_break = i + 1;
    return after_break > at ? after_break : cut_space(text, at, CUT_LLAMA3);
}

// Where the word that begins at `at` ends.
inline size_t next_word(const std::string& text, size_t at, Cut cut) {
    return cut == CUT_LLAMA3 ? next_word_llama3(text, at) : next_word_gpt2(text, at, cut);
}

// ---- merges -------------------------------------------------------------------------------------

// After `merges` is complete: the table by which find_merge() finds them. Of two merges of one pair
// the first counts.
inline void index_merges(Tokenizer& t) {
    t.merge_at = hash_table(t.merges.size());
    for (size_t rank = 0; rank < t.merges.size(); rank++) {
        const Merge& m = t.merges[rank];
        size_t slot = find_slot(t.merge_at, hash_pair(m.left, m.right), [&](int other) {
            return t.merges[other].left == m.left && t.merges[other].right == m.right;
        });
        if (t.merge_at[slot] < 0) t.merge_at[slot] = (int)rank;
    }
}

// The rank of the merge that makes one token of two; -1: nothing does.
inline int find_merge(const Tokenizer& t, int left, int right) {
    return t.merge_at[find_slot(t.merge_at, hash_pair(left, right), [&](int rank) {
        return t.merges[rank].left == left && t.merges[rank].right == right;
    })];
}

// The token that a word is as a whole; -1: none.
inline int find_word(const Tokenizer& t, std::string_view word) {
    return t.word_at[find_slot(t.word_at, hash_string(word),
                               [&](int id) { return t.tokens[id] == word; })];
}

// Out of date once the ids at `at` and after it are no longer those that its merge is of.
struct MergeCandidate {
    int rank;
    size_t at;         // position of the left token
};

// The top of a std::priority_queue is its largest: the lowest rank, and of equal ones the leftmost.
inline bool operator<(const MergeCandidate& a, const MergeCandidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

// Appends the ids of one word. A queue of candidates and a linked list of tokens make this n log n
// for n bytes: going over the word again for each merge would be n^2, and a megabyte without a
// space is a word.
inline void encode_word(std::vector<int>& out, const Tokenizer& t, const char* word, size_t n) {
    if (t.kind.whole_words) {
        int id = find_word(t, std::string_view(word, n));
        if (id >= 0) return out.push_back(id);
    }
    const size_t none = (size_t)-1;
    std::vector<int> ids(n);     // -1: was merged into a token on its left, or there never was one
    std::vector<size_t> next(n), previous(n);      // the neighbours that are still there
    for (size_t i = 0; i < n; i++) {
        ids[i] = t.byte_ids[(uint8_t)word[i]];
        next[i] = i + 1;
        previous[i] = i == 0 ? none : i - 1;
    }
    std::priority_queue<MergeCandidate> queue;
    auto consider = [&](size_t i) {
        if (i == none || next[i] == n) return;
        int rank = find_merge(t, ids[i], ids[next[i]]);
        if (rank >= 0) queue.push({rank, i});
    };
    for (size_t i = 0; i < n; i++) consider(i);
    while (!queue.empty()) {
        MergeCandidate c = queue.top();
        queue.pop();
        const Merge& merge = t.merges[c.rank];
        size_t right = next[c.at];
        if (ids[c.at] != merge.left || right == n || ids[right] != merge.right) continue;
        ids[c.at] = merge.id;
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
        size_t end = next_word(text, at, t.kind.cut);
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

// The ids of a text that a model is to continue.
inline std::vector<int> encode_prompt(const Tokenizer& t, const std::string& text) {
    std::vector<int> ids = encode(t, text);
    if (t.begin >= 0) ids.insert(ids.begin(), t.begin);
    return ids;
}

inline bool is_end(const Tokenizer& t, int id) {
    return std::find(t.ends.begin(), t.ends.end(), id) != t.ends.end();
}

// Appends a document, after the token with which a text begins. One of nothing but white space is
// none.
inline void encode_document(std::vector<int>& out, const Tokenizer& t, const std::string& text) {
    size_t at = 0, length;
    while (at < text.size() && class_at(text, at, &length) == 's') at += length;
    if (at == text.size()) return;
    std::vector<int> ids = encode_prompt(t, text);
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

// The byte that each character stands for; -1: none.
inline const std::array<int, 0x144>& visible_bytes() {
    static const std::array<int, 0x144> bytes = [] {
        std::array<int, 0x144> all;
        all.fill(-1);
        for (int b = 0, hidden = 0x100; b < 256; b++) all[byte_is_visible(b) ? b : hidden++] = b;
        return all;
    }();
    return bytes;
}

// The bytes that a visible token stands for. False where it has any other character.
inline bool token_from_visible(std::string& out, std::string_view visible) {
    const std::array<int, 0x144>& bytes = visible_bytes();
    out.clear();
    for (size_t i = 0; i < visible.size(); i++) {
        uint32_t c = (uint8_t)visible[i];
        if (c >= 0x80) {   // two bytes of UTF-8, 110xxxxx 10xxxxxx, or it is none of ours
            if (c < 0xC2 || c > 0xC5 || i + 1 == visible.size() || (visible[i + 1] & 0xC0) != 0x80)
                return false;
            c = (c & 0x1F) << 6 | (visible[++i] & 0x3F);
        }
        if (c >= bytes.size() || bytes[c] < 0) return false;
        out += (char)bytes[c];
    }
    return true;
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

// The tokens as the file spells them, in its own memory, and their ids.
struct Vocabulary {
    std::vector<std::string_view> visible;
    std::vector<int> id_at;      // a hash table
    std::vector<char> spelled;   // whether it is bytes that text makes
};

inline size_t vocabulary_slot(const Vocabulary& v, std::string_view visible) {
    return find_slot(v.id_at, hash_string(visible),
                     [&](int id) { return v.visible[id] == visible; });
}

// -1: there is no such token.
inline int find_id(const Vocabulary& v, std::string_view visible) {
    return v.id_at[vocabulary_slot(v, visible)];
}

inline Vocabulary read_vocabulary(const Gguf& g) {
    Vocabulary v;
    v.visible = gguf_views(g, "tokenizer.ggml.tokens");
    if (v.visible.size() > 1 << 24)
        fail("%s: key tokenizer.ggml.tokens: %zu tokens, expected at most %d", g.file.path.c_str(),
             v.visible.size(), 1 << 24);
    v.id_at = hash_table(v.visible.size());
    for (size_t id = 0; id < v.visible.size(); id++) {
        size_t slot = vocabulary_slot(v, v.visible[id]);
        if (v.id_at[slot] >= 0)
            fail("%s: key tokenizer.ggml.tokens: \"%s\" appears twice, the second time as id %zu",
                 g.file.path.c_str(), gguf_printable(std::string(v.visible[id]), 40).c_str(), id);
        v.id_at[slot] = (int)id;
    }
    return v;
}

// The merges "left right", the earliest learned first. What a merge makes must be a token. A part
// that is none, or that is not spelled in bytes, can never arise, since the bytes and all that
// merges make are such tokens: the merge is dead. A vocabulary of single bytes holds one, because
// llama.cpp wants at least one merge.
inline void read_merges(Tokenizer& t, const Gguf& g, const Vocabulary& v) {
    std::vector<std::string_view> merges = gguf_views(g, "tokenizer.ggml.merges");
    t.merges.reserve(merges.size());
    std::string whole;
    size_t next = 0;
    for (size_t rank = 0; rank < merges.size(); rank++) {
        std::string_view merge = merges[rank];
        size_t space = std::min(merge.find(' '), merge.size());
        std::string_view left = merge.substr(0, space);
        std::string_view right = merge.substr(std::min(space + 1, merge.size()));
        whole.assign(left).append(right);
        // Tokens were mostly numbered as they were learned, so the next one is tried first.
        bool found = next < v.visible.size() && v.visible[next] == whole;
        int id = found ? (int)next : find_id(v, whole);
        next = (size_t)id + 1;
        if (id < 0)
            fail("%s: key tokenizer.ggml.merges: merge %zu, \"%s\", makes no token of the"
                 " vocabulary", g.file.path.c_str(), rank,
                 gguf_printable(std::string(merge), 40).c_str());
        int l = find_id(v, left), r = find_id(v, right);
        if (l < 0 || r < 0 || !v.spelled[l] || !v.spelled[r]) continue;
        if (!v.spelled[id])   // or a stranger's text could make end-of-text
            fail("%s: key tokenizer.ggml.merges: merge %zu, \"%s\", makes token %d, which"
                 " token_type says is none that text makes", g.file.path.c_str(), rank,
                 gguf_printable(std::string(merge), 40).c_str(), id);
        t.merges.push_back({l, r, id});
    }
    index_merges(t);
}

inline TokenizerKind tokenizer_kind(const Gguf& g) {
    const char* path = g.file.path.c_str();
    std::string model = gguf_string(g, "tokenizer.ggml.model");
    if (model != "gpt2")
        fail("%s: key tokenizer.ggml.model: \"%s\", expected \"gpt2\" (byte-level BPE)", path,
             gguf_printable(model, 60).c_str());
    std::string pre = gguf_string_or(g, "tokenizer.ggml.pre", "gpt-2"), known;
    for (const TokenizerKind& kind : TOKENIZER_KINDS) {
        if (pre == kind.pre) return kind;
        known += (known.empty() ? "" : ", ") + std::string(kind.pre);
    }
    fail("%s: key tokenizer.ggml.pre: \"%s\", expected one of %s (each cuts words in its own way)",
         path, gguf_printable(pre, 60).c_str(), known.c_str());
}

// The token that a key names; -1: there is no such key.
inline int token_of_key(const Gguf& g, const char* key, size_t tokens) {
    if (!gguf_key(g, key)) return -1;
    uint64_t id = gguf_int(g, key);
    if (id >= tokens)
        fail("%s: key %s: %" PRIu64 ", expected less than %zu, the number of tokens",
             g.file.path.c_str(), key, id, tokens);
    return (int)id;
}

// Fills in the tokens with which a text begins and ends. Files for "gpt-2" are this project's own,
// in which end-of-text precedes every text, whatever add_bos_token says.
inline void read_ends(Tokenizer& t, const Gguf& g, size_t tokens) {
    const char* add_bos = "tokenizer.ggml.add_bos_token";
    gguf_int(g, "tokenizer.ggml.eos_token_id");   // must be there
    t.eot = token_of_key(g, "tokenizer.ggml.eos_token_id", tokens);
    int turn = token_of_key(g, "tokenizer.ggml.eot_token_id", tokens);
    t.ends = {t.eot};
    if (turn >= 0 && turn != t.eot) t.ends.push_back(turn);
    if (t.kind.cut == CUT_GPT2) t.begin = t.eot;
    else if (gguf_bool_or(g, add_bos, t.kind.bos)) {
        t.begin = token_of_key(g, "tokenizer.ggml.bos_token_id", tokens);
        if (t.begin < 0)
            fail("%s: key tokenizer.ggml.bos_token_id: missing, though texts begin with it (key"
                 " add_bos_token)", g.file.path.c_str());
    }
}

// Fills in what each token is, v.spelled too.
inline void read_tokens(Tokenizer& t, const Gguf& g, Vocabulary& v) {
    const char* path = g.file.path.c_str();
    size_t n = v.visible.size();
    std::vector<int64_t> types(n, NORMAL_TOKEN);
    if (gguf_key(g, "tokenizer.ggml.token_type")) types = gguf_ints(g, "tokenizer.ggml.token_type");
    if (types.size() != n)
        fail("%s: key tokenizer.ggml.token_type: %zu values, expected %zu, one a token", path,
             types.size(), n);
    std::fill(t.byte_ids, t.byte_ids + 256, -1);
    if (t.kind.whole_words) t.word_at = hash_table(n);
    t.tokens.resize(n);
    for (int id = 0; id < (int)n; id++) {
        std::string& bytes = t.tokens[id];
        bool control = types[id] == CONTROL_TOKEN || id == t.eot;
        bool user_defined = types[id] == USER_DEFINED_TOKEN && !control;
        bool spelled = types[id] == NORMAL_TOKEN && !control &&
                       token_from_visible(bytes, v.visible[id]);
        v.spelled.push_back(spelled);
        if (!spelled) bytes = v.visible[id];
        if (bytes.empty()) continue;
        if (user_defined) t.user_defined.push_back(id);
        if (user_defined || control) t.special.push_back(id);
        if (spelled && bytes.size() == 1) t.byte_ids[(uint8_t)bytes[0]] = id;
        if (spelled && t.kind.whole_words)
            t.word_at[find_slot(t.word_at, hash_string(bytes), [](int) { return false; })] = id;
    }
    for (int b = 0; b < 256 && t.kind.all_bytes; b++)
        if (t.byte_ids[b] < 0)
            fail("%s: key tokenizer.ggml.tokens: no token for byte %d, expected all 256 (is it a"
                 " byte-level BPE?)", path, b);
    auto by_bytes = [&](int a, int b) { return t.tokens[a] < t.tokens[b]; };
    std::sort(t.user_defined.begin(), t.user_defined.end(), by_bytes);
    std::sort(t.special.begin(), t.special.end(), by_bytes);
}

inline Tokenizer tokenizer_from_gguf(const Gguf& g) {
    Tokenizer t;
    t.kind = tokenizer_kind(g);
    Vocabulary v = read_vocabulary(g);
    read_ends(t, g, v.visible.size());
    read_tokens(t, g, v);
    read_merges(t, g, v);
    return t;
}
