// report.cpp - a fault's message: what happened, in which kernel, line, block and thread.
#include <execinfo.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <unistd.h>
#include "emu.h"
namespace emu {
Text::Text(const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(s, sizeof s, format, list);
    va_end(list);
}
static Text triple(uint3 i) { return {"(%u,%u,%u)", i.x, i.y, i.z}; }
static Text name(const char* what, uint32_t n, dim3 of) {
    return {"%s %s", what, triple({n % of.x, n / of.x % of.y, n / of.x / of.y}).s};
}
Text thread_name(int number) { return name("thread", number, blockDim); }
Text block_name(uint32_t number) { return name("block", number, gridDim); }
// What the C++ library or libc does was called for by some line of the program.
static Text line_in_program(Pc pc) {
    void* frames[64];
    int n = backtrace(frames, 64);
    Text found("%s", "");
    int at = 0;
    for (int i = 0; i < n; i++)
        if (frames[i] == pc) at = i;
    for (int i = at ? at : -1; i < n; i++) {
        Text line = where(i < 0 ? pc : frames[i]);
        bool ours = strstr(line.s, "dev/emu/") || !strncmp(line.s, "address", 7);
        bool launch = strstr(line.s, "lambda") || strstr(line.s, " in operator");
        if (*found.s && (ours || launch)) return found;
        if (!ours) found = *found.s ? Text("%s, called at %s", found.s, line.s) : line;
    }
    return *found.s ? found : where(pc);
}

// ---- the report for programs: EMU_REPORT=file.json ----------------------------------------------
static const char* report_path;
static char* messages;               // as JSON, from a stream that grows
static FILE* message_stream;
static Text quoted(const char* s) {
    Text text("\"");
    size_t n = 1;
    for (; *s && n < sizeof text.s - 4; s++) {
        if (*s == '"' || *s == '\\') text.s[n++] = '\\';
        text.s[n++] = (unsigned char)*s < ' ' ? ' ' : *s;
    }
    strcpy(text.s + n, "\"");
    return text;
}
// What a message says is known by these words, the first that it holds.
static const char* const KINDS[][2] = {
    {"race", "race"}, {"divergent barrier", "divergent-barrier"}, {"deadlock", "deadlock"},
    {"EMU_TIMEOUT", "timeout"}, {"never written", "never-written"}, {"bounds", "out-of-bounds"},
    {"use after", "use-after-free"}, {"freed twice", "double-free"}, {"misaligned", "misaligned"},
    {"null pointer", "null-pointer"}, {"local variables", "local-memory"},
    {"touches host", "host-memory"}, {"not mapped", "bad-address"}, {"before it has", "unordered"},
    {"asynchronous copy", "unordered"}, {"two streams", "unordered"}, {"lane", "inactive-lane"},
    {"touches device", "device-memory"}, {"wrong copy direction", "copy-direction"},
    {"not supported", "not-supported"}, {"launch error", "launch-error"},
    {"never freed", "never-freed"}, {"never seen", "lost-output"},
    {"integer division", "division-by-zero"}, {"", "other"}};
// A message's other lines are "... file.cu:12 in function": each such place goes into a list.
static void add_places(FILE* f, char* text) {
    const char* comma = "";
    strtok(text, "\n");      // the message itself may say where memory was allocated
    char* more = nullptr;
    while (char* line = more ? more : strtok(nullptr, "\n")) {
        more = strstr(line, ", called at");
        if (more) *more++ = 0;
        char* in = strstr(line, " in ");
        while (in && (in == line || !isdigit(in[-1]))) in = strstr(in + 1, " in ");
        if (!in) continue;
        *in = 0;
        char* colon = strrchr(line, ':');
        char* file = colon ? (char*)memrchr(line, ' ', colon - line) : nullptr;
        if (!file) continue;
        *colon = 0;
        fprintf(f, "%s{\"file\": %s, \"line\": %s, \"function\": %s}", comma, quoted(file + 1).s,
                colon + 1, quoted(in + 4).s);
        comma = ", ";
    }
}
static void add_message(const char* level, char* text) {
    const char* const* kind = KINDS[0];
    size_t first = strcspn(text, "\n");
    while (!memmem(text, first, kind[0], strlen(kind[0]))) kind += 2;
    if (!message_stream) {
        static size_t bytes;
        message_stream = open_memstream(&messages, &bytes);
    } else fprintf(message_stream, ",\n");
    FILE* f = message_stream;
    fprintf(f, "  {\"level\": \"%s\", \"kind\": \"%s\", \"message\": %s", level, kind[1],
            quoted(Text("%.*s", (int)first, text).s).s);
    if (worker.launch) {
        const Kernel& k = worker.launch->kernel;
        fprintf(f, ", \"kernel\": %s, \"launched\": {\"file\": %s, \"line\": %d}", quoted(k.name).s,
                quoted(k.file).s, k.line);
        uint3 t = threadIdx, b = blockIdx;
        if (worker.block) fprintf(f, ", \"block\": [%u, %u, %u]", b.x, b.y, b.z);
        if (worker.thread) fprintf(f, ", \"thread\": [%u, %u, %u]", t.x, t.y, t.z);
    }
    fprintf(f, ", \"lines\": [");
    add_places(f, text);
    fprintf(f, "]}");
    fflush(f);
}
void write_report(const char* result) {
    FILE* f = report_path ? fopen(report_path, "w") : nullptr;
    if (!f) return;
    fprintf(f, "{\"result\": \"%s\",\n \"messages\": [\n%s],\n \"launches\": [", result,
            messages ? messages : "");
    stats_report(f);
    fprintf(f, "]}\n");
    fclose(f);
}
static void at_exit() {
    note_launch_error();
    note_leaks();
    note_lost_output();
    write_report("clean");
}
void begin_report() {
    report_path = getenv("EMU_REPORT");
    if (report_path) counting = true, unlink(report_path);
    atexit(at_exit);
}

// ---- messages -----------------------------------------------------------------------------------
static void tell(bool fatal, Pc pc, const char* format, va_list list) {
    static std::recursive_mutex one;      // the first fault prints and exits; others wait
    one.lock();
    if (fatal) show_output();
    fflush(stdout);
    char message[4000], text[6000], *rest;
    vsnprintf(message, sizeof message, format, list);
    FILE* f = fmemopen(text, sizeof text, "w");
    fprintf(f, "%s\n", strtok_r(message, "\n", &rest));
    if (worker.launch) {
        const Kernel& k = worker.launch->kernel;
        fprintf(f, "     kernel %s%s%s%s%s   (launched at %s:%d)\n", k.name,
                worker.block ? ", block " : "", worker.block ? triple(blockIdx).s : "",
                worker.thread ? ", thread " : "", worker.thread ? triple(threadIdx).s : "",
                k.file, k.line);
    }
    if (pc) fprintf(f, "     at %s\n", line_in_program(pc).s);
    while (const char* line = strtok_r(nullptr, "\n", &rest)) fprintf(f, "     %s\n", line);
    Pc unset = worker.thread ? worker.thread->unset_pc : nullptr;
    if (fatal && unset && !strstr(message, "never written"))
        fprintf(f, "     before, it read shared memory that was never written, at %s\n",
                where(unset).s);
    fclose(f);
    fprintf(stderr, "emu: %s%s", fatal ? "" : "note: ", text);
    if (report_path) add_message(fatal ? "fault" : "note", text);
    if (fatal) note_launch_error(), write_report("fault"), _exit(FAULT_EXIT_CODE);
    one.unlock();
}
void fault(Pc pc, const char* format, ...) {
    va_list list;
    va_start(list, format);
    tell(true, pc, format, list);
    abort();
}
void note(Pc pc, const char* format, ...) {
    va_list list;
    va_start(list, format);
    tell(false, pc, format, list);
    va_end(list);
}

// ---- lines --------------------------------------------------------------------------------------
const link_map* program() {
    static link_map* map;
    Dl_info info;
    if (!map) dladdr1(__ehdr_start, &info, (void**)&map, RTLD_DL_LINKMAP);
    return map;
}
// Asks addr2line. Functions that were compiled into their caller give several lines, the innermost
// first: those outside of the emulator's own headers the program's author wrote.
static bool lookup(Pc pc, Text& text) {
    char function[8192], line[400];      // templates have long names
    // pc is where the call returns to: one less lies inside the call.
    Text file("/proc/%d/exe", (int)getpid());
    Text command("addr2line -C -f -i -e '%s' 0x%zx 2>/dev/null",
                 *program()->l_name ? program()->l_name : file.s,
                 (size_t)((uintptr_t)pc - program()->l_addr - 1));
    FILE* f = popen(command.s, "r");
    if (!f) return false;
    bool found = false;
    while (fgets(function, sizeof function, f) && fgets(line, sizeof line, f)) {
        if (strstr(line, "dev/emu/include/") || strstr(line, "/c++/") || line[0] == '?') continue;
        const char* body = strstr(function, "{lambda()#");      // the launch: see cuda_runtime.h
        bool launch = strstr(function, "emu::launch") || (body && strstr(body, "::operator()() c"));
        function[strcspn(function, "\n(")] = 0;      // without its parameters
        line[strcspn(line, "\n")] = 0;
        if (char* note = strstr(line, " (discriminator ")) *note = 0;
        char here[400] = "";      // names relative to the current folder are easier to read
        if (getcwd(here, sizeof here - 1)) strcat(here, "/");
        size_t prefix = strncmp(line, here, strlen(here)) ? 0 : strlen(here);
        if (launch) strcpy(function, "operator");
        if (found && (strstr(function, "lambda") || !strcmp(function, "operator"))) break;
        text = found ? Text("%s, called at %s in %s", text.s, line + prefix, function)
                     : Text("%s in %s", line + prefix, function);
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
// A number for a line of the program. addr2line takes long, so it is asked once for each.
uint64_t line_of(Pc pc) {
    static __thread struct { Pc pc; uint64_t line; } known[256];
    auto& k = known[(uintptr_t)pc * 0x9e3779b97f4a7c15 >> 56];
    if (k.pc == pc) return k.line;
    k = {pc, 0};
    Text text = where(pc);
    if (char* callers = strstr(text.s, ", called at ")) *callers = 0;
    for (const char* c = text.s; *c; c++) k.line = (k.line ^ *c) * 0x100000001b3;
    return k.line;
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
            r->freed && at >= 0 && behind < 0 ? Text(", freed at %s", where(r->freed_at).s).s : ""};
}
}  // namespace emu
