// trainer.h - a training run: flags, schedule, log, checkpoints, the loop, both trainers' main().
//
// A run's folder, --out DIR:
//     DIR/log.jsonl        one JSON object per step
//     DIR/loss.svg         the curves so far
//     DIR/step-00001000/   a checkpoint, whole or absent: model.gguf and optimizer.gguf (all else)
//     DIR/model.gguf       the newest weights, for ./infer and llama.cpp
//     DIR/.lock            held by the process that trains there
//
// Seed, flags and data fix the weights, bit for bit, however often a run was stopped and resumed.
// In DIR a run removes and replaces files of its own names only, and those only where it began.
#pragma once
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>
#include "dataloader.h"
#include "files.h"
#include "flags.h"
#include "gguf.h"
#include "gpt2.h"
#include "layers.h"
#include "numerics.h"
#include "profile.h"
#include "threads.h"
#include "tokenizer.h"

// ---- flags --------------------------------------------------------------------------------------

struct Options {
    std::string train, val, tokenizer, model, init, out = "runs/out";
    std::string order = "shuffled", schedule = "cosine", dtype;
    int64_t layers = 4, heads = 4, channels = 128, context = 256;
    int64_t batch = 8, seq = 0, total_batch = 0, recompute = 0;
    int64_t steps = 0, epochs = 0, warmup = 0, seed = 1, threads = 0;
    int64_t eval_every = 100, eval_batches = -1, sample_every = 0, save_every = 0, keep = 2;
    double save_minutes = 5;
    double lr = 6e-4, min_lr = 0, weight_decay = 0.1;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, grad_clip = 1;
    bool untied = false, profile = false, resume = false, help = false;
    std::set<std::string> given;   // the flags that were on the command line
};

// Of what a flag is a property: of the run, of which each checkpoint holds it; of the run, but it
// may change when the run is resumed; or of this start of the program alone.
enum { RUN = 1, RUN_MAY_CHANGE = 2, START = 4 };

// The one table: the command line, checkpoints and --resume's comparison all walk it.
inline std::vector<Flag> flag_table(Options& o) {
    return {
        {"--train", "GLOB", &o.train, RUN, "token shards to train on (data/prepare.py makes them)"},
        {"--val", "GLOB", &o.val, RUN, "token shards to validate on"},
        {"--tokenizer", "FILE", &o.tokenizer, RUN,
         "tokenizer.gguf of that data: goes into model.gguf"},
        {"--model", "gpt2|gpt2-medium|gpt2-large|gpt2-xl", &o.model, RUN, "a size by name, or:"},
        {"--layers", "L", {&o.layers, 1, 1024}, RUN, "blocks"},
        {"--heads", "NH", {&o.heads, 1, 1024}, RUN, "attention heads of a block"},
        {"--channels", "C", {&o.channels, 1, 65536}, RUN,
         "width of the stream, a multiple of heads"},
        {"--context", "T", {&o.context, 1, 1 << 20}, RUN,
         "positions (llama.cpp: a multiple of 256)"},
        {"--init", "FILE", &o.init, RUN,
         "start from a GPT-2's GGUF (F32, F16, BF16), not at random"},
        {"--untied", "", &o.untied, RUN, "write output.weight too, for llama.cpp before 2025-03"},
        {"--batch", "B", {&o.batch, 1, 1 << 20}, RUN,
         "sequences in a micro-batch: sets the memory needed"},
        {"--seq", "T", {&o.seq, 0, 1 << 20}, RUN, "tokens of a sequence (0: the context)"},
        {"--total-batch", "N", {&o.total_batch, 0, 1 << 30}, RUN,
         "tokens of a step, by accumulation (0: B*T)"},
        {"--recompute", "N", {&o.recompute, 0, 2}, RUN,
         "less memory: 1 norms and GELU twice, 2 all blocks"},
        {"--steps", "N", {&o.steps, 0, 1e9}, RUN_MAY_CHANGE, "updates in all; or:"},
        {"--epochs", "N", {&o.epochs, 0, 1e6}, RUN, "passes over the training data"},
        {"--lr", "X", {&o.lr, 0, 1e3}, RUN, "the highest learning rate"},
        {"--min-lr", "X", {&o.min_lr, 0, 1e3}, RUN, "the learning rate at the end"},
        {"--warmup", "N", {&o.warmup, 0, 1e9}, RUN, "steps of linear rise to lr"},
        {"--schedule", "cosine|linear|wsd|constant", &o.schedule, RUN, "the way from lr to min-lr"},
        {"--weight-decay", "X", {&o.weight_decay, 0, 1e3}, RUN,
         "AdamW's, of matrices and embeddings"},
        {"--beta1", "X", {&o.beta1, 0, 0.999999}, RUN, "AdamW: memory of the gradient"},
        {"--beta2", "X", {&o.beta2, 0, 0.999999}, RUN, "AdamW: memory of its square"},
        {"--eps", "X", {&o.eps, 0, 1}, RUN, "AdamW: added to the root"},
        {"--grad-clip", "X", {&o.grad_clip, 0, 1e9}, RUN, "longest gradient norm (0: any)"},
        {"--seed", "N", {&o.seed, 0, 1e15}, RUN, "of initial weights, order and samples"},
        {"--order", "shuffled|sequential", &o.order, RUN, "of the training windows"},
        {"--dtype", "fp32|bf16|fp16", &o.dtype, RUN_MAY_CHANGE,
         "of what matrix products multiply (CPU: fp32 by default)"},
        {"--threads", "N", {&o.threads, 0, 4096}, RUN_MAY_CHANGE,
         "CPU threads (0: all); does not change a bit"},
        {"--eval-every", "N", {&o.eval_every, 0, 1e9}, RUN_MAY_CHANGE,
         "steps between validations (0: first and last)"},
        {"--eval-batches", "N", {&o.eval_batches, -1, 1e9}, RUN_MAY_CHANGE,
         "batches of a validation (-1: about 100,000 tokens, 0: all)"},
        {"--sample-every", "N", {&o.sample_every, 0, 1e9}, RUN_MAY_CHANGE,
         "steps between samples of text (0: never)"},
        {"--save-every", "N", {&o.save_every, 0, 1e9}, RUN_MAY_CHANGE,
         "steps between checkpoints (0: by time)"},
        {"--save-minutes", "X", {&o.save_minutes, 0, 1e9}, RUN_MAY_CHANGE,
         "minutes between checkpoints by time (0: only the last)"},
        {"--keep", "N", {&o.keep, 0, 1e9}, RUN_MAY_CHANGE,
         "newest checkpoints to keep (0: all); one followed by a finite loss always stays"},
        {"--profile", "", &o.profile, START,
         "print at the end where the time went, layer by layer"},
        {"--out", "DIR", &o.out, START, "the run's folder"},
        {"--resume", "", &o.resume, START,
         "go on from the newest checkpoint in --out; begin if there is none"},
        {"--help", "", &o.help, START, "print this and exit"},
    };
}

inline void print_help(const char* program) {
    printf("Trains a GPT-2.\n\n"
           "    %s --train \"DATA/train_*.bin\" --tokenizer FILE --steps N --out DIR [flags]\n"
           "    %s --resume --out DIR\n\n", program, program);
    Options defaults;
    print_flags(flag_table(defaults));
}

// The key of optimizer.gguf that holds a flag's value: "legible.lr".
inline std::string flag_key(const Flag& f) { return text("legible.%s", f.name + strlen("--")); }

// --resume: every flag of the run takes the checkpoint's value. One on the command line must agree,
// or be one that may change.
inline void resume_flags(const Options& o, const std::vector<Flag>& flags, const Gguf& state) {
    for (const Flag& f : flags) {
        if (f.groups == START) continue;
        std::string key = flag_key(f), now = flag_text(f), then = gguf_string(state, key);
        if (!o.given.count(f.name)) set_flag(f, then, state.file.path + ": " + key);
        else if (f.groups == RUN && now != then)
            fail("%s %s: the run was begun with %s, and it cannot change on --resume", f.name,
                 now.c_str(), then.empty() ? "none" : gguf_printable(then, 200).c_str());
    }
}

// ---- the run ------------------------------------------------------------------------------------

// A line of the log. What was not measured is NAN.
struct Record {
    double loss = NAN, val_loss = NAN, lr = NAN, grad_norm = NAN, ms = NAN;
};

struct Run {
    Options o;
    std::vector<Flag> flags;         // point into o: a Run is never copied
    GPT2 model;
    DataLoader train, val;
    bool has_val = false;
    bool has_tokenizer = false;
    Tokenizer tokenizer;
    GgufWriter tokenizer_keys;               // as model.gguf will hold them
    std::vector<std::string> ingredients;    // what the run is made from, each with its sha256
    int B, T, micro_batches;         // a step is micro_batches batches of B x T
    int64_t step = 0, tokens = 0;    // finished
    int64_t saved = -1;              // the step of the newest checkpoint
    int64_t finite = -1;             // the newest step whose weights gave a finite loss
    LossScale scale;                 // where floatX is float16; else as it came
    Rng rng;                         // of the samples
    double peak;                     // FLOP/s
    double step_ms = 0, eval_ms = 0; // of a step and of a validation, their mean since the start
    int64_t steps_timed = 0, evals_timed = 0;
    bool line_open = false;          // the progress line on a terminal, to be written over
    FILE* log = nullptr;
    std::vector<std::pair<int64_t, double>> losses, val_losses;   // (step, loss), for loss.svg
    Record unfinished;               // of the step resumed from, if its validation was interrupted
    bool has_unfinished = false;
};

// The first window of the step that comes next, counted through all epochs.
inline int64_t next_window(const Run& run) { return run.step * run.micro_batches * run.B; }

// The learning rate of the update that follows `step` finished ones: a linear rise over
// the warmup, then a way down to min_lr, x = 0 at its start and 1 at the last step's end.
// wsd (warmup, stable, decay: Hu et al. 2024, arXiv:2404.06395) stays at lr, and falls linearly
// over the last fifth of the run.
inline double learning_rate(const Options& o, int64_t step) {
    if (step < o.warmup) return o.lr * (double)(step + 1) / (double)o.warmup;
    double x = (double)(step - o.warmup) / (double)std::max<int64_t>(1, o.steps - o.warmup);
    double left = 1;
    if (o.schedule == "cosine") left = 0.5 * (1 + cos_d(3.141592653589793 * x));
    if (o.schedule == "linear") left = 1 - x;
    if (o.schedule == "wsd") {
        double decay = 0.2 * (double)o.steps;
        left = std::min(1.0, (double)(o.steps - step) / std::max(1.0, decay));
    }
    return o.min_lr + left * (o.lr - o.min_lr);
}

// ---- the log ------------------------------------------------------------------------------------

// The number after "key": in a line of our own log; NAN if it is not there.
inline double log_number(const std::string& line, const char* key) {
    size_t at = line.find(std::string("\"") + key + "\":");
    return at == std::string::npos ? NAN : strtod(line.c_str() + at + strlen(key) + 3, nullptr);
}

// Whether something that is done every so many steps, and at the last, is due after this one.
inline bool is_due(const Run& run, int64_t every) {
    return run.step == run.o.steps || (every > 0 && run.step % every == 0);
}

// Opens log.jsonl to go on after record run.step: later records, and a last line that a crash cut
// short, are dropped. What stays also goes into the curves. Where the newest record lacks the
// validation that was due, since a signal came first, it is to be written once more.
inline void open_log(Run& run) {
    std::string path = run.o.out + "/log.jsonl", kept;
    struct stat info;
    if (stat(path.c_str(), &info) == 0 && info.st_size > 0) {
        MappedFile f = map_file(path);
        const char *p = (const char*)f.data, *end = p + f.size;
        while (const char* newline = (const char*)memchr(p, '\n', (size_t)(end - p))) {
            std::string line(p, newline);
            double step = log_number(line, "step"), loss = log_number(line, "loss");
            double val_loss = log_number(line, "val_loss");
            p = newline + 1;
            if (!(step <= (double)run.step)) continue;
            if (step == (double)run.step && run.has_val && std::isnan(val_loss) &&
                (run.step == 0 || is_due(run, run.o.eval_every))) {
                run.has_unfinished = true;
                run.unfinished = {loss, NAN, log_number(line, "lr"), log_number(line, "grad_norm"),
                                  log_number(line, "ms")};
                continue;
            }
            kept += line + "\n";
            if (std::isfinite(loss)) run.losses.push_back({(int64_t)step, loss});
            if (std::isfinite(val_loss)) run.val_losses.push_back({(int64_t)step, val_loss});
        }
        unmap_file(f);
    }
    AtomicFile f = atomic_open(path);
    atomic_write(f, kept.data(), kept.size());
    atomic_close(f);
    run.log = fopen(path.c_str(), "a");
    if (!run.log) fail("%s: cannot be written: %s", path.c_str(), strerror(errno));
}

// One line of the log. What was not measured is left out.
inline void write_record(Run& run, const Record& r) {
    double tok_per_s = (double)run.micro_batches * run.B * run.T / (r.ms / 1000);
    double mfu = tok_per_s * flops_per_token(run.model.config, run.T) / run.peak;
    std::string line = text("{\"step\":%lld,\"tokens\":%lld", (long long)run.step,
                            (long long)run.tokens);
    auto put = [&](const char* key, double x) {
        if (!std::isnan(x)) line += text(",\"%s\":%.9g", key, x);
    };
    put("loss", r.loss);
    put("val_loss", r.val_loss);
    put("lr", r.lr);
    put("grad_norm", r.grad_norm);
    put("ms", r.ms);
    put("tok_per_s", tok_per_s);
    put("mfu", mfu);
    if (fprintf(run.log, "%s}\n", line.c_str()) < 0 || fflush(run.log) != 0)
        fail("%s/log.jsonl: cannot be written: %s (is the disk full?)", run.o.out.c_str(),
             strerror(errno));
    if (!std::isnan(r.loss)) run.losses.push_back({run.step, r.loss});
    if (!std::isnan(r.val_loss)) run.val_losses.push_back({run.step, r.val_loss});
}

// ---- loss.svg -----------------------------------------------------------------------------------

// A round step for about n ticks over a range: 1, 2 or 5 times a power of ten.
inline double tick_step(double range, int n) {
    double rough = range / n, magnitude = pow(10, floor(log10(rough)));
    for (double factor : {1.0, 2.0, 5.0})
        if (rough <= factor * magnitude) return factor * magnitude;
    return 10 * magnitude;
}

// Draws both curves by hand: an SVG is text, and a polyline is a list of points. Ticks are at least
// a millionth of the values apart: closer ones would be one and the same double.
inline void draw_losses(const Run& run) {
    const double W = 720, H = 400, LEFT = 56, RIGHT = 20, TOP = 40, BOTTOM = 44;
    if (run.losses.empty() && run.val_losses.empty()) return;
    double low = INFINITY, high = -INFINITY, last = 1;
    for (auto* curve : {&run.losses, &run.val_losses})
        for (auto& point : *curve) {
            low = std::min(low, point.second);
            high = std::max(high, point.second);
            last = std::max(last, (double)point.first);
        }
    double y_tick = tick_step(std::max({high - low, 1e-3, 1e-6 * high}, std::less<double>()), 6);
    double x_tick = std::max(1.0, tick_step(last, 8));
    low = floor(low / y_tick) * y_tick;
    int y_ticks = std::max(1, (int)ceil((high - low) / y_tick));
    high = low + y_ticks * y_tick;
    auto x = [&](double step) { return LEFT + step / last * (W - LEFT - RIGHT); };
    auto y = [&](double loss) { return TOP + (high - loss) / (high - low) * (H - TOP - BOTTOM); };

    std::string s =
        text("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" "
             "font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">\n"
             "<rect width=\"%g\" height=\"%g\" fill=\"white\"/>\n", W, H, W, H);
    for (int i = 0; i <= y_ticks; i++) {
        double loss = low + i * y_tick;
        s += text("<path d=\"M%g %.1fH%g\" stroke=\"#e4e4e4\"/>"
                  "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                  LEFT, y(loss), W - RIGHT, LEFT - 8, y(loss) + 4, round(loss / y_tick) * y_tick);
    }
    for (int i = 0; i * x_tick <= last; i++)
        s += text("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>\n",
                  x(i * x_tick), H - BOTTOM + 18, i * x_tick);
    s += text("<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">step</text>\n",
              (LEFT + W - RIGHT) / 2, H - 8);
    auto curve = [&](const std::vector<std::pair<int64_t, double>>& points, const char* colour,
                     double width, const char* name, double name_x) {
        if (points.empty()) return;
        size_t every = points.size() / 1000 + 1;   // a screen shows no more
        s += text("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%g\" points=\"",
                  colour, width);
        for (size_t i = 0; i < points.size(); i++)
            if (i % every == 0 || i + 1 == points.size())
                s += text("%.1f,%.1f ", x((double)points[i].first), y(points[i].second));
        s += text("\"/>\n<text x=\"%g\" y=\"24\" fill=\"%s\">%s %.4f</text>\n",
                  name_x, colour, name, points.back().second);
    };
    s += text("<text x=\"%g\" y=\"24\" font-weight=\"bold\">loss (nats per token)</text>\n", LEFT);
    curve(run.losses, "#5b8def", 1, "train", LEFT + 170);
    curve(run.val_losses, "#d9480f", 2, "validation", LEFT + 290);
    s += "</svg>\n";
    AtomicFile f = atomic_open(run.o.out + "/loss.svg");
    atomic_write(f, s.data(), s.size());
    atomic_close(f);
}

// ---- checkpoints --------------------------------------------------------------------------------

inline std::string checkpoint_path(const Run& run, int64_t step) {
    return run.o.out + text("/step-%08lld", (long long)step);
}

// A folder's names, in order.
inline std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (auto& entry : std::filesystem::directory_iterator(folder, error))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

// The step of a name "step-NNNNNNNN" and an ending ("" or ".tmp"); -1 for any other name.
inline int64_t step_of(const std::string& name, const char* ending) {
    size_t digits = name.size() - std::min(name.size(), strlen(ending));
    bool ours = name.rfind("step-", 0) == 0 && digits >= 13 && digits <= 23 &&
                name.compare(digits, std::string::npos, ending) == 0 &&
                name.find_first_not_of("0123456789", 5) >= digits;
    return ours ? atoll(name.c_str() + 5) : -1;
}

// The steps of a folder's checkpoints, in order. One under its final name is complete; anything
// else of such a name would be in the way of a checkpoint to come.
inline std::vector<int64_t> find_checkpoints(const std::string& out) {
    std::vector<int64_t> steps;
    for (const std::string& name : names_in(out)) {
        int64_t step = step_of(name, "");
        if (step < 0) continue;
        for (const char* file : {"model.gguf", "optimizer.gguf"})
            if (access((out + "/" + name + "/" + file).c_str(), F_OK) != 0)
                fail("%s/%s/%s: missing, so this is no checkpoint, but has a checkpoint's name "
                     "(move it out of the run's folder)", out.c_str(), name.c_str(), file);
        steps.push_back(step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
}

// Removes a checkpoint's folder, whole or half written. One in which somebody put anything else
// stays as it is: false.
inline bool remove_checkpoint(const std::string& path) {
    const char* FILES[] = {"model.gguf", "optimizer.gguf"};
    for (const char* file : FILES) remove_temporaries(path, file);
    for (const std::string& name : names_in(path))
        if (name != FILES[0] && name != FILES[1]) return false;
    // Under a name that no one takes for a checkpoint first: a crash half way through leaves
    // nothing that looks whole.
    std::string doomed = path;
    if (step_of(path.substr(path.rfind('/') + 1), ".tmp") < 0) doomed += ".tmp";
    if (doomed != path && rename(path.c_str(), doomed.c_str()) != 0)
        fail("%s: cannot be removed: %s", path.c_str(), strerror(errno));
    for (const char* file : FILES) unlink((doomed + "/" + file).c_str());
    rmdir(doomed.c_str());
    return true;
}

// What a killed process left of files that it was writing or removing.
inline void remove_unfinished(const std::string& out) {
    for (const char* file : {"model.gguf", "log.jsonl", "loss.svg"}) remove_temporaries(out, file);
    for (const std::string& name : names_in(out))
        if (step_of(name, ".tmp") >= 0 && !remove_checkpoint(out + "/" + name))
            fail("%s/%s: is in the way of a checkpoint, but holds files that none has (move it)",
                 out.c_str(), name.c_str());
}

// The newest checkpoint that a finite loss has followed, -1 for none: one that was saved just
// before the loss became NaN is complete, but nobody can go on from it.
inline int64_t good_checkpoint(const Run& run) {
    int64_t good = -1;
    for (int64_t step : find_checkpoints(run.o.out))
        if (step <= run.finite) good = step;
    return good;
}

// --keep: the newest few stay, and the one to fall back on.
inline void remove_old_checkpoints(const Run& run) {
    std::vector<int64_t> steps = find_checkpoints(run.o.out);
    int64_t good = good_checkpoint(run);
    for (size_t i = 0; run.o.keep > 0 && i + (size_t)run.o.keep < steps.size(); i++)
        if (steps[i] != good) remove_checkpoint(checkpoint_path(run, steps[i]));
}

// Leaves the progress line, if it stands there unfinished, so that other text begins on its own.
inline void end_line(Run& run) {
    if (run.line_open) fputc('\n', stderr);
    run.line_open = false;
}

// Stops the program where a number is not finite, before anything made from it is logged or saved.
inline void check_finite(Run& run, int64_t step, const char* what, double x,
                         const std::string& where) {
    if (std::isfinite(x)) return;
    end_line(run);
    int64_t good = good_checkpoint(run);
    std::string last = good < 0 ? "none" : checkpoint_path(run, good);
    fail("step %lld: the %s is %g, in %s. Nothing was saved after it; last good checkpoint: %s "
         "(try a lower --lr or a longer --warmup)",
         (long long)step, what, std::isnan(x) ? NAN : x, where.c_str(), last.c_str());
}

// The last update before a checkpoint may have been the one that broke the weights.
inline void check_weights(Run& run) {
    const GPT2& m = run.model;
    std::vector<float> host(1 << 20);
    for (const float* buffer : {m.master, m.m, m.v})
        for (const Param& p : m.table)
            for (size_t at = 0; at < p.count; at += host.size()) {
                const size_t n = std::min(host.size(), p.count - at);
                to_host(host.data(), buffer + p.offset + at, n * sizeof(float));
                for (size_t i = 0; i < n; i++)
                    if (!std::isfinite(host[i]))
                        check_finite(run, run.step,
                                     buffer == m.master ? "weight" : "state of AdamW", host[i],
                                     text("element %zu of %s", at + i, p.name.c_str()));
            }
}

// Everything but the weights that decides how the run goes on.
inline void save_optimizer(const Run& run, const std::string& path) {
    GgufWriter w;
    gguf_put_string(w, "general.architecture", "gpt2-optimizer");
    gguf_put_u64(w, "legible.step", (uint64_t)run.step);
    gguf_put_u64(w, "legible.tokens", (uint64_t)run.tokens);
    gguf_put_u64(w, "legible.epoch", (uint64_t)(next_window(run) / run.train.windows));
    gguf_put_u64(w, "legible.position", (uint64_t)(next_window(run) % run.train.windows));
    gguf_put_u64(w, "legible.rng", run.rng.state);
    gguf_put_u64(w, "legible.loss_scale", (uint64_t)run.scale.factor);
    gguf_put_u64(w, "legible.loss_scale_steps", (uint64_t)run.scale.steps);
    for (const Flag& f : run.flags)
        if (f.groups != START) gguf_put_string(w, flag_key(f), flag_text(f));
    gguf_put_strings(w, "legible.sha256", run.ingredients);
    gguf_put_string(w, "legible.weights_sha256", weights_sha256(run.model));
    put_params(run.model, w, run.model.m, ".m");
    put_params(run.model, w, run.model.v, ".v");
    gguf_write(w, path, to_host);
}

inline void save_checkpoint(Run& run) {
    if (run.saved == run.step) return;
    check_weights(run);
    std::string path = checkpoint_path(run, run.step), temporary = path + ".tmp";
    if (mkdir(temporary.c_str(), 0777) != 0)
        fail("%s: cannot be created: %s", temporary.c_str(), strerror(errno));
    gpt2_save(run.model, run.tokenizer_keys, run.o.untied, temporary + "/model.gguf");
    save_optimizer(run, temporary + "/optimizer.gguf");
    sync_path(temporary);
    fsync(fileno(run.log));   // a checkpoint must not be newer than its log
    if (rename(temporary.c_str(), path.c_str()) != 0)
        fail("%s: cannot be renamed from %s: %s", path.c_str(), temporary.c_str(), strerror(errno));
    sync_path(run.o.out);
    gpt2_save(run.model, run.tokenizer_keys, run.o.untied, run.o.out + "/model.gguf");
    run.saved = run.step;
    remove_old_checkpoints(run);
}

// A number of a checkpoint's that must be what the others say.
inline void expect_number(const Gguf& state, const char* key, int64_t expected,
                          const char* because) {
    uint64_t found = gguf_int(state, key);
    if (found != (uint64_t)expected)
        fail("%s: key %s: %" PRIu64 ", expected %lld from %s", state.file.path.c_str(), key, found,
             (long long)expected, because);
}

// The loss scale of a checkpoint. Every trainer's has one, so that all can go on from each other's.
inline LossScale read_scale(const Gguf& state) {
    const char* path = state.file.path.c_str();
    uint64_t factor = gguf_int(state, "legible.loss_scale");
    uint64_t steps = gguf_int(state, "legible.loss_scale_steps");
    if (factor < 1 || factor > LARGEST_SCALE || (factor & (factor - 1)) != 0)
        fail("%s: key legible.loss_scale: %" PRIu64 ", expected a power of two up to %d", path,
             factor, LARGEST_SCALE);
    if (steps >= SCALE_STEPS)
        fail("%s: key legible.loss_scale_steps: %" PRIu64 ", expected at most %d", path, steps,
             SCALE_STEPS - 1);
    return {(float)factor, (int)steps};
}

// Takes over the checkpoint of a step; its flags have been taken over before.
inline void load_checkpoint(Run& run, int64_t step, const Gguf& weights, const Gguf& state) {
    gpt2_load(run.model, weights);
    std::vector<float> host;
    for (const Param& p : run.model.table) {
        read_param(state, p, ".m", host);
        to_device(run.model.m + p.offset, host.data(), p.count * sizeof(float));
        read_param(state, p, ".v", host, 0);   // a mean of squares
        to_device(run.model.v + p.offset, host.data(), p.count * sizeof(float));
    }
    std::string made_with = gguf_string(state, "legible.weights_sha256");
    if (made_with != weights_sha256(run.model))
        fail("%s: is not of the same step as the model.gguf beside it (was one of the two copied "
             "from elsewhere?)", state.file.path.c_str());
    run.step = run.saved = step;
    run.finite = step - 1;   // or this checkpoint would not be there
    run.tokens = step * run.micro_batches * run.B * run.T;
    run.rng.state = gguf_int(state, "legible.rng");
    run.scale = read_scale(state);
    expect_number(state, "legible.tokens", run.tokens, "its step and the tokens of a step");
    expect_number(state, "legible.epoch", next_window(run) / run.train.windows,
                  "its step and the windows of an epoch");
    expect_number(state, "legible.position", next_window(run) % run.train.windows,
                  "its step and the windows of an epoch");
    // A crash between the checkpoint's rename and this file's would have left older weights here.
    gpt2_save(run.model, run.tokenizer_keys, run.o.untied, run.o.out + "/model.gguf");
}

inline volatile sig_atomic_t interrupted = 0;   // set by a signal: save, and end

// ---- evaluation and samples ---------------------------------------------------------------------

// Whether this much later is time for another line of progress: on a terminal, where it is written
// over, often; else each ten seconds.
inline bool line_is_due() {
    static double printed = 0;
    double now = seconds_now();
    if (now - printed < (isatty(STDERR_FILENO) ? 0.1 : 10)) return false;
    printed = now;
    return true;
}

// Prints a line of progress over the one before, or, where stderr is no terminal, below it.
inline void print_line(Run& run, const std::string& line) {
    run.line_open = isatty(STDERR_FILENO);
    fprintf(stderr, run.line_open ? "\r\033[K%s" : "%s\n", line.c_str());
}

// The windows of a validation: --eval-batches of B, or about 100,000 tokens, or all there are.
inline int64_t validation_windows(const Run& run) {
    int64_t batches = run.o.eval_batches, windows = batches * run.B;
    if (batches < 0) windows = std::max(1, 100000 / run.T);
    return batches == 0 ? run.val.windows : std::min(windows, run.val.windows);
}

// The mean loss over the validation data from their start, in order. Summed in double. NAN if a
// signal came first.
inline double evaluate(Run& run) {
    int64_t windows = validation_windows(run);
    std::vector<int> inputs(run.B * run.T), targets(inputs.size());
    double total = 0, start = seconds_now();
    for (int64_t first = 0; first < windows; first += run.B) {
        if (interrupted) return NAN;
        int rows = (int)std::min<int64_t>(run.B, windows - first);
        read_rows(run.val, first, rows, inputs.data(), targets.data());
        forward(run.model, inputs.data(), targets.data(), rows, run.T);
        cross_entropy(run.model, 0);
        double loss = mean_loss(run.model);
        check_finite(run, run.step, "validation loss", loss,
                     text("batch %lld of --val", (long long)(first / run.B)));
        total += loss * rows;
        if (line_is_due())
            print_line(run, text("step %lld/%lld  validation: %lld of %lld tokens",
                                 (long long)run.step, (long long)run.o.steps,
                                 (long long)(first + rows) * run.T, (long long)windows * run.T));
    }
    run.finite = run.step;
    run.evals_timed++;
    run.eval_ms += ((seconds_now() - start) * 1000 - run.eval_ms) / (double)run.evals_timed;
    return total / (double)windows;
}

// Prints a sample: from end-of-text on, each token drawn from the model's distribution. The whole
// sequence goes through the model again for each token; ./infer has the cache that makes this fast.
inline void print_sample(Run& run) {
    const Config& c = run.model.config;
    std::vector<int> ids = {run.tokenizer.eot};
    std::vector<floatX> row(c.Vp);
    std::vector<double> p(c.V);
    const Rng before = run.rng;
    while ((int)ids.size() < std::min(run.T, 128)) {
        if (interrupted) {
            run.rng = before;
            return;
        }
        forward(run.model, ids.data(), nullptr, 1, (int)ids.size());
        to_host(row.data(), run.model.acts.logits + (ids.size() - 1) * c.Vp, sizeof(floatX) * c.Vp);
        double most = -INFINITY, total = 0;
        for (int v = 0; v < c.V; v++) most = std::max(most, (double)(float)row[v]);
        for (int v = 0; v < c.V; v++) total += p[v] = exp_f((float)((float)row[v] - most));
        double left = uniform(run.rng) * total;
        int next = 0;
        while (next + 1 < c.V && (left -= p[next]) >= 0) next++;
        if (next == run.tokenizer.eot) break;
        ids.push_back(next);
    }
    std::string sample = decode(run.tokenizer, std::vector<int>(ids.begin() + 1, ids.end()));
    end_line(run);
    printf("--- sample after step %lld\n", (long long)run.step);
    print_utf8(sample, true);
    printf("\n---\n");
    fflush(stdout);
}

// ---- the loop -----------------------------------------------------------------------------------

// Stops the program where a step's loss or norm is not a finite number.
inline void check_step(Run& run, const char* what, double x, int micro) {
    check_finite(run, run.step + 1, what, x,
                 text("micro-batch %d of %d (windows from %lld on of epoch %lld)", micro + 1,
                      run.micro_batches, (long long)(next_window(run) % run.train.windows),
                      (long long)(next_window(run) / run.train.windows)));
}

// Micro-batches until the step's batch is complete: its loss, its gradients and their norm. False
// if a signal came first.
inline bool step_gradients(Run& run, Record& r) {
    std::vector<int> inputs(run.B * run.T), targets(inputs.size());
    double total = 0;
    run.model.loss_scale = PRECISION == FP16 ? run.scale.factor : 1;
    for (int micro = 0; micro < run.micro_batches; micro++) {
        if (interrupted) return false;
        read_rows(run.train, next_window(run) + (int64_t)micro * run.B, run.B, inputs.data(),
                  targets.data());
        forward(run.model, inputs.data(), targets.data(), run.B, run.T);
        double tokens = (double)run.micro_batches * run.B * run.T;
        cross_entropy(run.model, (float)(1.0 / tokens));
        backward(run.model, micro > 0);
        double loss = mean_loss(run.model);
        check_step(run, "loss", loss, micro);
        total += loss;
    }
    r.loss = total / run.micro_batches;
    r.grad_norm = gradients_norm(run.model);
    return true;
}

// One update: gradients that float16 can hold, then AdamW. False if a signal came first; then
// nothing has changed but the gradients, and perhaps their scale. Stops the program, before any
// weight has moved, where the loss or the norm is not a finite number.
inline bool train_step(Run& run, Record& r) {
    double start = seconds_now();
    profile.on = run.o.profile;   // not in validations and samples
    if (!step_gradients(run, r)) return false;
    while (PRECISION == FP16 && !adapt_scale(run.scale, r.grad_norm)) {
        end_line(run);
        fprintf(stderr, "step %lld: gradients beyond float16; again, with the loss times %d\n",
                (long long)run.step + 1, (int)run.scale.factor);
        if (!step_gradients(run, r)) return false;
    }
    check_step(run, "gradient's norm", r.grad_norm, run.micro_batches - 1);
    run.finite = run.step;
    r.lr = learning_rate(run.o, run.step);
    const Options& o = run.o;
    update(run.model, {r.lr, o.beta1, o.beta2, o.eps, o.weight_decay, 1, (int)run.step + 1},
           (float)r.grad_norm, (float)o.grad_clip);
    run.step++;
    run.tokens += (int64_t)run.micro_batches * run.B * run.T;
    r.ms = (seconds_now() - start) * 1000;
    profile.on = false;
    run.steps_timed++;
    run.step_ms += (r.ms - run.step_ms) / (double)run.steps_timed;
    return true;
}

// From what steps and validations have taken so far: "4:07", or "2:05:10" with hours.
inline std::string time_left(const Run& run) {
    int64_t steps = run.o.steps - run.step, every = run.o.eval_every, evals = 0;
    if (run.has_val && steps > 0)
        evals = 1 + (every > 0 ? (run.o.steps - 1) / every - run.step / every : 0);
    int64_t s = (int64_t)(((double)steps * run.step_ms + (double)evals * run.eval_ms) / 1000);
    if (s < 3600) return text("%d:%02d", (int)s / 60, (int)s % 60);
    return text("%lld:%02d:%02d", (long long)s / 3600, (int)(s / 60 % 60), (int)(s % 60));
}

// The newest loss, speed and time left; at each validation and at the end a line that stays.
inline void print_progress(Run& run, const Record& r) {
    bool stays = !std::isnan(r.val_loss) || run.step == run.o.steps;
    if (!line_is_due() && !stays) return;
    double tok_per_s = (double)run.micro_batches * run.B * run.T / (r.ms / 1000);
    std::string val =
        run.val_losses.empty() ? "" : text("  val %.4f", run.val_losses.back().second);
    double of_peak = tok_per_s * flops_per_token(run.model.config, run.T) / run.peak;
    print_line(run, text("step %lld/%lld  loss %.4f%s  lr %.2e  %.0f tok/s  %.1f%% of peak  "
                         "%s left", (long long)run.step, (long long)run.o.steps, r.loss,
                         val.c_str(), r.lr, tok_per_s, 100 * of_peak, time_left(run).c_str()));
    if (stays) end_line(run);
}

// Runs to the last step. False if a signal came first; then too, everything is saved.
inline bool train(Run& run) {
    const Options& o = run.o;
    if (run.saved < 0 || run.has_unfinished) {
        Record r = run.unfinished;
        if (run.has_val) r.val_loss = evaluate(run);
        write_record(run, r);
    }
    // Checkpoints by time: saving takes at most a twentieth of it, however large the model is.
    double saved_at = seconds_now(), pause = 60 * o.save_minutes;
    while (run.step < o.steps && !interrupted) {
        Record r;
        if (!train_step(run, r)) break;
        bool evaluated = run.has_val && is_due(run, o.eval_every);
        if (evaluated) r.val_loss = evaluate(run);
        write_record(run, r);
        print_progress(run, r);
        double now = seconds_now();
        bool by_time = o.save_every == 0 && pause > 0 && now - saved_at >= pause;
        bool save = by_time || is_due(run, o.save_every);
        if (evaluated || save) draw_losses(run);
        if (o.sample_every > 0 && run.step % o.sample_every == 0) print_sample(run);
        if (save) {
            save_checkpoint(run);
            saved_at = seconds_now();
            pause = std::max(60 * o.save_minutes, 20 * (saved_at - now));
        }
    }
    save_checkpoint(run);
    draw_losses(run);
    end_line(run);
    return run.step >= o.steps;
}

// ---- setting up ---------------------------------------------------------------------------------

struct ModelSize {
    const char* name;
    int64_t layers, heads, channels, context;
};

// Radford et al. 2019, table 2; heads from the released models.
const ModelSize MODEL_SIZES[] = {
    {"gpt2", 12, 12, 768, 1024},
    {"gpt2-medium", 24, 16, 1024, 1024},
    {"gpt2-large", 36, 20, 1280, 1024},
    {"gpt2-xl", 48, 25, 1600, 1024},
};

// The model's shape. Three sources: a file (--init, or the checkpoint), a name, or four numbers.
// given is the file or null.
inline Config choose_config(Run& run, const Gguf* given) {
    Options& o = run.o;
    if (given) {
        Config c = gpt2_config(*given);
        const char* path = given->file.path.c_str();
        auto agree = [&](const char* flag, int64_t wanted, int found) {
            bool said = o.given.count(flag) || (o.model.empty() && o.init.empty());
            if (said && wanted != found)
                fail("%s %lld: %s has %d", flag, (long long)wanted, path, found);
        };
        agree("--layers", o.layers, c.L);
        agree("--heads", o.heads, c.NH);
        agree("--channels", o.channels, c.C);
        agree("--context", o.context, c.T);
        return c;
    }
    int64_t layers = o.layers, heads = o.heads, channels = o.channels, context = o.context;
    for (const ModelSize& size : MODEL_SIZES)
        if (o.model == size.name) {
            for (const char* flag : {"--layers", "--heads", "--channels", "--context"})
                if (o.given.count(flag))
                    fail("%s: --model %s has set it already", flag, size.name);
            layers = size.layers, heads = size.heads;
            channels = size.channels, context = size.context;
        }
    if (channels % heads)
        fail("--channels %lld: not a multiple of --heads %lld, which share them out",
             (long long)channels, (long long)heads);
    if (!run.has_tokenizer)
        fail("--tokenizer is missing: it says how many tokens there are (or give --init FILE)");
    return make_config((int)context, (int)run.tokenizer.tokens.size(), (int)layers, (int)heads,
                       (int)channels);
}

// The tokenizer of --tokenizer, or of the file that the weights come from (path). Its keys are
// copied now: the file may be replaced while the run goes on. Returns its sha256, "" for none.
inline std::string open_tokenizer(Run& run, const std::string& path) {
    if (path.empty()) return "";
    Gguf file = gguf_open(path);
    run.has_tokenizer = tokenizer_present(file);
    std::string sha256;
    if (run.has_tokenizer) {
        run.tokenizer = tokenizer_from_gguf(file);
        sha256 = tokenizer_sha256(file);
        for (const GgufKey& key : file.keys)
            if (key.name.rfind("tokenizer.", 0) == 0) gguf_put_key(run.tokenizer_keys, key);
        if (run.tokenizer.tokens.size() > 65536)
            fail("%s: %zu tokens, expected at most 65536 (token shards hold uint16)", path.c_str(),
                 run.tokenizer.tokens.size());
    } else if (path == run.o.tokenizer) {
        fail("--tokenizer %s: holds no tokenizer (no key tokenizer.ggml.tokens)", path.c_str());
    }
    gguf_close(file);
    return sha256;
}

// Lists what the run is made from, a line for each file, and sees to it that all of it was made
// with one tokenizer: with another, the shards' numbers mean other words, and nothing else tells.
inline void list_ingredients(Run& run, const std::string& tokenizer_path, std::string tokenizer) {
    std::string maker = tokenizer_path;   // which file says that `tokenizer` is the one
    double bytes = 0;
    run.ingredients.push_back("tokenizer " + (tokenizer.empty() ? "none" : tokenizer));
    struct { const char* flag; const DataLoader* data; } loaders[] = {
        {"--train", &run.train}, {"--val", &run.val}};
    for (auto& l : loaders)
        for (const TokenShard& s : l.data->shards) {
            bytes += (double)s.file.size;
            if (tokenizer.empty()) tokenizer = s.tokenizer, maker = s.file.path;
            if (!s.tokenizer.empty() && s.tokenizer != tokenizer)
                fail("%s: was made with another tokenizer (sha256 %.16s...) than %s (%.16s...); "
                     "data/prepare.py writes shards and their tokenizer.gguf into one folder",
                     s.file.path.c_str(), s.tokenizer.c_str(), maker.c_str(), tokenizer.c_str());
        }
    if (bytes > 2e9) fprintf(stderr, "reading %.1f GB of shards for their sha256\n", bytes / 1e9);
    for (auto& l : loaders) {
        const std::vector<TokenShard>& shards = l.data->shards;
        std::vector<std::string> lines(shards.size());
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < shards.size(); i++) {
            const MappedFile& f = shards[i].file;
            Sha256 sum;
            sha256_add(sum, f.data, f.size);
            std::string name = f.path.substr(f.path.rfind('/') + 1);
            lines[i] = std::string(l.flag) + " " + name + " " + sha256_hex(sum);
        }
        run.ingredients.insert(run.ingredients.end(), lines.begin(), lines.end());
    }
}

// --resume: all of it must be what the run was begun with.
inline void compare_ingredients(const Run& run, const Gguf& state) {
    typedef std::vector<std::string> Lines;
    const Lines then = gguf_strings(state, "legible.sha256");
    auto first_missing = [](const Lines& of, const Lines& in) {
        for (const std::string& line : of)
            if (std::find(in.begin(), in.end(), line) == in.end()) return gguf_printable(line, 200);
        return std::string("nothing else");
    };
    if (then != run.ingredients)
        fail("--resume %s: the run was begun with other data or another tokenizer: with \"%s\", "
             "where now is \"%s\" (bring the old file back, or begin another run)",
             run.o.out.c_str(), first_missing(then, run.ingredients).c_str(),
             first_missing(run.ingredients, then).c_str());
}

// What a step consists of, in micro-batches and in batches of data.
inline void set_sizes(Run& run, bool resumed) {
    Options& o = run.o;
    const Config& c = run.model.config;
    run.B = (int)o.batch;
    run.T = o.seq ? (int)o.seq : c.T;
    if (run.T > c.T) fail("--seq %d: longer than the context of %d", run.T, c.T);
    if ((int64_t)run.B * run.T > (1 << 24))
        fail("--batch %d: %d x %d tokens are more than 2^24", run.B, run.B, run.T);
    int64_t tokens = (int64_t)run.B * run.T, total = o.total_batch ? o.total_batch : tokens;
    if (total % tokens)
        fail("--total-batch %lld: not a multiple of --batch %d x %d tokens", (long long)total,
             run.B, run.T);
    run.micro_batches = (int)(total / tokens);
    run.train = open_loader("--train", o.train, total / run.T, run.T, o.order == "shuffled",
                            (uint64_t)o.seed);
    run.train.vocabulary = c.V;
    run.has_val = !o.val.empty();
    if (run.has_val) run.val = open_loader("--val", o.val, 1, run.T, false, 0);
    run.val.vocabulary = c.V;
    if (o.epochs > 0 && o.steps > 0 && !resumed)
        fail("--epochs %lld: --steps is given too", (long long)o.epochs);
    if (o.epochs > 0 && o.steps == 0)
        o.steps = std::max<int64_t>(1, o.epochs * run.train.windows / (total / run.T));
    if (o.min_lr > o.lr) fail("--min-lr %g: higher than --lr %g", o.min_lr, o.lr);
}

inline void print_plan(const Run& run) {
    const GPT2& m = run.model;
    const Config& c = m.config;
    double weights = (double)m.space * 4, unshared = 0;
    for (const Activation& a : m.activations) unshared += (double)a.bytes;
    double casts = (void*)m.params == (void*)m.master ? 0 : (double)m.space * sizeof(floatX);
    fprintf(stderr, "device  %s, %.0f GFLOP/s at most\n", device_name(), run.peak / 1e9);
    fprintf(stderr,
            "model   %d layers, %d heads, %d channels, context %d, %d tokens: %zu parameters\n",
            c.L, c.NH, c.C, c.T, c.V, param_count(m));
    fprintf(stderr,
            "memory  %.1f MB: weights %.1f, gradients %.1f, AdamW %.1f, activations %.1f "
            "(%.1f if none took another's place), the layers' own %.1f\n",
            (4 * weights + casts + (double)(m.arena_bytes + m.reserved)) / 1e6,
            (weights + casts) / 1e6, weights / 1e6, 2 * weights / 1e6, (double)m.arena_bytes / 1e6,
            unshared / 1e6, (double)m.reserved / 1e6);
    int64_t step = (int64_t)run.micro_batches * run.B * run.T;
    int64_t tokens = run.train.windows * run.T;
    fprintf(stderr,
            "data    %lld tokens in an epoch; a step is %d x %d x %d = %lld tokens; "
            "%lld steps = %.2f epochs\n",
            (long long)tokens, run.micro_batches, run.B, run.T, (long long)step,
            (long long)run.o.steps, (double)run.o.steps * (double)step / (double)tokens);
}

// Makes sure that --out is this process's, and returns the steps of its checkpoints.
inline std::vector<int64_t> take_folder(const std::string& out) {
    std::string holder;
    if (!lock_folder(out, holder))
        fail("--out %s: %s trains there now (wait for it, stop it, or choose another folder)",
             out.c_str(), gguf_printable(holder, 200).c_str());
    remove_unfinished(out);
    return find_checkpoints(out);
}

// A run that ended before its first checkpoint left a log and perhaps a picture: they stay, under
// the first numbers that are free. A model without a checkpoint is none of ours.
inline void move_old_log(const std::string& out) {
    struct stat info;   // of a link itself, wherever it leads
    if (lstat((out + "/model.gguf").c_str(), &info) == 0)
        fail("--out %s: holds a model.gguf, which a run would replace, but no checkpoint of a run "
             "(choose another folder)", out.c_str());
    for (const char* name : {"log.jsonl", "loss.svg"}) {
        std::string path = out + "/" + name, to;
        if (lstat(path.c_str(), &info) != 0) continue;
        std::string stem = path.substr(0, path.rfind('.')), ending = path.substr(path.rfind('.'));
        for (int i = 1; i == 1 || lstat(to.c_str(), &info) == 0; i++)
            to = stem + text(".%d", i) + ending;
        if (rename(path.c_str(), to.c_str()) != 0)
            fail("%s: cannot be renamed to %s: %s", path.c_str(), to.c_str(), strerror(errno));
        fprintf(stderr, "no checkpoint in %s: the run begins anew, %s is %s now\n", out.c_str(),
                path.c_str(), to.c_str());
    }
}

// The checkpoint that --resume goes on from: opens its two files, and takes over its flags.
inline void open_checkpoint(Run& run, int64_t step, Gguf& weights, Gguf& state) {
    std::string folder = checkpoint_path(run, step);
    weights = gguf_open(folder + "/model.gguf");
    state = gguf_open(folder + "/optimizer.gguf");
    std::string kind = gguf_string(state, "general.architecture");
    if (kind != "gpt2-optimizer")
        fail("%s: key general.architecture: \"%s\", expected \"gpt2-optimizer\"",
             state.file.path.c_str(), gguf_printable(kind, 60).c_str());
    expect_number(state, "legible.step", step, "the folder's name");
    resume_flags(run.o, run.flags, state);
    check_params(state, gpt2_config(weights), {".m", ".v"});
}

// Everything before the first step. The folder is made, and anything in it changed, only once all
// else is known to be right.
inline void open_run(Run& run, int argc, char** argv) {
    Options& o = run.o;
    run.flags = flag_table(o);
    o.given = parse_flags(run.flags, {argv + 1, argv + argc}, argv[0]);
    if (o.help) {
        print_help(argv[0]);
        if (fflush(stdout) != 0) fail("standard output: cannot be written: %s", strerror(errno));
        exit(0);
    }
    std::vector<int64_t> checkpoints;
    struct stat info;
    bool exists = stat(o.out.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    if (exists) checkpoints = take_folder(o.out);
    const bool resumed = !checkpoints.empty();
    if (resumed && !o.resume)
        fail("--out %s: holds a run already (go on with --resume, or choose another folder)",
             o.out.c_str());
    Gguf weights, state;
    if (resumed) open_checkpoint(run, checkpoints.back(), weights, state);
    else if (!o.init.empty()) weights = gguf_open(o.init);
    const bool has_weights = weights.file.data != nullptr;
    if (o.train.empty())
        fail("--train is missing: the token shards to train on (%s --help)%s", argv[0],
             o.resume ? text("; --resume: %s holds no checkpoint to go on from", o.out.c_str())
                            .c_str() : "");
    if (o.steps == 0 && o.epochs == 0 && !resumed && !o.given.count("--steps"))
        fail("--steps is missing: how many updates (or --epochs)");
    device_init((int)o.threads);
    device_dtype(o.dtype.c_str());
    run.peak = device_peak_flops();
    if (o.profile && !device_profile())
        fail("--profile: %s does not time its layers (nsys and ncu do)", device_name());
    std::string tokenizer_path = resumed || o.tokenizer.empty() ? weights.file.path : o.tokenizer;
    std::string tokenizer = open_tokenizer(run, tokenizer_path);
    if (has_weights && tokenizer_present(weights) && tokenizer_sha256(weights) != tokenizer)
        fail("--tokenizer %s: is another than that of %s, whose weights know only their own tokens",
             tokenizer_path.c_str(), weights.file.path.c_str());
    run.model.config = choose_config(run, has_weights ? &weights : nullptr);
    if (run.has_tokenizer && (int)run.tokenizer.tokens.size() != run.model.config.V)
        fail("%s: %zu tokens, but %s has %d rows of token_embd.weight", tokenizer_path.c_str(),
             run.tokenizer.tokens.size(), weights.file.path.c_str(), run.model.config.V);
    if (o.sample_every > 0 && !run.has_tokenizer) fail("--sample-every: needs --tokenizer FILE");
    if (has_weights) check_params(weights, run.model.config, {""});
    set_sizes(run, resumed);
    list_ingredients(run, tokenizer_path, tokenizer);
    if (resumed) compare_ingredients(run, state);
    gpt2_create(run.model, run.model.config, run.B, run.T, (int)o.recompute);
    run.rng = make_rng((uint64_t)o.seed, RNG_SAMPLE, 0);
    if (!exists) {
        std::error_code error;
        std::filesystem::create_directories(o.out, error);
        if (error) fail("--out %s: cannot be created: %s", o.out.c_str(), error.message().c_str());
        if (!take_folder(o.out).empty())
            fail("--out %s: another run began there just now", o.out.c_str());
    }
    if (!resumed) move_old_log(o.out);
    if (resumed) load_checkpoint(run, checkpoints.back(), weights, state);
    else if (has_weights) gpt2_load(run.model, weights);
    else gpt2_init(run.model, (uint64_t)o.seed);
    if (resumed) gguf_close(state);
    if (has_weights) gguf_close(weights);
    open_log(run);
    print_plan(run);
    if (!run.has_tokenizer)
        fprintf(stderr, "warning: no tokenizer, so model.gguf will take and give token ids only\n");
    if (resumed) fprintf(stderr, "resumed after step %lld\n", (long long)run.step);
}

inline void on_interrupt(int) {
    interrupted = 1;
    const char message[] = "\nstopping after this batch, then saving (again: stop at once)\n";
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0) return;
}

// Weak, so that the tests can link a trainer's object beside a main() of their own.
__attribute__((weak)) int main(int argc, char** argv) {
    spin_briefly(argv);
    Run run;
    open_run(run, argc, argv);
    struct sigaction action = {}, before;
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND | SA_RESTART;   // the second Ctrl-C is the system's own
    for (int number : {SIGINT, SIGTERM, SIGHUP}) {
        sigaction(number, &action, &before);
        if (number == SIGHUP && before.sa_handler == SIG_IGN)   // nohup
            sigaction(number, &before, nullptr);
    }
    bool complete = train(run);
    if (run.o.profile) print_profile(run.steps_timed, run.step_ms * (double)run.steps_timed / 1000);
    fclose(run.log);
    gpt2_free(run.model);
    if (complete) {
        fprintf(stderr, "saved %s/model.gguf\n", run.o.out.c_str());
        return 0;
    }
    fprintf(stderr, "saved after step %lld; go on with: %s --resume --out %s\n",
            (long long)run.step, argv[0], run.o.out.c_str());
    return 130;
}
