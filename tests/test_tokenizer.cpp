// test_tokenizer.cpp - tokenizer.h: cuts and merges that can be checked by hand, tiktoken's ids for
// hard texts, bytes that are no UTF-8, a word of a megabyte, control tokens; and, where they lie
// beside the repository, GPT-2's own vocabulary with llama.cpp's and tiktoken's vectors.
//
// What tokenizer.h refuses is tested by test_data.py, which holds Python and C++ to the same files.
#include <chrono>
#include <ctime>
#include <sys/stat.h>
#include "check.h"
#include "../chat.h"
#include "../tokenizer.h"

static std::string folder_of_shared() {
    const char* given = getenv("LEGIBLE_SHARED");
    return given ? given : "../shared";
}

static std::string join(const std::vector<int>& ids) {
    std::string out;
    for (int id : ids) out += (out.empty() ? "" : " ") + std::to_string(id);
    return out;
}

static void check_ids(const char* what, const std::string& text, const std::vector<int>& got,
                      const std::vector<int>& want) {
    check(got == want, "%s: \"%s\": ids %s, expected %s", what, gguf_printable(text, 60).c_str(),
          join(got).c_str(), join(want).c_str());
}

// ---- by hand ------------------------------------------------------------------------------------

// Words, joined by |.
static std::string cut(const std::string& text, Cut how) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
        size_t end = next_word(text, at, how);
        out += (at ? "|" : "") + text.substr(at, end - at);
        at = end;
    }
    return out;
}

static void check_cuts(Cut how, const char* const (*cases)[2], size_t n) {
    for (size_t i = 0; i < n; i++) {
        std::string got = cut(cases[i][0], how);
        check(got == cases[i][1], "words of \"%s\": \"%s\", expected \"%s\"", cases[i][0],
              got.c_str(), cases[i][1]);
    }
}

static void test_words() {
    const char* cases[][2] = {
        {"", ""},
        {"it's 42!", "it|'s| 42|!"},
        {"I'LL we'll they'd've", "I|'|LL| we|'ll| they|'d|'ve"},   // endings are lower case only
        {" 's ''s", " '|s| ''|s"},           // a space or a quote takes the next quote along
        {"abc123 x1", "abc|123| x|1"},
        {"a  b", "a| | b"},                  // all but the last space, which goes with b
        {"a \nb", "a| |\n|b"},               // a line break is no space to take along
        {"a  ", "a|  "},                     // at the end of the text white space stays together
        {"\n\n\nx", "\n\n|\n|x"},
        {"a\t b", "a|\t| b"},
        {"hi...\n", "hi|...|\n"},
        {"x\xC2\xA0y", "x|\xC2\xA0|y"},      // U+00A0 is white space, but not a space to take along
        {"\x1C\x1D", "\x1C\x1D"},            // U+001C is white space to Python, not to Unicode
        {"\xC2\x85z", "\xC2\x85|z"},         // U+0085 is white space
        {"e\xCC\x81t", "e|\xCC\x81|t"},      // a combining accent is no letter
        {"\xC3\xA9t\xC3\xA9", "\xC3\xA9t\xC3\xA9"},
        {"\xD9\xA1\xD9\xA2 \xE2\x85\xA7\xC2\xBD", "\xD9\xA1\xD9\xA2| \xE2\x85\xA7\xC2\xBD"},
        {"\xE4\xBD\xA0\xE5\xA5\xBD\xE3\x80\x82", "\xE4\xBD\xA0\xE5\xA5\xBD|\xE3\x80\x82"},
        {"\xF0\x9D\x95\x8F\xF0\x9F\xA6\x99", "\xF0\x9D\x95\x8F|\xF0\x9F\xA6\x99"},
        {"a\xFFz", "a|\xFF|z"},              // an invalid byte is neither letter, number nor space
        {"a\xC3 \xE4\xBD!", "a|\xC3| \xE4\xBD!"},
    };
    check_cuts(CUT_GPT2, cases, std::size(cases));
}

// The differences from GPT-2's pattern.
static void test_words_smollm() {
    const char* cases[][2] = {
        {"abc123 x1", "abc|1|2|3| x|1"},
        {"a 1  2", "a| |1|  |2"},            // a number takes no space along, and keeps none off
        {"  1 a", "  |1| a"},
        {"1's 2 '", "1|'s| |2| '"},
        {"\xD9\xA1\xD9\xA2\xC2\xBD", "\xD9\xA1|\xD9\xA2|\xC2\xBD"},
        {" \n1", " \n|1"},
        {"I'LL we'll  b ", "I|'|LL| we|'ll| | b| "},
        {"!\xEF\xBB\xBF! \xEF\xBB\xBF", "!\xEF\xBB\xBF!| \xEF\xBB\xBF"},   // U+FEFF is other
        {" \xFF 1", " \xFF| |1"},
    };
    check_cuts(CUT_SMOLLM, cases, std::size(cases));
}

static void test_words_llama3() {
    const char* cases[][2] = {
        {"it's I'LL we'Ve", "it|'s| I|'LL| we|'Ve"},   // endings in any case
        {"'\xC5\xBF", "'\xC5\xBF"},          // U+017F, the long s, is an s of another case
        {"'\xC5\xBFx 'so", "'\xC5\xBF|x| '|so"},
        {"'xy ('x)", "'xy| ('|x|)"},         // letters take any one character along, ...
        {"\tab \xC2\xA0z\xFFz", "\tab| |\xC2\xA0z|\xFFz"},
        {"\nab\rc", "\n|ab|\r|c"},           // ... but no line break and no number
        {"1a 12345 6", "1|a| |123|45| |6"},
        {"\xD9\xA1\xD9\xA2\xC2\xBD\xC2\xBD", "\xD9\xA1\xD9\xA2\xC2\xBD|\xC2\xBD"},
        {"hi...\n\n\r x", "hi|...\n\n\r| x"},     // marks take the line breaks after them
        {" !?\n x", " !?\n| x"},
        {"a  \n \n  b", "a|  \n \n| | b"},      // white space is cut after its last line break
        {"\n \n1", "\n \n|1"},
        {"a  ", "a|  "},
        {"a   1  !", "a|  | |1| | !"},
        {"\xEF\xBB\xBF! \xEF\xBB\xBF\n", "\xEF\xBB\xBF!| \xEF\xBB\xBF\n"},
        {"'", "'"}, {"'r", "'r"}, {"'l", "'l"}, {"''ll", "''|ll"}, {" 's", " '|s"},
    };
    check_cuts(CUT_LLAMA3, cases, std::size(cases));
}

static void test_classes() {
    size_t letters = 0, numbers = 0, spaces = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        letters += unicode_class(c) == 'L';
        numbers += unicode_class(c) == 'N';
        spaces += unicode_class(c) == 's';
    }
    check(letters == 141028, "%zu letters, expected 141028 (Unicode 16)", letters);
    check(numbers == 1911, "%zu numbers, expected 1911 (Unicode 16)", numbers);
    check(spaces == 26, "%zu white space, expected 26 (Unicode's 25, and U+FEFF)", spaces);
    check(unicode_class(0x10FFFF) == 'o', "U+10FFFF is not other");
}

// 256 bytes, what the merges make, end of text. Ids of bytes are the bytes.
static Tokenizer small(const std::vector<std::pair<int, int>>& merges) {
    Tokenizer t;
    for (int b = 0; b < 256; b++) {
        t.byte_ids[b] = b;
        t.tokens.push_back(std::string(1, (char)b));
    }
    for (const std::pair<int, int>& merge : merges) {
        int left = merge.first, right = merge.second;
        t.merges.push_back({left, right, (int)t.tokens.size()});
        t.tokens.push_back(t.tokens[left] + t.tokens[right]);
    }
    index_merges(t);
    t.begin = t.eot = (int)t.tokens.size();
    t.tokens.push_back("<|endoftext|>");
    t.special = {t.eot};
    return t;
}

static void test_merges() {
    check_ids("no merges", "ab", encode(small({}), "ab"), {'a', 'b'});
    Tokenizer t = small({{'b', 'c'}, {'a', 'b'}});   // bc = 256 was learned before ab = 257
    check_ids("the earliest learned wins", "abc", encode(t, "abc"), {'a', 256});
    check_ids("the earliest learned wins", "ab", encode(t, "ab"), {257});
    t = small({{'a', 'a'}, {256, 'a'}, {256, 256}});   // aa = 256, aaa = 257, aaaa = 258
    check_ids("of equal ones the leftmost", "aaa", encode(t, "aaa"), {257});
    check_ids("of equal ones the leftmost", "aaaa", encode(t, "aaaa"), {258});
    check_ids("of equal ones the leftmost", "aaaaa", encode(t, "aaaaa"), {256, 257});
    t = small({{'a', 'b'}, {'a', 'b'}, {'b', 'b'}});
    check_ids("of two merges of one pair the first", "abb", encode(t, "abb"), {256, 'b'});
    t = small({{'a', ' '}, {' ', 'b'}});
    check_ids("no merge across a cut", "a b", encode(t, "a b"), {'a', 257});

    std::string text = "a<|endoftext|>b<|endoftext|><|endoftext|>";
    t = small({});
    check_ids("special", text, encode(t, text, true), {'a', 256, 'b', 256, 256});
    check_ids("special", "", encode(t, "", true), {});
    check(encode(t, text).size() == text.size(), "without special, end-of-text is spelled out");
    check(decode(t, encode(t, text, true)) == text, "special tokens decode to their text");
    t.tokens.push_back("<|endoftext|>!");
    t.special.push_back(257);
    check_ids("the longest special", "<|endoftext|>!", encode(t, "<|endoftext|>!", true), {257});
}

// Beginnings of each other, and the bytes on both sides of them.
static void test_special() {
    Tokenizer t = small({});
    for (const char* token : {"ab", "abc", "abcde", "b", "\xFF", "\x01"}) {
        t.special.push_back((int)t.tokens.size());
        t.tokens.push_back(token);   // 257, 258, ...
    }
    auto by_bytes = [&](int a, int b) { return t.tokens[a] < t.tokens[b]; };
    std::sort(t.special.begin(), t.special.end(), by_bytes);
    struct {
        std::string text;
        std::vector<int> ids;
    } cases[] = {{"abcd", {258, 'd'}}, {"abcde", {259}}, {"aabab", {'a', 257, 257}},
                 {"acb", {'a', 'c', 260}}, {"\xFF\x01z", {261, 262, 'z'}}, {"ab", {257}},
                 {"a", {'a'}}, {"<|endoftext|", {}}};   // {}: no special token is in it
    for (auto& c : cases) {
        std::vector<int> want = c.ids;
        if (want.empty()) want.assign(c.text.begin(), c.text.end());
        check_ids("special", c.text, encode(t, c.text, true), want);
    }
    t.user_defined = {258};   // abc, in every text
    check_ids("user defined", "abcab", encode(t, "abcab"), {258, 'a', 'b'});

    // 10,000 of them cost no more than one: looking for each would take 20 s.
    t = small({});
    for (int i = 0; i < 10000; i++) {
        t.tokens.push_back("<|" + std::to_string(100000 + i) + "|>");
        t.special.push_back((int)t.tokens.size() - 1);   // digits are in order, and before 'e'
    }
    std::rotate(t.special.begin(), t.special.begin() + 1, t.special.end());
    std::string text;
    for (int i = 0; i < 50000; i++) text += "<|" + std::to_string(100000 + i) + "|> ";
    std::clock_t start = std::clock();
    std::vector<int> ids = encode(t, text, true);
    double seconds = (double)(std::clock() - start) / CLOCKS_PER_SEC;
    check(ids.size() == 20000 + 40000 * 11 && ids[0] == 257 && ids[2] == 258,
          "10,000 special tokens: %zu ids", ids.size());
    check(seconds < 8, "10,000 special tokens took %.1f s", seconds);
}

// A vocabulary of bytes in a GGUF, with what the kinds of tokenizers differ in. Ids: the bytes,
// then "ab", "abc" (which no merge makes) and three control tokens. `without`: a byte that has no
// token, -1 for none.
static Tokenizer tokenizer_of_kind(const char* pre, int without, bool bos, bool says_bos) {
    std::string path = text("/tmp/test_tokenizer-%ld.gguf", (long)getpid());
    std::vector<std::string> tokens;
    std::vector<int32_t> types;
    std::vector<std::string> spelled(256);
    for (int c = 0; c < 0x144; c++)
        if (visible_bytes()[c] >= 0)
            spelled[visible_bytes()[c]] =
                c < 0x80 ? std::string(1, (char)c)
                         : std::string{(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))};
    spelled[without < 0 ? 0 : without] = without < 0 ? spelled[0] : "absent";
    for (const std::string& s : spelled) tokens.push_back(s);
    for (const char* s : {"ab", "abc", "<|a|>", "<|b|>", "<|c|>"}) tokens.push_back(s);
    GgufWriter w;
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(w, "tokenizer.ggml.pre", pre);
    gguf_put_strings(w, "tokenizer.ggml.tokens", tokens);
    types.assign(258, NORMAL_TOKEN);
    types.resize(261, CONTROL_TOKEN);
    gguf_put(w, "tokenizer.ggml.token_type", GGUF_ARRAY, GGUF_I32, types.size(), types.data(),
             4 * types.size());
    gguf_put_strings(w, "tokenizer.ggml.merges", {"a b"});
    gguf_put_int(w, "tokenizer.ggml.bos_token_id", 258);
    gguf_put_int(w, "tokenizer.ggml.eos_token_id", 259);
    gguf_put_int(w, "tokenizer.ggml.eot_token_id", 260);
    uint8_t add_bos = bos;
    if (says_bos)
        gguf_put(w, "tokenizer.ggml.add_bos_token", GGUF_BOOL, GGUF_BOOL, 1, &add_bos, 1);
    gguf_write(w, path);
    Gguf g = gguf_open(path);
    Tokenizer t = tokenizer_from_gguf(g);
    gguf_close(g);
    unlink(path.c_str());
    return t;
}

static void test_kinds() {
    struct {
        const char* pre;
        bool says_bos, bos;
        int begin;
        bool whole;
    } cases[] = {
        {"gpt-2", false, false, 259, false},    {"gpt-2", true, false, 259, false},
        {"smollm", false, false, -1, false},    {"smollm", true, true, 258, false},
        {"llama-bpe", false, false, 258, true}, {"llama-bpe", true, false, -1, true}};
    for (auto& c : cases) {
        Tokenizer t = tokenizer_of_kind(c.pre, -1, c.bos, c.says_bos);
        std::vector<int> want = {256, 'c'};
        if (c.whole) want = {257};
        check_ids(c.pre, "abc", encode(t, "abc"), want);
        check_ids(c.pre, "<|b|>ab", encode(t, "<|b|>ab", true), {259, 256});
        if (c.begin >= 0) want.insert(want.begin(), c.begin);
        check_ids(c.pre, "abc", encode_prompt(t, "abc"), want);
        check(is_end(t, 259) && is_end(t, 260) && !is_end(t, 258), "%s: which tokens end", c.pre);
    }
    Tokenizer t = tokenizer_of_kind("smollm", 4, false, false);
    check_ids("a byte without a token", "a\4b\4", encode(t, "a\4b\4"), {'a', 'b'});
}

// A file with nothing but a chat template. bytes: the key's value, which must live as long.
static Gguf file_with_template(const std::string& bytes) {
    Gguf g;
    GgufKey key;
    key.name = "tokenizer.chat_template";
    key.type = key.element = GGUF_STRING;
    key.data = (const uint8_t*)bytes.data();
    g.keys.push_back(key);
    g.key_at[key.name] = 0;
    return g;
}

// The ids as text. What a special token begins is marked, so that a forged one shows.
static std::string shown(const Tokenizer& t, const std::vector<int>& ids) {
    std::string out;
    for (int id : ids) {
        bool special = std::count(t.special.begin(), t.special.end(), id);
        out += (special ? "#" : "") + t.tokens[id];
    }
    return out;
}

// The expected texts are what Jinja makes of these templates: SmolLM2's, and Llama 3's in short.
static void test_templates() {
    const std::string smollm =
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging"
        " Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' +"
        " message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";
    const std::string hi = "#<|im_start|>user\n hi <|im_end|>#<|im_end|>\n"
                           "#<|im_start|>assistant\nyes\n#<|im_end|>\n";
    const std::string llama = "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}";
    struct {
        const char* what;
        std::string given, name;
        const char* system;
        std::string want;
    } cases[] = {
        {"SmolLM2's", smollm, "", nullptr,
         "#<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
         "#<|im_end|>\n" + hi},
        {"with a system message", smollm, "", "Be brief.",
         "#<|im_start|>system\nBe brief.#<|im_end|>\n" + hi},
        {"without", smollm, "", "", hi},
        {"part of it is elsewhere", "'<|im_start|>system\nYou' + x + '<|im_end|>'", "", nullptr,
         hi},
        {"escapes", "{{\"<|im_start|>system\\nI'm \\\"it\\\"<|im_end|>\"}}", "", nullptr,
         "#<|im_start|>system\nI'm \"it\"#<|im_end|>\n" + hi},
        {"Llama 3's", llama, "", "Be brief.",
         "#<|begin_of_text|>#<|start_header_id|>system#<|end_header_id|>\n\nBe brief.#<|eot_id|>"
         "#<|start_header_id|>user#<|end_header_id|>\n\nhi <|im_end|>#<|eot_id|>"
         "#<|start_header_id|>assistant#<|end_header_id|>\n\nyes#<|eot_id|>"},
        {"plain", smollm, "plain", nullptr, "#<|endoftext|> hi <|im_end|>\nyes\n\n"}};
    Tokenizer t = small({});
    for (const char* token : {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
                              "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
        t.special.push_back((int)t.tokens.size());
        t.tokens.push_back(token);
    }
    auto by_bytes = [&](int a, int b) { return t.tokens[a] < t.tokens[b]; };
    std::sort(t.special.begin(), t.special.end(), by_bytes);
    for (auto& c : cases) {
        uint64_t size = c.given.size();
        std::string bytes = std::string((const char*)&size, 8) + c.given;
        Gguf g = file_with_template(bytes);
        t.begin = c.name == "plain" ? t.eot : -1;
        std::string system = c.system ? c.system : "";
        Chat chat = new_chat(g, t, 1000, c.name, c.system ? &system : nullptr);
        add_turn(chat, "user", " hi <|im_end|>");
        add_turn(chat, "assistant", "yes\n");
        std::string got = shown(t, chat_ids(chat));
        check(got == c.want, "%s: \"%s\", expected \"%s\"", c.what, got.c_str(), c.want.c_str());
    }
}

// What goes when the context is full: the oldest turns, a user's with its answer.
static void test_make_room() {
    Tokenizer t = small({});
    t.begin = -1;
    std::string bytes(8, '\0');
    Gguf g = file_with_template(bytes);
    std::string system = "S";
    Chat chat = new_chat(g, t, 20, "plain", &system);
    for (const char* text : {"one", "two", "six"}) {   // 4 ids each, with the line break
        add_turn(chat, "user", text);
        add_turn(chat, "assistant", "a");
    }
    check(chat_ids(chat).size() == 20 && make_room(chat, 0) == 0, "what fits stays");
    check(make_room(chat, 1) == 2 && decode(t, chat_ids(chat)) == "S\ntwo\na\nsix\na\n",
          "a little room: \"%s\"", decode(t, chat_ids(chat)).c_str());
    check(make_room(chat, 100) == 2 && decode(t, chat_ids(chat)) == "S\nsix\na\n",
          "the last turn stays: \"%s\"", decode(t, chat_ids(chat)).c_str());
    reset_chat(chat);
    check(decode(t, chat_ids(chat)) == "S\n", "after a reset the system message is there");
}

// What separates documents and what does not; test_infer.py compares this with prepare.py's shards.
static void test_documents() {
    Tokenizer t = small({});
    const std::string END = "<|endoftext|>";
    struct {
        const char* what;
        std::string text;
        std::vector<std::string> documents;
    } cases[] = {
        {"one document", "a\n", {"a\n"}},
        {"two", "a\n" + END + "\nb", {"a\n", "b"}},
        {"Windows line ends", "a\r\n" + END + "\r\nb", {"a\r\n", "b"}},
        {"at the start and the end", END + "\na\n" + END, {"a\n"}},
        {"at the end, \\r alone", "a\n" + END + "\r", {"a\n"}},
        {"in a line", "a " + END + "\n" + END + " \nb" + END,
         {"a " + END + "\n" + END + " \nb" + END}},
        {"\\r begins no line", "a\r" + END + "\nb", {"a\r" + END + "\nb"}},
        {"two \\r", "a\n" + END + "\r\r\nb", {"a\n" + END + "\r\r\nb"}},
        {"white space is none", " \n\xE3\x80\x80\n" + END + "\n" + END + "\n\t\n" + END + "\nc\n",
         {"c\n"}},
        {"white space keeps its place", "\n\n" + END + "\n\n a\n\n" + END + "\n", {"\n a\n\n"}},
        {"a byte order mark", "\xEF\xBB\xBF" + END + "\na", {"a"}},
        {"two byte order marks", "\xEF\xBB\xBF\xEF\xBB\xBF" "a", {"\xEF\xBB\xBF" "a"}},
        {"nothing", "", {}},
        {"no text", END + "\n \n" + END, {}},
    };
    for (auto& c : cases) {
        std::vector<int> want;
        for (const std::string& document : c.documents) {
            want.push_back(t.eot);
            for (unsigned char byte : document) want.push_back(byte);
        }
        check_ids(c.what, c.text, encode_documents(t, c.text), want);
    }
}

// ---- tiktoken's ids for hard texts: see tokenizer_golden.py -------------------------------------

const char* GOLDEN = "tests/golden/tokenizer.gguf";

static Tokenizer golden_tokenizer() {
    Gguf g = gguf_open(GOLDEN);
    Tokenizer t = tokenizer_from_gguf(g);
    gguf_close(g);
    return t;
}

static void test_golden() {
    Gguf g = gguf_open(GOLDEN);
    Tokenizer t = tokenizer_from_gguf(g);
    std::vector<std::string> texts = gguf_strings(g, "golden.texts");
    for (const TokenizerKind& kind : TOKENIZER_KINDS) {
        t.kind = kind;
        t.kind.whole_words = false;   // in this vocabulary merges make every word that is a token
        std::string name = std::string("golden.") + kind.pre;
        std::vector<int64_t> counts = gguf_ints(g, name + ".counts");
        std::vector<int64_t> ids = gguf_ints(g, name + ".ids");
        size_t at = 0;
        for (size_t i = 0; i < texts.size(); i++) {
            std::vector<int> want(ids.begin() + at, ids.begin() + at + counts[i]);
            at += counts[i];
            check_ids(name.c_str(), texts[i], encode(t, texts[i]), want);
            check(decode(t, want) == texts[i], "%s: text %zu does not decode to itself",
                  name.c_str(), i);
        }
    }
    gguf_close(g);
}

// ---- any bytes, any length ----------------------------------------------------------------------

static void test_invalid() {
    const Tokenizer t = golden_tokenizer();
    const char* invalid[] = {
        "\x80", "\xBF", "\xC0\x80", "\xC1\xBF",   // stray continuations, forms that are too long
        "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80", "\xED\xBF\xBF",           // halves of surrogate pairs
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",   // above U+10FFFF
        "\xFE", "\xFF", "\xC3", "\xE4\xBD", "\xF0\x9F\xA6", "\xC3(", "\xE4\xBD("};
    for (const char* s : invalid) {
        size_t length;
        check(class_at(s, 0, &length) == 'o' && length == 1, "\"%s\" is not one byte and other",
              gguf_printable(s, 20).c_str());
    }
    int lost = 0;
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++)
            for (const char* after : {"", "\x80", " x"}) {
                std::string text = {(char)a, (char)b};
                text += after;
                lost += decode(t, encode(t, text)) != text;
            }
    Rng rng = {7};
    for (int i = 0; i < 300; i++) {
        std::string text;
        for (uint64_t n = random_below(rng, 200); n > 0; n--) text += (char)random_below(rng, 256);
        lost += decode(t, encode(t, text)) != text || decode(t, encode(t, text, true)) != text;
    }
    check(lost == 0, "%d texts of arbitrary bytes did not come back", lost);
}

// Quadratic code would take a quarter of an hour.
static void test_long_word() {
    const Tokenizer t = golden_tokenizer();
    auto start = std::chrono::steady_clock::now();
    std::string text;
    for (unsigned i = 0; i < 1000000; i++) text += (char)('a' + i * i % 7);
    check(decode(t, encode(t, text)) == text, "a word of a megabyte does not come back");
    Tokenizer a = small({{'a', 'a'}, {256, 256}, {257, 257}});
    size_t n = encode(a, std::string(1 << 20, 'a')).size();
    check(n == 1 << 17, "a million times a: %zu ids, expected %d", n, 1 << 17);
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    double seconds = took.count();
    check(seconds < 60, "two words of a megabyte took %.1f s, expected less than 60", seconds);
}

// ---- GPT-2's own vocabulary ---------------------------------------------------------------------

static std::string read_text(const std::string& path) {
    MappedFile f = map_file(path);
    std::string s((const char*)f.data, f.size);
    unmap_file(f);
    return s;
}

static std::vector<int> numbers(const std::string& s) {
    std::vector<int> out;
    const char* p = s.c_str();
    while (*p) {
        char* end;
        long n = strtol(p, &end, 10);
        if (end == p) p++;   // a comma or a space
        else out.push_back((int)n), p = end;
    }
    return out;
}

// The string that begins after the opening quote at s[at].
static std::string json_string(const std::string& s, size_t at) {
    std::string out;
    uint32_t high = 0;
    for (; s[at] != '"'; at++) {
        if (s[at] != '\\') {
            out += s[at];
            continue;
        }
        char c = s[++at];
        const char* simple = strchr("b\bf\fn\nr\rt\t", c);
        if (c != 'u') {
            out += simple && isalpha(c) ? simple[1] : c;
            continue;
        }
        uint32_t u = (uint32_t)std::stoul(s.substr(at + 1, 4), nullptr, 16);
        at += 4;
        if (u >= 0xD800 && u < 0xDC00) {
            high = u;
            continue;
        }
        if (high) u = 0x10000 + ((high - 0xD800) << 10) + (u - 0xDC00);
        high = 0;
        if (u < 0x80) out += (char)u;
        else if (u < 0x800) out += {(char)(0xC0 | u >> 6), (char)(0x80 | (u & 63))};
        else if (u < 0x10000)
            out += {(char)(0xE0 | u >> 12), (char)(0x80 | (u >> 6 & 63)), (char)(0x80 | (u & 63))};
        else
            out += {(char)(0xF0 | u >> 18), (char)(0x80 | (u >> 12 & 63)),
                    (char)(0x80 | (u >> 6 & 63)), (char)(0x80 | (u & 63))};
    }
    return out;
}

static void test_gpt2() {
    std::string folder = folder_of_shared() + "/fixtures/gpt2-tokenizer/";
    struct stat info;
    if (stat(folder.c_str(), &info) != 0) {
        printf("SKIP: GPT-2's vocabulary and vectors: no folder %s\n", folder.c_str());
        return;
    }
    Gguf g = gguf_open(folder + "ggml-vocab-gpt-2.gguf");
    Tokenizer t = tokenizer_from_gguf(g);
    std::string texts = read_text(folder + "llama-cpp-vectors.inp");
    std::string ids = read_text(folder + "llama-cpp-vectors.out");
    const std::string separator = "\n__ggml_vocab_test__\n";
    int vectors = 0;
    for (size_t at = 0, row = 0; row < ids.size(); vectors++) {
        size_t end = std::min(texts.find(separator, at), texts.size()), line = ids.find('\n', row);
        std::string text = texts.substr(at, end - at);
        check_ids("llama.cpp", text, encode(t, text), numbers(ids.substr(row, line - row)));
        at = std::min(end + separator.size(), texts.size());
        row = line == std::string::npos ? ids.size() : line + 1;
    }
    check(vectors >= 40, "llama.cpp: only %d vectors", vectors);

    std::string lines = read_text(folder + "tiktoken-vectors.jsonl");
    const std::string before_text = "{\"text\":\"", before_ids = "\",\"ids\":[";
    vectors = 0;
    for (size_t at = 0; at < lines.size(); vectors++) {
        size_t end = std::min(lines.find('\n', at), lines.size());
        std::string line = lines.substr(at, end - at);
        std::string text = json_string(line, before_text.size());
        size_t list = line.rfind(before_ids);
        std::vector<int> want = numbers(line.substr(list + before_ids.size()));
        check_ids("tiktoken", text, encode(t, text), want);
        check(decode(t, encode(t, text)) == text, "tiktoken: text %d does not come back", vectors);
        at = end + 1;
    }
    check(vectors == 400, "tiktoken: %d vectors, expected 400", vectors);
    gguf_close(g);
}

int main(int argc, char** argv) {
    return run_tests(argc, argv,
                     {{"words", test_words},
                      {"words_smollm", test_words_smollm},
                      {"words_llama3", test_words_llama3},
                      {"classes", test_classes},
                      {"merges", test_merges},
                      {"special", test_special},
                      {"documents", test_documents},
                      {"kinds", test_kinds},
                      {"templates", test_templates},
                      {"make_room", test_make_room},
                      {"golden", test_golden},
                      {"invalid", test_invalid},
                      {"long_word", test_long_word},
                      {"gpt2", test_gpt2}});
}
