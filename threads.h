// threads.h - how many threads OpenMP uses, and how they wait. Without OpenMP, there is one.
#pragma once
#include <cstdlib>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>

inline int processors() { return omp_get_num_procs(); }
inline int max_threads() { return omp_get_max_threads(); }   // of the next parallel region
inline void use_threads(int n) { omp_set_num_threads(n); }
#else
inline int processors() { return 1; }
inline int max_threads() { return 1; }
inline void use_threads(int) {}
#endif

// A step of training has about 150 parallel loops, and at the end of each the threads wait for
// the slowest. OpenMP waits by spinning, for milliseconds. On a machine of one's own that is the
// fastest way; but where other programs want the cores too, a spinning thread keeps off the very
// thread that it waits for: beside two busy programs, two threads trained at 560 tokens a second,
// and at 6,700 once they spin for about 100 microseconds and then sleep.
//
// How long to spin is read from the environment while the program is loaded, before any of its
// code runs. Whoever has set one of the variables is left alone: then this is false.
inline bool set_spinning() {
    const char *gnu = "GOMP_SPINCOUNT", *llvm = "KMP_BLOCKTIME";   // in spins; in milliseconds
    if (getenv("OMP_WAIT_POLICY") || getenv(gnu) || getenv(llvm)) return false;
    setenv(gnu, "2000", 0);
    setenv(llvm, "0", 0);
    return true;
}

// To be called first in main(): sets it, and starts the program once more (about a millisecond).
// Where the program cannot be started again (no /proc), it goes on as it is.
inline void spin_briefly(char** argv) {
    if (set_spinning()) execv("/proc/self/exe", argv);
}
