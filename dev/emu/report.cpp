// report.cpp - a fault's message: what happened, in which kernel, at which line, in which block and
// thread.
#include <link.h>
#include <stdarg.h>
#include <unistd.h>
#include <mutex>
#include "emu.h"

namespace emu {

static std::recursive_mutex reporting;  // the first fault prints and exits; others wait for the end

static void thread_text(const char* what, uint3 i, char* text, size_t bytes) {
    snprintf(text, bytes, "%s (%u,%u,%u)", what, i.x, i.y, i.z);
}

void thread_name(int number, char* text, size_t bytes) {
    dim3 b = blockDim;
    unsigned n = number;
    thread_text("thread", {n % b.x, n / b.x % b.y, n / b.x / b.y}, text, bytes);
}

void report_begin(const char* format, ...) {
    reporting.lock();
    fflush(stdout);
    va_list list;
    va_start(list, format);
    fprintf(stderr, "emu: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
    if (!worker.launch) return;
    const Kernel& k = worker.launch->kernel;
    char block[64] = "", thread[64] = "";
    if (worker.block) thread_text(", block", blockIdx, block, sizeof block);
    if (worker.thread) thread_text(", thread", threadIdx, thread, sizeof thread);
    report_line("kernel %s%s%s   (launched at %s:%d)", k.name, block, thread, k.file, k.line);
}

void report_line(const char* format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "     ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
}

void report_end() {
    fflush(stderr);
    _exit(1);
}

// ---- lines --------------------------------------------------------------------------------------
static int find_base(dl_phdr_info* info, size_t, void* base) {
    *(uintptr_t*)base = info->dlpi_addr;      // the first entry is the program itself
    return 1;
}

// Asks addr2line. Functions that were compiled into their caller give several lines, the innermost
// first: the first outside of the emulator's own headers is the one that the program's author
// wrote.
static bool lookup(Pc pc, char* text, size_t bytes) {
    uintptr_t base = 0;
    dl_iterate_phdr(find_base, &base);
    char program[512], command[700], function[8192], line[400];      // templates have long names
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return false;
    program[n] = 0;
    // pc is where the call returns to: one less lies inside the call.
    snprintf(command, sizeof command, "addr2line -C -f -i -e '%s' 0x%zx 2>/dev/null", program,
             (size_t)((uintptr_t)pc - base - 1));
    FILE* f = popen(command, "r");
    if (!f) return false;
    bool found = false;
    while (!found && fgets(function, sizeof function, f) && fgets(line, sizeof line, f)) {
        if (strstr(line, "dev/emu/include/") || strstr(line, "/c++/") || line[0] == '?') continue;
        function[strcspn(function, "\n")] = 0;
        if (char* parameters = strchr(function, '(')) *parameters = 0;
        line[strcspn(line, " \n")] = 0;
        snprintf(text, bytes, "%s in %s", line, function);
        found = true;
    }
    pclose(f);
    return found;
}

void where(Pc pc, char* text, size_t bytes) {
    if (!pc) {
        snprintf(text, bytes, "(not known)");
        return;
    }
    if (!lookup(pc, text, bytes))
        snprintf(text, bytes, "address %p (is addr2line installed, and the program built with -g?)",
                 pc);
    char here[400];
    if (getcwd(here, sizeof here - 1)) {  // names relative to the current folder are easier to read
        strcat(here, "/");
        size_t n = strlen(here);
        if (!strncmp(text, here, n)) memmove(text, text + n, strlen(text + n) + 1);
    }
}

// A number for the line of pc. addr2line takes long, so it is asked once for each place.
static uint64_t line_number(Pc pc) {
    static __thread struct {
        Pc pc;
        uint64_t number;
    } known[256];
    auto& k = known[(uintptr_t)pc * 0x9e3779b97f4a7c15 >> 56];
    if (k.pc == pc) return k.number;
    char text[600];
    where(pc, text, sizeof text);
    k = {pc, 0};
    for (const char* c = text; *c; c++) k.number = (k.number ^ *c) * 0x100000001b3;
    return k.number;
}

bool same_line(Pc a, Pc b) { return line_number(a) == line_number(b); }

// ---- addresses ----------------------------------------------------------------------------------
static const char* space_name(const Range& r) {
    if (r.space == SYMBOL) return r.symbol == CONSTANT ? "__constant__" : "__device__";
    return r.space == MANAGED_MEMORY ? "managed memory"
           : r.space == PINNED       ? "pinned host memory"
                                     : "device memory";
}

static void describe_shared(size_t offset, char* text, size_t bytes) {
    size_t dynamic = worker.launch->config.shared;
    if (offset < dynamic || worker.slots == 0) {
        snprintf(text, bytes, "shared memory, byte %zu of %zu dynamic ones", offset, dynamic);
        return;
    }
    int best = worker.slot_order[0];
    for (int i = 0; i < worker.slots; i++)
        if (worker.slot_offset[worker.slot_order[i]] <= offset) best = worker.slot_order[i];
    snprintf(text, bytes, "shared memory, byte %zd of '%s', which has %u",
             (ssize_t)(offset - worker.slot_offset[best]), worker.slot_name[best],
             worker.slot_bytes[best]);
}

void describe_address(const void* p, char* text, size_t bytes) {
    size_t offset = (char*)p - arena;
    if (worker.launch && offset < ARENA_BYTES) {
        describe_shared(offset, text, bytes);
        return;
    }
    if ((char*)p >= worker.stacks && (char*)p < worker.stacks_end) {
        int owner = -1;
        for (int i = 0; worker.block && i < worker.block->threads; i++) {
            Fiber* f = worker.block->thread[i].fiber;
            if (f && (char*)p >= f->stack && (char*)p < f->stack + STACK_BYTES) owner = i;
        }
        if (owner < 0) snprintf(text, bytes, "beyond the thread's own local variables");
        else if (owner == worker.thread->number)
            snprintf(text, bytes, "among the thread's own local variables");
        else
            snprintf(text, bytes, "a local variable of another thread, number %d of its block",
                     owner);
        return;
    }
    const Range* r = find_range(p);
    if (!r && (in_heap((uintptr_t)p) || in_managed((uintptr_t)p))) r = nearest_range(p);
    if (!r) {
        snprintf(text, bytes, "address %p", p);
        return;
    }
    char made[700] = "", line[600];
    if (r->pc) {
        where(r->pc, line, sizeof line);
        snprintf(made, sizeof made, ", allocated at %s", line);
    }
    ssize_t at = (char*)p - r->start;
    const char* name = r->name ? r->name : "an allocation";
    if (at < 0)
        snprintf(text, bytes, "%zd bytes before %s of %zu bytes (%s%s)", -at, name, r->bytes,
                 space_name(*r), made);
    else if ((size_t)at >= r->bytes)
        snprintf(text, bytes, "%zd bytes past the end of %s of %zu bytes (%s%s)",
                 at - (ssize_t)r->bytes, name, r->bytes, space_name(*r), made);
    else
        snprintf(text, bytes, "byte %zd of %s of %zu bytes (%s%s%s)", at, name, r->bytes,
                 space_name(*r), made, r->freed ? ", freed" : "");
}

}  // namespace emu
