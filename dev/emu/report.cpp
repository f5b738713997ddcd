// report.cpp - a fault's message: what happened, in which kernel, at which line, in which block and
// thread.
#include <execinfo.h>
#include <link.h>
#include <stdarg.h>
#include <unistd.h>
#include <mutex>
#include "emu.h"

namespace emu {

Text::Text(const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(s, sizeof s, format, list);
    va_end(list);
}

static Text triple(uint3 i) { return {"(%u,%u,%u)", i.x, i.y, i.z}; }

Text thread_name(int number) {
    dim3 b = blockDim;
    unsigned n = number;
    return {"thread %s", triple({n % b.x, n / b.x % b.y, n / b.x / b.y}).s};
}

Text block_name(uint32_t number) {
    dim3 g = gridDim;
    return {"block %s", triple({number % g.x, number / g.x % g.y, number / g.x / g.y}).s};
}

// What the C++ library or libc does was called for by some line of the program.
static Text line_in_program(Pc pc) {
    void* frames[64];
    int n = backtrace(frames, 64);
    for (int i = -1; i < n; i++) {
        Text line = where(i < 0 ? pc : frames[i]);
        if (!strstr(line.s, "dev/emu/") && strncmp(line.s, "address", 7)) return line;
    }
    return where(pc);
}

void fault(Pc pc, const char* format, ...) {
    static std::recursive_mutex first;      // the first fault prints and exits; others wait
    first.lock();
    fflush(stdout);
    char message[4000];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    fprintf(stderr, "emu: %s\n", strtok(message, "\n"));
    if (worker.launch) {
        const Kernel& k = worker.launch->kernel;
        fprintf(stderr, "     kernel %s%s%s%s%s   (launched at %s:%d)\n", k.name,
                worker.block ? ", block " : "", worker.block ? triple(blockIdx).s : "",
                worker.thread ? ", thread " : "", worker.thread ? triple(threadIdx).s : "",
                k.file, k.line);
    }
    if (pc) fprintf(stderr, "     at %s\n", line_in_program(pc).s);
    while (const char* line = strtok(nullptr, "\n")) fprintf(stderr, "     %s\n", line);
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
static bool lookup(Pc pc, Text& text) {
    uintptr_t base = 0;
    dl_iterate_phdr(find_base, &base);
    char program[512], function[8192], line[400];      // templates have long names
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return false;
    program[n] = 0;
    // pc is where the call returns to: one less lies inside the call.
    Text command("addr2line -C -f -i -e '%s' 0x%zx 2>/dev/null", program,
                 (size_t)((uintptr_t)pc - base - 1));
    FILE* f = popen(command.s, "r");
    if (!f) return false;
    bool found = false;
    while (!found && fgets(function, sizeof function, f) && fgets(line, sizeof line, f)) {
        if (strstr(line, "dev/emu/include/") || strstr(line, "/c++/") || line[0] == '?') continue;
        function[strcspn(function, "\n(")] = 0;      // without its parameters
        line[strcspn(line, " \n")] = 0;
        char here[400] = "";      // names relative to the current folder are easier to read
        if (getcwd(here, sizeof here - 1)) strcat(here, "/");
        size_t prefix = strncmp(line, here, strlen(here)) ? 0 : strlen(here);
        text = {"%s in %s", line + prefix, function};
        found = true;
    }
    pclose(f);
    return found;
}

Text where(Pc pc) {
    Text text("(not known)");
    if (pc && !lookup(pc, text))
        text = {"address %p (is addr2line installed, and the program built with -g?)", pc};
    return text;
}

// A line of the program, and a number for its file and function. addr2line takes long,
// so it is asked once for each.
struct Line { Pc pc; uint64_t function; int line; };
static Line line_of(Pc pc) {
    static __thread Line known[256];
    Line& k = known[(uintptr_t)pc * 0x9e3779b97f4a7c15 >> 56];
    if (k.pc == pc) return k;
    Text text = where(pc);                           // "file:line in function"
    const char* in = strstr(text.s, " in ");
    size_t digits = in ? in - text.s : 0;
    while (digits && text.s[digits - 1] != ':') digits--;
    k = {pc, 0, atoi(text.s + digits)};
    for (const char* c = text.s; *c; c++)
        if (c < text.s + digits || c >= in) k.function = (k.function ^ *c) * 0x100000001b3;
    return k;
}

bool same_line(Pc a, Pc b) {
    if (a == b) return true;
    Line x = line_of(a), y = line_of(b);
    return x.function == y.function && x.line == y.line;
}

// ---- addresses ----------------------------------------------------------------------------------
static const char* space_name(const Range& r) {
    if (r.space == SYMBOL) return r.symbol == CONSTANT ? "__constant__" : "__device__";
    return r.space == MANAGED_MEMORY ? "managed memory"
           : r.space == PINNED       ? "pinned host memory"
                                     : "device memory";
}

static Text describe_shared(size_t offset) {
    size_t dynamic = worker.launch->config.shared;
    if (offset < dynamic || worker.variables == 0)
        return {"shared memory, byte %zu of %zu dynamic ones", offset, dynamic};
    const Variable* v = worker.placed[0];
    for (int i = 0; i < worker.variables; i++)
        if (worker.placed[i]->offset <= offset) v = worker.placed[i];
    return {"shared memory, byte %zd of '%s', which has %zu", (ssize_t)(offset - v->offset),
            v->name, v->bytes};
}

static Text describe_local(const char* p) {
    for (int i = 0; worker.block && i < worker.block->threads; i++) {
        Fiber* f = worker.block->thread[i].fiber;
        if (!f || p < f->stack || p >= f->stack + STACK_BYTES) continue;
        if (i == worker.thread->number) return {"among the thread's own local variables"};
        return {"a local variable of another thread, number %d of its block", i};
    }
    return {"beyond the thread's own local variables"};
}

Text describe_address(const void* address) {
    const char* p = (const char*)address;
    size_t offset = p - arena;
    if (worker.launch && offset < ARENA_BYTES) return describe_shared(offset);
    if (p >= worker.stacks && p < worker.stacks_end) return describe_local(p);
    const Range* r = find_range(p);
    if (!r && (in_heap((uintptr_t)p) || in_managed((uintptr_t)p))) r = nearest_range(p);
    if (!r) return {"address %p", p};
    ssize_t at = p - r->start, behind = at - (ssize_t)r->bytes;
    Text place = at < 0        ? Text("%zd bytes before", -at)
                 : behind >= 0 ? Text("%zd bytes past the end of", behind)
                               : Text("byte %zd of", at);
    return {"%s %s of %zu bytes (%s%s%s%s)", place.s, r->name ? r->name : "an allocation",
            r->bytes, space_name(*r), r->pc ? ", allocated at " : "", r->pc ? where(r->pc).s : "",
            r->freed && at >= 0 && behind < 0 ? ", freed" : ""};
}

}  // namespace emu
