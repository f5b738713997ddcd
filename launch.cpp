// launch.cpp - main() of the runtime that bundles carry: takes the form of infer that suits the
// processor.
//
// The runtime is one static program for any Linux machine of its kind, so it cannot be compiled for
// the processor that it will meet. It holds all of infer.cpp several times, each form compiled for
// processors with certain vector instructions. In one program the linker would merge inline
// functions that both forms have, and so put one's instructions into the other; the Makefile
// therefore closes each form: of an object's names only main_FORM is left, all others are its own.
//
// Constructors of global variables are code too, and would run in all forms before main(). So the
// Makefile calls the section that lists them init_FORM, and only the chosen form's are run, here.
// This file itself is compiled for any processor of the kind.
#include <cstdio>
#include <string>
#include "threads.h"

typedef int Main(int argc, char** argv);
typedef void Constructor(int argc, char** argv, char** environment);

struct Form {
    const char* name;
    bool (*runs)();   // on this processor
    Main* main;
    Constructor **init, **init_end;
};

// __start_X and __stop_X are the linker's names for the ends of a section X.
#define DECLARE(form)                                                                     \
    extern "C" Main main_##form;                                                          \
    extern "C" Constructor *__start_init_##form[], *__stop_init_##form[];
#define FORM(form, runs) {#form, [] { return runs; }, main_##form, __start_init_##form, \
                          __stop_init_##form}

// The best first; the last runs wherever the program does, or it says what it needs.
#if defined(__x86_64__)
#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
DECLARE(avx512)
DECLARE(avx2)
// Level 4 of the x86-64 psABI, with the products of bytes that quants.h lives by (Intel since 2019,
// AMD since 2022), and level 3. Processors with these instructions have the levels' others.
static const Form FORMS[] = {
    FORM(avx512, HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") &&
                     HAS("avx512vl") && HAS("avx512vnni") && HAS("fma") && HAS("bmi2")),
    FORM(avx2, HAS("avx2") && HAS("fma") && HAS("bmi2"))};
static const char NEEDED[] = "AVX2 and FMA (Intel since 2013, AMD since 2015)";
#elif defined(__aarch64__)
DECLARE(neon)
static const Form FORMS[] = {FORM(neon, true)};
static const char NEEDED[] = "NEON";
#else
#error "no form is listed for this kind of processor: x86-64 and 64-bit Arm have some"
#endif

// In a static program this can come before OpenMP's own constructor, which reads the environment:
// so infer need not start itself once more (threads.h), and spins no longer where it could not.
__attribute__((constructor(101))) static void before_openmp() { set_spinning(); }

// OpenMP's library would load drivers for GPUs by this, which a static program cannot do safely: it
// finds none.
extern "C" void* __wrap_dlopen(const char*, int) { return nullptr; }

int main(int argc, char** argv) {
    const char* wanted = getenv("LEGIBLE_FORM");   // to try another form than the best
    std::string names;
    for (const Form& form : FORMS) {
        if (!form.runs()) continue;
        names += std::string(names.empty() ? "" : ", ") + form.name;
        if (wanted && std::string(wanted) != form.name) continue;
        for (Constructor** c = form.init; c < form.init_end; c++) (*c)(argc, argv, environ);
        return form.main(argc, argv);
    }
    if (names.empty())
        fprintf(stderr, "error: this processor cannot run it, expected one with %s\n", NEEDED);
    else
        fprintf(stderr, "error: LEGIBLE_FORM: no form of that name runs on this processor, expected"
                " one of %s\n", names.c_str());
    return 1;
}
