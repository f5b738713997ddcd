// check.h - what the test programs share: counting, expected errors, golden values, buffers with
// guards, and the bounds.
//
// The tests see a backend through layers.h alone: buffers are device memory, and floatX may be
// float or one of 16 bits. So one source checks every backend; what it links with decides which.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>
#include <sys/wait.h>
#include "../gguf.h"
#include "../layers.h"
#include "../numerics.h"

typedef std::vector<float> Floats;

// ---- counting -----------------------------------------------------------------------------------

// The state of a test program, all of it.
struct Tally {
    int passed = 0, failed = 0;
    double worst = 0;   // the largest error since report() was last called, as a part of its bound
    std::string worst_name;
};
inline Tally tally;

// Counts one check; prints it if it fails.
__attribute__((format(printf, 2, 3))) inline bool check(bool ok, const char* format, ...) {
    (ok ? tally.passed : tally.failed)++;
    if (ok) return true;
    va_list args;
    va_start(args, format);
    printf("FAIL: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    return false;
}

// error must not exceed bound; NaN does. Remembers the one that came closest.
inline bool check_error(const std::string& name, double error, double bound) {
    double part = bound > 0 ? error / bound : error > 0 ? INFINITY : error;
    if (!(part <= tally.worst)) {
        tally.worst = part;
        tally.worst_name = name;
    }
    return check(error <= bound, "%s: error %.3g, allowed %.3g", name.c_str(), error, bound);
}

// One line about what was checked since the last: how much of the bounds was used.
inline void report(const char* what) {
    if (tally.worst_name.empty()) printf("%-24s\n", what);
    else
        printf("%-24s largest error %.2f of its bound (%s)\n", what, tally.worst,
               tally.worst_name.c_str());
    tally.worst = 0;
    tally.worst_name.clear();
}

struct Test {
    std::string name;
    std::function<void()> run;
};

// What every test program does: the tests whose name contains one of the words on the command line
// run, or all of them. The last line counts the checks, and the result is the exit code.
inline int run_tests(int argc, char** argv, const std::vector<Test>& tests) {
    int ran = 0;
    for (const Test& test : tests) {
        bool wanted = argc == 1;
        for (int i = 1; i < argc; i++) wanted |= test.name.find(argv[i]) != std::string::npos;
        if (!wanted) continue;
        test.run();
        ran++;
    }
    if (ran == 0) fail("no test's name contains %s", argv[1]);
    printf("%d passed, %d failed\n", tally.passed, tally.failed);
    return tally.failed ? 1 : 0;
}

// ---- a child process that may fail --------------------------------------------------------------

struct Outcome {
    int code;              // exit code, -1 for a signal
    std::string message;   // what it wrote to stderr
};

inline Outcome in_child(const std::function<void()>& run) {
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) fail("pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) fail("fork: %s", strerror(errno));
    if (child == 0) {
        alarm(10);
        close(ends[0]);
        dup2(ends[1], 2);
        run();
        _exit(0);
    }
    close(ends[1]);
    Outcome o;
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) o.message.append(buffer, n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return o;
}

// An action must end its process with 1, and print all of the words.
inline void expect_error(const std::string& name, const std::vector<std::string>& words,
                         const std::function<void()>& action) {
    Outcome o = in_child(action);
    check(o.code == 1, "%s: exit code %d, expected 1: %s", name.c_str(), o.code, o.message.c_str());
    for (const std::string& word : words)
        check(o.message.find(word) != std::string::npos, "%s: \"%s\" does not say \"%s\"",
              name.c_str(), o.message.c_str(), word.c_str());
}

// ---- golden values ------------------------------------------------------------------------------

inline const GgufTensor& golden_tensor(const Gguf& file, const std::string& name) {
    const GgufTensor* t = gguf_tensor(file, name);
    if (!t)
        fail("%s: tensor %s: missing (run tests/reference.py)", file.file.path.c_str(),
             name.c_str());
    return *t;
}

inline Floats golden_floats(const Gguf& file, const std::string& name) {
    const GgufTensor& t = golden_tensor(file, name);
    Floats values(t.count);
    gguf_to_float(values.data(), file, t, 0, t.count);
    return values;
}

inline std::vector<int> golden_ints(const Gguf& file, const std::string& name) {
    const GgufTensor& t = golden_tensor(file, name);
    if (t.type != GGML_I32)
        fail("%s: tensor %s: expected I32", file.file.path.c_str(), name.c_str());
    std::vector<int> values(t.count);
    memcpy(values.data(), t.data, sizeof(int) * t.count);
    return values;
}

inline std::vector<double> golden_doubles(const Gguf& file, const std::string& name) {
    const GgufTensor& t = golden_tensor(file, name);
    if (t.type != GGML_F64)
        fail("%s: tensor %s: expected F64", file.file.path.c_str(), name.c_str());
    std::vector<double> values(t.count);
    memcpy(values.data(), t.data, sizeof(double) * t.count);
    return values;
}

// ---- buffers ------------------------------------------------------------------------------------

// Device memory for one case of a test, between two guards that must keep their bytes.
const size_t GUARD = 64;
const int GUARD_BYTE = 0xa5;

struct Buffer {
    char* base;
    size_t bytes;
};
inline std::vector<Buffer> buffers;   // those in use; free_buffers() looks after them

inline void* put_bytes(const void* host, size_t bytes) {
    std::vector<char> image(bytes + 2 * GUARD, (char)GUARD_BYTE);
    memcpy(image.data() + GUARD, host, bytes);
    Buffer b = {(char*)device_alloc(image.size()), bytes};
    to_device(b.base, image.data(), image.size());
    buffers.push_back(b);
    return b.base + GUARD;
}

inline void free_buffers(const std::string& name) {
    for (const Buffer& b : buffers) {
        std::vector<char> image(b.bytes + 2 * GUARD);
        to_host(image.data(), b.base, image.size());
        bool intact = true;
        for (size_t i = 0; i < GUARD; i++)
            intact &=
                image[i] == (char)GUARD_BYTE && image[GUARD + b.bytes + i] == (char)GUARD_BYTE;
        check(intact, "%s: wrote outside a buffer of %zu bytes", name.c_str(), b.bytes);
        device_free(b.base);
    }
    buffers.clear();
}

inline int* put_ints(const std::vector<int>& host) {
    return (int*)put_bytes(host.data(), sizeof(int) * host.size());
}

inline float* put_floats(const Floats& host) {
    return (float*)put_bytes(host.data(), sizeof(float) * host.size());
}

inline floatX* put(const Floats& host) {
    std::vector<floatX> rounded(host.size());
    for (size_t i = 0; i < host.size(); i++) rounded[i] = (floatX)host[i];
    return (floatX*)put_bytes(rounded.data(), sizeof(floatX) * host.size());
}

// Writes over a floatX buffer.
inline void set(floatX* device, const Floats& host) {
    std::vector<floatX> rounded(host.size());
    for (size_t i = 0; i < host.size(); i++) rounded[i] = (floatX)host[i];
    to_device(device, rounded.data(), sizeof(floatX) * host.size());
}

inline Floats get_floats(const float* device, size_t n) {
    Floats host(n);
    to_host(host.data(), device, sizeof(float) * n);
    return host;
}

inline Floats get(const floatX* device, size_t n) {
    std::vector<floatX> rounded(n);
    to_host(rounded.data(), device, sizeof(floatX) * n);
    Floats host(n);
    for (size_t i = 0; i < n; i++) host[i] = (float)rounded[i];
    return host;
}

// Where a result will be written: NaN until then, so that an element left out shows.
inline floatX* room(size_t n) {
    return put(Floats(n, NAN));
}

inline float* room_floats(size_t n) {
    return put_floats(Floats(n, NAN));
}

// ---- comparing ----------------------------------------------------------------------------------

// The largest relative error of one rounding, in float and in floatX; and the largest error of a
// number that is too small for that: half of float16's smallest. The others' do not matter.
const double ROUND_FLOAT = 0x1p-24;
const double ROUND_X = PRECISION == FP32 ? 0x1p-24 : PRECISION == BF16 ? 0x1p-9 : 0x1p-11;
const double TINY_X = PRECISION == FP16 ? 0x1p-25 : 0;

// got must be `times` what is wanted, each element within
//     (4 roundings to floatX + 2 sqrt(terms) roundings to float) * its scale + 4 of TINY_X.
// A sum of n terms in float errs by n roundings of sum |term| at worst; roundings are independent
// enough that sqrt(n) is what happens. The scale is that sum |term|.
inline void compare_values(const std::string& name, const Floats& got, const Floats& want,
                           const Floats& scale, double terms, int times = 1) {
    double roundings = 4 * ROUND_X + 2 * sqrt(terms) * ROUND_FLOAT;
    if (!check(got.size() == want.size(), "%s: %zu elements, expected %zu", name.c_str(),
               got.size(), want.size()))
        return;
    size_t worst = 0;
    double worst_part = -1;
    auto bound = [&](size_t i) { return times * (roundings * scale[i] + 4 * TINY_X) + 1e-37; };
    for (size_t i = 0; i < want.size(); i++) {
        double part = fabs((double)got[i] - (double)times * want[i]) / bound(i);
        if (!(part <= worst_part)) {
            worst = i;
            worst_part = part;
            if (part != part) break;
        }
    }
    if (!check_error(name, worst_part, 1))
        printf("      element %zu is %.9g, expected %.9g; errors are given as parts of the bound "
               "%.3g\n",
               worst, got[worst], times * want[worst], bound(worst));
}

// The same with a golden tensor, whose scale reference.py has computed.
inline void compare(const Gguf& golden, const std::string& name, const Floats& got, double terms,
                    int times = 1) {
    compare_values(name, got, golden_floats(golden, name), golden_floats(golden, name + ".scale"),
                   terms, times);
}

inline void check_same(const std::string& name, const Floats& a, const Floats& b) {
    bool same = a.size() == b.size() && memcmp(a.data(), b.data(), sizeof(float) * a.size()) == 0;
    check(same, "%s: not the same bits", name.c_str());
}

inline double norm(const Floats& x) {
    double sum = 0;
    for (float v : x) sum += (double)v * v;
    return sqrt(sum);
}

// cold: where g++ 12 -O3 inlines it, it takes log_d's m for uninitialised.
__attribute__((cold)) inline Floats random_floats(uint64_t seed, size_t n, float deviation) {
    Rng rng = {seed};
    Floats x(n);
    for (float& v : x) v = (float)(floatX)(deviation * normal(rng));
    return x;
}
