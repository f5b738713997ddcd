// trim.cpp - what a trimmed cache costs: perplexity of the tokens that follow.
//
//     make trim MODEL=model.gguf TEXT=book.txt [WINDOWS=40]
//
// In each of several windows of the text a model reads 384 tokens; then its cache is trimmed to 128
// positions, of which the first K and the newest 128 - K stay, and the next 64 tokens are scored.
#include "../pressure.h"
#include "../sampling.h"

int main(int argc, char** argv) {
    if (argc != 4) fail("usage: trim model.gguf text windows");
    const int READ = 384, LEFT = 128, SCORED = 64, windows = atoi(argv[3]);
    const Model m = load_model(argv[1]);
    const int V = m.d.V, most = std::min(READ, m.d.T - SCORED);
    const MappedFile f = map_file(argv[2]);
    const Tokenizer tokenizer = tokenizer_from_gguf(m.file);
    const std::vector<int> begin = encode_prompt(tokenizer, "");   // what each text begins with
    const std::vector<int> ids =
        encode_prompt(tokenizer, std::string((const char*)f.data, f.size));
    const int64_t room = (int64_t)ids.size() - most - SCORED - 1;
    if (windows < 1 || room < windows)
        fail("%s: %zu tokens, too few for %d windows of %d", argv[2], ids.size(), windows,
             most + SCORED);

    State s = new_state(m, most + SCORED);
    Work w;
    std::vector<float> logit((size_t)SCORED * V);
    printf("%d tokens read, the next %d scored, %d times\n", most, SCORED, windows);
    for (int keep : {-1, 0, 1, 4, 16, 64}) {   // -1: nothing is forgotten
        double nats = 0;
        size_t bytes = 0;
        for (int i = 0; i < windows; i++) {
            const int* text = &ids[room / windows * i];
            std::vector<int> seen(text, text + most);
            std::copy(begin.begin(), begin.end(), seen.begin());
            s.pos = 0;
            forward(m, w, s, seen.data(), most, 0);
            if (keep >= 0) bytes += trim(m, s, seen, keep, LEFT - keep);
            const size_t unseen = seen.size() - s.pos;
            seen.insert(seen.end(), text + most, text + most + SCORED);
            // The last token read predicts the first that is scored: it passes once more.
            if (unseen == 0) s.pos--;
            forward(m, w, s, &seen[s.pos], (int)seen.size() - s.pos - 1, SCORED);
            logits(logit.data(), m, w, 0, SCORED);
            for (int t = 0; t < SCORED; t++)
                nats += log_sum_exp(&logit[(size_t)t * V], V) -
                        logit[(size_t)t * V + text[most + t]];
        }
        const std::string what = keep < 0 ? "all" : text("first %d, newest %d", keep, LEFT - keep);
        printf("%-22s ppl %8.3f   %5.2f MB given back\n", what.c_str(),
               exp(nats / windows / SCORED), (double)bytes / windows / 1e6);
    }
}
