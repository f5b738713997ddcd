// pressure.h - a text's cache gives memory back when the machine runs short of it.
//
//     positions   0 .. K-1 | K ........................ | the newest N
//                 kept     | forgotten: its pages go    | kept, moved to K .. K+N-1
//                          | back to the system         |
//
// Linux says how short memory is: the line "some avg10=X" of /proc/pressure/memory is the part of
// the last ten seconds, in per cent, in which some process stood still for want of it.
// The first positions are kept because attention rests on them when it seeks nothing else: without
// them a text falls apart (Xiao et al. 2023, arXiv:2309.17453, section 3; doc/runtime.md has our
// numbers).
//
// What moves gets a new position. Rotary keys are turned back by as many positions as were dropped;
// values have none. GPT-2's positions went into its keys and values through all layers, so it
// computes the tail again.
#pragma once
#include "speculate.h"

// A text's positions first .. last-1 are no longer needed: their whole pages go back to the system.
// Returns the bytes.
inline size_t give_back(State& s, const Description& d, int first, int last) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    size_t bytes = 0;
    for (int i = 0; first < last && i < 2 * d.L * d.NKV; i++) {
        float* positions = s.cache.get() + (int64_t)i * s.room * d.hs;
        const uintptr_t begin = (uintptr_t)(positions + (int64_t)first * d.hs) + page - 1;
        const uintptr_t from = begin / page * page;
        const uintptr_t to = (uintptr_t)(positions + (int64_t)last * d.hs) / page * page;
        if (from < to && madvise((void*)from, to - from, MADV_DONTNEED) == 0) bytes += to - from;
    }
    return bytes;
}

// Keys and values of the newest `tail` positions move to `keep` and what follows it.
inline void move_tail(const Model& m, State& s, int keep, int tail) {
    const Description& d = m.d;
    const int dropped = s.pos - keep - tail;
    std::vector<float> angles(d.rope_dims);
    for (int c = 0; c < d.rope_dims; c += 2) {
        const double angle = -dropped * m.turns[c / 2];
        angles[c] = (float)cos_d(angle);
        angles[c + 1] = (float)cos_d(angle - 1.5707963267948966);
    }
    for (int l = 0; l < d.L; l++)
        for (int what : {KEYS, VALUES})
            for (int h = 0; h < d.NKV; h++) {
                float* to = strip(s, d, l, what, h) + (int64_t)keep * d.hs;
                memmove(to, to + (int64_t)dropped * d.hs, sizeof(float) * tail * d.hs);
                for (int i = 0; what == KEYS && i < tail; i++)
                    rotate(to + (int64_t)i * d.hs, angles.data(), 1, d);
            }
}

// Of the positions that s has, the first `keep` and the newest `tail` stay. ids is the text, whose
// first s.pos tokens they are, and is cut in the same way. Afterwards ids may hold more tokens that
// s has not seen: the tail, where positions cannot be moved. Returns the bytes given back.
inline size_t trim(const Model& m, State& s, std::vector<int>& ids, int keep, int tail) {
    const int had = s.pos, dropped = had - keep - tail;
    if (dropped <= 0) return 0;
    ids.erase(ids.begin() + keep, ids.begin() + keep + dropped);
    if (m.d.family.rotary) move_tail(m, s, keep, tail);
    s.pos = m.d.family.rotary ? keep + tail : keep;
    return give_back(s, m.d, keep + tail, had);
}

// ---- the system's pressure ----------------------------------------------------------------------

// The part of the last ten seconds, in per cent, that some process lost waiting for memory.
inline double memory_pressure(const std::string& path) {
    FILE* f = fopen(path.c_str(), "r");
    if (!f)
        fail("%s: %s (pressure stall information needs Linux 4.20 or later, and psi=1 on the"
             " kernel's command line where it is built in but off; --psi-file names another file)",
             path.c_str(), strerror(errno));
    char line[256] = "";
    const bool read = fgets(line, sizeof line, f);
    fclose(f);
    double x = -1;
    if (!read || sscanf(line, "some avg10=%lf", &x) != 1 || !(x >= 0 && x <= 100))
        fail("%s: \"%s\", expected a line as \"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\"",
             path.c_str(), gguf_printable(line, 60).c_str());
    return x;
}

// Looks at most four times a second, and not for ten seconds after a trim: for so long the average
// still holds what was before.
struct PressureWatch {
    std::string path;
    double limit;       // per cent
    double again = 0;   // in seconds, when to look next
    double found = 0;   // the pressure at the last look

    bool is_high(double now) {
        if (now < again) return false;
        again = now + 0.25;
        found = memory_pressure(path);
        return found >= limit;
    }
};

// The pressure is high: trims the text, and its draft's cache, which computes the tail again. Says
// what it did.
inline void relieve(PressureWatch& watch, double now, const Model& m, State& s,
                    std::vector<int>& ids, int keep, int tail, Draft& draft) {
    const int had = s.pos;
    if (had <= keep + tail) return;
    size_t bytes = trim(m, s, ids, keep, tail);
    if (draft.model) {
        bytes += give_back(draft.state, draft.model->d, keep, draft.state.pos);
        draft.state.pos = std::min(draft.state.pos, keep);
    }
    fprintf(stderr, "\nmemory pressure %.2f%%, limit %g: kept the first %d and the newest %d of %d"
            " positions, %.1f MB given back\n", watch.found, watch.limit, keep, tail, had,
            (double)bytes / 1e6);
    watch.again = now + 10;
}
