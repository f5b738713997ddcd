// streams.cpp - streams and events: which pieces of work are ordered, and which only seem to be.
// Work is done the moment it is issued, so a program that forgets to wait gets the right answer
// here and a wrong one on a GPU. Order is therefore kept by logical clocks: each piece of work (op)
// has a number, each stream knows for every stream the last op that surely comes before its next
// one, and so does the host. Words of memory remember the op that wrote them, for check.cpp.
#include <vector>
#include "emu.h"
typedef std::vector<uint32_t> Clock;     // for each stream, the last op that is known to be over
struct emu_stream {
    int number;
    bool non_blocking, destroyed;
    Clock clock;
};
struct emu_event {
    Clock clock;      // of the stream when it was recorded
    double time;
    uint32_t op;      // of its record, or 0
    bool timing;
};
namespace emu {
bool several_streams;
struct Op {
    int stream;
    const char* what;
    Pc pc;
};
struct Streams {
    std::vector<Op> ops = {{0, "", nullptr}, {0, "host code", nullptr}};      // by number
    emu_stream legacy = {0, false, false, {0}};
    std::vector<emu_stream*> streams = {&legacy};  // 0 is the default stream
    Clock host = {HOST_OP};
};
static Streams& all() {
    static Streams& s = *new Streams();      // never destroyed: programs free memory at exit
    return s;
}
static void join(Clock& into, const Clock& from) {
    if (into.size() < from.size()) into.resize(from.size(), 0);
    for (size_t i = 0; i < from.size(); i++)
        if (from[i] > into[i]) into[i] = from[i];
}
static emu_stream* resolve(cudaStream_t stream) {
    return !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread ? &all().legacy
                                                                                  : stream;
}
cudaError_t valid_stream(cudaStream_t stream) {
    Turn mine;
    stream = resolve(stream);
    for (emu_stream* s : all().streams)
        if (s == stream) return s->destroyed ? cudaErrorInvalidResourceHandle : cudaSuccess;
    return cudaErrorInvalidResourceHandle;
}
Work begin_op(cudaStream_t stream, const char* what, Pc pc) {
    Streams& s = all();
    stream = resolve(stream);
    uint32_t op = (uint32_t)s.ops.size();
    s.ops.push_back({stream->number, what, pc});
    join(stream->clock, s.host);
    // The default stream waits for all streams that did not opt out, and they for it.
    for (emu_stream* other : s.streams) {
        bool both_wait = !other->non_blocking && !stream->non_blocking;
        if (both_wait && (stream->number == 0 || other->number == 0))
            join(stream->clock, other->clock);
    }
    stream->clock[stream->number] = op;
    return {what, pc, op, several_streams ? 0 : op};      // with one stream there is nothing to ask
}
static bool reached(const Clock& clock, uint32_t op) {
    size_t stream = all().ops[op].stream;
    return stream < clock.size() && clock[stream] >= op;
}
bool op_ordered(uint32_t earlier, uint32_t op) {
    return reached(all().streams[all().ops[op].stream]->clock, earlier);
}
bool host_has_waited(uint32_t op) { return reached(all().host, op); }
void op_waited(cudaStream_t stream) {
    join(all().host, resolve(stream)->clock);
    show_output();
}
Text describe_op(uint32_t op) {
    const Op& o = all().ops[op];
    return {"%s on %s %d%s%s", o.what, o.stream ? "stream" : "the default stream,", o.stream,
            o.pc ? ", at " : "", o.pc ? where(o.pc).s : ""};
}

// ---- asynchronous copies ------------------------------------------------------------------------
struct HostCopy {
    uintptr_t start, end;
    bool writes;                  // to the host's memory
    uint32_t op;
};
static std::vector<HostCopy> host_copies;
void host_copy(const void* host, size_t bytes, bool writes, uint32_t op) {
    uintptr_t p = (uintptr_t)host;
    if (!host_copies.empty() && host_copies.back().end == p && host_copies.back().op == op)
        host_copies.back().end += bytes;      // the next row
    else host_copies.push_back({p, p + bytes, writes, op});
}
uint32_t copy_under_way(uintptr_t p, size_t bytes, Access access) {
    if (host_copies.empty()) return 0;
    Turn mine;
    size_t kept = 0;
    for (const HostCopy& c : host_copies) {
        if (host_has_waited(c.op)) continue;
        if (p < c.end && p + bytes > c.start && (c.writes || access != READ)) return c.op;
        host_copies[kept++] = c;
    }
    host_copies.resize(kept);
    return 0;
}
}  // namespace emu
using namespace emu;
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    Turn mine;
    Streams& s = all();
    int number = (int)s.streams.size();
    *stream = new emu_stream{number, (flags & cudaStreamNonBlocking) != 0, false,
                             Clock(number + 1, 0)};
    s.streams.push_back(*stream);
    several_streams = true;
    return ok();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    if (!stream || valid_stream(stream)) return set_error(cudaErrorInvalidResourceHandle);
    stream->destroyed = true;
    return ok();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    Turn mine;
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    op_waited(stream);
    // The default stream is not done before the streams that it waits for are.
    if (resolve(stream)->number == 0)
        for (emu_stream* s : all().streams)
            if (!s->non_blocking) op_waited(s);
    return ok();
}
cudaError_t cudaDeviceSynchronize() {
    Turn mine;
    for (emu_stream* s : all().streams) op_waited(s);
    return ok();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    Turn mine;
    if (valid_stream(stream) || !event) return set_error(cudaErrorInvalidResourceHandle);
    join(resolve(stream)->clock, event->clock);
    return ok();
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void* data) {
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    f(data);
    return ok();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    *event = new emu_event{{}, 0, 0, !(flags & cudaEventDisableTiming)};
    return ok();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (!event) return set_error(cudaErrorInvalidResourceHandle);
    delete event;
    return ok();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    Turn mine;
    if (valid_stream(stream) || !event) return set_error(cudaErrorInvalidResourceHandle);
    event->op = begin_op(stream, "cudaEventRecord", EMU_CALLER).op;
    event->clock = resolve(stream)->clock;
    event->time = clock64() * 1e-6;
    return ok();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Turn mine;
    if (!event) return set_error(cudaErrorInvalidResourceHandle);
    join(all().host, event->clock);
    show_output();
    return ok();
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t stop) {
    Turn mine;
    if (!start || !stop || !start->op || !stop->op || !start->timing || !stop->timing)
        return set_error(cudaErrorInvalidResourceHandle);
    if (!host_has_waited(stop->op)) return set_error(cudaErrorNotReady);
    *ms = (float)(stop->time - start->time);
    return ok();
}
