// fuzz.cpp - what comes from outside, damaged at random: nothing may crash, hang, or read beyond
// its input. fail() is the right answer to most inputs, and here it comes back.
//
//     gguf        open a GGUF file, show it, load it as a model, and let that make a token
//     tokenizer   read a tokenizer from it and encode the file's own last bytes
//     text        lists of ids, prompts in each tokenizer's way, chat templates, what is printed
//     shard       token shards, and the rows that are read from them
//
//     make fuzz FUZZ_RUNS=1000000             all four, under sanitizers
//     build/fuzz gguf -n 1000000 -seed 7      one; tests/fuzz/gguf/ holds what it begins with
//     build/fuzz gguf FILE                    one input again, such as the crash-gguf that is left
//
// With -DLIBFUZZER and clang's -fsanitize=fuzzer, libFuzzer chooses the inputs, led by which parts
// of the code they reach; FUZZ_TARGET in the environment names the target. Without, main() below
// changes the corpus blindly: run i of a seed is the same everywhere.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

// fail() prints to stderr and ends with exit(1). Both are replaced before files.h is read, by a
// stream to nowhere and an exception, so that the code under test is the very code that ships.
struct Failed {};
[[noreturn]] inline void failed(int) { throw Failed(); }
inline FILE* const nowhere = fopen("/dev/null", "w");
#pragma push_macro("stderr")
#undef stderr
#define stderr nowhere
#define exit(code) failed(code)
#define main infer_main
#include "../infer.cpp"
#undef main
#include "../dataloader.h"
#undef exit
#pragma pop_macro("stderr")
#include <filesystem>
#include <sys/time.h>

typedef std::string Input;

// A promise that was not kept.
#define EXPECT(promise) \
    if (!(promise)) { fputs("not kept: " #promise "\n", stderr); abort(); }

// ---- targets ------------------------------------------------------------------------------------

// The input as a file: the same one for all, in memory where the system offers that.
static const std::string& input_file() {
    static const std::string path =
        text("%s/legible-fuzz-%ld", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
             (long)getpid());
    return path;
}

static void write_input(const Input& input) {
    static const int file = open(input_file().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(file >= 0 && pwrite(file, input.data(), input.size(), 0) == (ssize_t)input.size() &&
           ftruncate(file, (off_t)input.size()) == 0);
}

// What a process that has failed leaves mapped, the operating system would take back.
static void unmap_all() {
    while (MappedRange* r = mapped_ranges) {
        if (r->size) munmap((void*)r->data, r->size);
        mapped_ranges = r->next;
        free((void*)r->path);
        delete r;
    }
}

static void fuzz_gguf(const Input& input) {
    write_input(input);
    Options o;
    o.file = o.model = input_file();
    run_show(o);
    o.ids = "0";
    o.n = 2;
    o.given = {"--ids"};
    run_generate(o);
}

static void fuzz_tokenizer(const Input& input) {
    write_input(input);
    Gguf g = gguf_open(input_file());
    Tokenizer t = tokenizer_from_gguf(g);
    Input text = input.substr(input.size() - std::min<size_t>(input.size(), 200));
    for (bool special : {false, true}) {
        std::vector<int> ids = encode(t, text, special);
        for (int id : ids) EXPECT(id >= 0 && (size_t)id < t.tokens.size());
        if (t.kind.all_bytes) EXPECT(decode(t, ids) == text);
    }
    encode_documents(t, text);
    new_chat(g, t, 64, "", nullptr);
}

static void fuzz_text(const Input& input) {
    // The bytes, and a few merges of what texts are full of.
    static Tokenizer t = [] {
        Tokenizer t;
        for (int b = 0; b < 256; b++) t.tokens.push_back(Input(1, (char)(t.byte_ids[b] = b)));
        for (const char* pair : {"  ", "\n\n", "'s", "11", "th", "\xe4\xbd"}) {
            t.merges.push_back({(uint8_t)pair[0], (uint8_t)pair[1], (int)t.tokens.size()});
            t.tokens.push_back(pair);
        }
        index_merges(t);
        t.word_at = hash_table(1);
        t.eot = t.begin = (int)t.tokens.size();
        t.tokens.push_back("<|endoftext|>");
        t.special = {t.eot};
        return t;
    }();
    for (const TokenizerKind& kind : TOKENIZER_KINDS) {
        t.kind = kind;
        EXPECT(decode(t, encode(t, input)) == input);
        EXPECT(decode(t, encode(t, input, true)) == input);
        encode_documents(t, input);
        for (size_t at = 0, end; at < input.size(); at = end) {
            end = next_word(input, at, kind.cut);
            EXPECT(end > at && end <= input.size());
        }
    }
    for (const ChatFormat& f : CHAT_FORMATS) template_system(input, f);
    json_quoted(input);
    Input pending = input;
    print_utf8(pending, false);
    EXPECT(pending.size() < 4);
    print_utf8(pending, true);
    EXPECT(gguf_printable(input, 100).find('\x1b') == Input::npos);
    for (int id : parse_ids(input, "--ids", 1000)) EXPECT(id >= 0 && id < 1000);
}

static void fuzz_shard(const Input& input) {
    if (input.size() < 4) return;
    auto byte = [&](size_t i) { return (uint8_t)input[input.size() - i]; };   // of the tokens
    const int B = 1 + byte(1) % 4, T = 1 + byte(2) % 16;
    write_input(input);
    DataLoader d = open_loader("--train", input_file(), B, T, byte(3) % 2, byte(4));
    d.vocabulary = 300;
    std::vector<int> inputs(B * T), targets(B * T);
    for (int64_t first : {(int64_t)0, d.windows - 1, d.windows * 3 + 1}) {
        read_rows(d, first, B, inputs.data(), targets.data());
        for (int id : inputs) EXPECT(id >= 0 && id < d.vocabulary);
    }
}

static const struct FuzzTarget {
    const char* name;
    void (*run)(const Input&);
} TARGETS[] = {{"gguf", fuzz_gguf}, {"tokenizer", fuzz_tokenizer}, {"text", fuzz_text},
               {"shard", fuzz_shard}};

static const FuzzTarget* find_target(const char* name) {
    for (const FuzzTarget& t : TARGETS)
        if (name && strcmp(t.name, name) == 0) return &t;
    fputs("which target? gguf, tokenizer, text or shard\n", stderr);
    exit(1);
}

// False: refused. Any other exception than fail()'s ends the program: nobody would catch it there.
static bool run_one(const FuzzTarget& target, const Input& input) {
    bool accepted = true;
    try {
        target.run(input);
    } catch (const Failed&) {
        accepted = false;
    }
    unmap_all();
    return accepted;
}

#ifdef LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const FuzzTarget* target = [] {
        EXPECT(freopen("/dev/null", "w", stdout));
        return find_target(getenv("FUZZ_TARGET"));
    }();
    run_one(*target, Input((const char*)data, size));
    return 0;
}
#else
// ---- the plain driver ---------------------------------------------------------------------------

// A file has lengths, counts and offsets: numbers of 4 and 8 bytes, little endian. These are the
// ones at which arithmetic goes wrong.
static void put_number(Rng& rng, Input& b) {
    static const uint64_t numbers[] = {
        0, 1, 2, 7, 8, 31, 63, 255, 256, 65535, 1u << 24, (1u << 31) - 1, 1u << 31, UINT32_MAX,
        1ull << 32, 1ull << 61, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX - 31, UINT64_MAX};
    uint64_t x = numbers[random_below(rng, std::size(numbers))];
    if (random_below(rng, 3) == 0) x = b.size() - random_below(rng, 64);   // about the file's end
    size_t n = random_below(rng, 2) ? 8 : 4;
    if (b.size() >= n) memcpy(&b[random_below(rng, b.size() - n + 1)], &x, n);
}

static void mutate(Rng& rng, Input& b, const std::vector<Input>& corpus) {
    size_t at = b.empty() ? 0 : random_below(rng, b.size());
    size_t n = b.empty() ? 0 : 1 + random_below(rng, std::min<size_t>(b.size() - at, 32));
    const Input& other = corpus[random_below(rng, corpus.size())];
    size_t from = other.empty() ? 0 : random_below(rng, other.size());
    switch (random_below(rng, 8)) {
    case 0: if (!b.empty()) b[at] ^= (char)(1 << random_below(rng, 8)); break;
    case 1: if (!b.empty()) b[at] = (char)random_below(rng, 256); break;
    case 2: b.erase(at, n); break;
    case 3: b.insert(at, b.substr(at, n)); break;                          // twice
    case 4: b.insert(at, n, (char)random_below(rng, 256)); break;
    case 5: b.replace(at, n, other.substr(from, n)); break;
    case 6: put_number(rng, b); break;
    default: if (random_below(rng, 8) == 0) b.resize(at); else put_number(rng, b);
    }
}

static Input current;             // what runs now, for the handler below
static const FuzzTarget* running;

// Leaves the input that led here. Sanitizers, too, end by abort(): see the options below.
static void on_crash(int number) {
    for (int any : {SIGABRT, SIGPROF}) signal(any, SIG_DFL);
    const std::string path = std::string("crash-") + running->name;
    int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    bool written = write(file, current.data(), current.size()) == (ssize_t)current.size();
    fprintf(stderr, "%s: %s; the input is in ./%s%s\n", running->name,
            number == SIGPROF ? "ran for 20 seconds" : "crashed", path.c_str(),
            written ? "" : ", but not whole");
    unlink(input_file().c_str());
    _exit(1);
}

// What the code under test leaves behind when it fails, the operating system takes back.
extern "C" const char* __asan_default_options() {
    return "abort_on_error=1:handle_abort=0:detect_leaks=0";
}
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

static Input read_bytes(const std::string& path) {
    FILE* f = fopen(path.c_str(), "rb");
    EXPECT(f);
    Input bytes = read_all(f);
    fclose(f);
    return bytes;
}

// From now on, and of a processor's time, since the program may be stopped meanwhile; 0: no limit.
static void limit_seconds(int n) {
    const itimerval limit = {{0, 0}, {n, 0}};
    setitimer(ITIMER_PROF, &limit, nullptr);
}

int main(int argc, char** argv) {
    running = find_target(argc > 1 ? argv[1] : nullptr);
    uint64_t runs = 100000, seed = 1;
    std::vector<Input> inputs;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) runs = strtoull(argv[++i], nullptr, 10);
        else if (strcmp(argv[i], "-seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], nullptr, 10);
        else inputs.push_back(read_bytes(argv[i]));
    }
    EXPECT(freopen("/dev/null", "w", stdout));
    for (int number : {SIGABRT, SIGPROF}) signal(number, on_crash);
    uint64_t accepted = 0;
    double start = seconds_now();
    std::vector<Input> corpus = inputs;
    if (inputs.empty()) {
        const std::string folder = text("tests/fuzz/%s", running->name);
        std::error_code error;
        for (auto& entry : std::filesystem::directory_iterator(folder, error))
            corpus.push_back(read_bytes(entry.path()));
        if (error) {
            fprintf(stderr, "error: %s: %s (start in the repository's root)\n", folder.c_str(),
                    error.message().c_str());
            return 1;
        }
    }
    std::sort(corpus.begin(), corpus.end());
    if (!inputs.empty()) runs = inputs.size();
    for (uint64_t i = 0; i < runs; i++) {
        Rng rng = {seed * 0x9e3779b97f4a7c15ull + i};
        current = inputs.empty() ? corpus[random_below(rng, corpus.size())] : inputs[i];
        // The corpus itself comes first.
        if (inputs.empty() && i < corpus.size()) current = corpus[i];
        bool changed = inputs.empty() && i >= corpus.size();
        for (uint64_t n = changed ? 1 + random_below(rng, 4) : 0; n > 0; n--)
            mutate(rng, current, corpus);
        limit_seconds(20);
        accepted += run_one(*running, current);
    }
    limit_seconds(0);
    double took = seconds_now() - start;
    fprintf(stderr, "%-10s %llu runs, %llu accepted, %.0f runs/s, no finding\n", running->name,
            (unsigned long long)runs, (unsigned long long)accepted, (double)runs / took);
    unlink(input_file().c_str());
    return 0;
}
#endif
