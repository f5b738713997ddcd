// profile.h - where a step's time goes: what --profile prints.
//
// Each layer times itself: a Timed at the top of its function, with the FLOPs and bytes that
// layers.h counts for it. The table holds them against what the machine can do, measured at the
// start: multiply-adds, memory that is only read, and memory under AdamW's mix of 4 reads and 3
// writes. A Timed costs two looks at the clock, 50 nanoseconds, and nothing where profiling is off.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>
#include "files.h"

inline double seconds_now() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

enum Memory { READS, UPDATES };

struct ProfileRow {
    std::string name;
    Memory memory;
    int64_t calls;
    double seconds, flops, bytes;
};

struct Profile {
    bool on = false;
    double flops = 0, bandwidth[2] = {};   // the ceilings, a second
    std::vector<ProfileRow> rows;          // in the order of their first call
};

inline Profile profile;   // the program's one

struct Timed {
    const char* layer;
    int in, out;               // its sizes, for its name; 0: none
    double flops, bytes;
    Memory memory;
    double start = 0;

    Timed(const char* layer, int in, int out, double flops, double bytes, Memory memory = READS)
        : layer(layer), in(in), out(out), flops(flops), bytes(bytes), memory(memory) {
        if (profile.on) start = seconds_now();
    }

    ~Timed() {
        if (!profile.on) return;
        double seconds = seconds_now() - start;
        std::string name = layer;
        if (in) name += text(" %d", in);
        if (out) name += text(" x %d", out);
        for (ProfileRow& row : profile.rows)
            if (row.name == name) {
                row.calls++, row.seconds += seconds, row.flops += flops, row.bytes += bytes;
                return;
            }
        profile.rows.push_back({name, memory, 1, seconds, flops, bytes});
    }
};

// A row a layer, of `steps` steps that took `seconds` together.
inline void print_profile(int64_t steps, double seconds) {
    if (steps == 0) return;
    fprintf(stderr, "\nceilings: %.0f GFLOP/s, %.1f GB/s of reads, %.1f GB/s of updates\n"
            "%-34s %7s %9s %8s %6s %7s %6s %7s\n", profile.flops / 1e9,
            profile.bandwidth[READS] / 1e9, profile.bandwidth[UPDATES] / 1e9, "layer", "calls",
            "ms/step", "GFLOP/s", "of it", "GB/s", "of it", "of step");
    auto print = [&](const std::string& name, double calls, double s, double flops, double bytes,
                     Memory memory) {
        fprintf(stderr, "%-34s %7.0f %9.3f %8.1f %5.1f%% %7.2f %5.1f%% %6.1f%%\n", name.c_str(),
                calls, 1000 * s / (double)steps, flops / s / 1e9, 100 * flops / s / profile.flops,
                bytes / s / 1e9, 100 * bytes / s / profile.bandwidth[memory], 100 * s / seconds);
    };
    double known = 0, flops = 0, bytes = 0;
    for (const ProfileRow& row : profile.rows) {
        print(row.name, (double)row.calls, row.seconds, row.flops, row.bytes, row.memory);
        known += row.seconds, flops += row.flops, bytes += row.bytes;
    }
    print("all layers", 0, known, flops, bytes, READS);
    fprintf(stderr, "%-34s %17.3f %38.1f%%\n", "the rest of the step",
            1000 * (seconds - known) / (double)steps, 100 * (seconds - known) / seconds);
}
