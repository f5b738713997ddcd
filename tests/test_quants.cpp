// test_quants.cpp - quants.h: every format against its equation in double, weight by weight;
// product() against its definition, bit for bit; and the quantizers: known bytes, how near
// the weights come back, and rows that are hard.
#include "check.h"
#include "../quants.h"
#include "../sha256.h"

typedef std::vector<uint8_t> Block;

// ---- slow decoding ------------------------------------------------------------------------------

// Weight i of a block, by its equation. A product of two halfs, and of those by small integers, is
// exact in double: one rounding to float remains, or none that matters where there is a minimum.
static double slow_weight(GgmlType type, const uint8_t* b, int i) {
    auto half = [&](int at) { return (double)half_to_float((uint16_t)(b[at] | b[at + 1] << 8)); };
    auto nibble = [&](int at, int n, int k) {   // weight k of 2n in n bytes
        return k < n ? b[at + k] % 16 : b[at + k - n] / 16;
    };
    if (type == GGML_F32) {
        float x;
        memcpy(&x, b, 4);
        return x;
    }
    if (type == GGML_F16) return half(0);
    if (type == GGML_BF16) return bits_to_float((uint32_t)(b[0] << 16) | (uint32_t)b[1] << 24);
    if (type == GGML_Q8_0) return half(0) * (int8_t)b[2 + i];
    if (type == GGML_Q4_0) return half(0) * (nibble(2, 16, i) - 8);
    if (type == GGML_Q4_1) return half(0) * nibble(4, 16, i) + half(2);
    if (type == GGML_Q6_K) {
        const int part = i / 128, k = i % 128;   // of two halves
        const int upper = (b[128 + 32 * part + k % 32] >> k / 32 * 2) % 4;
        const int q = nibble(64 * part, 64, k) + 16 * upper;
        return half(208) * (int8_t)b[192 + i / 16] * (q - 32);
    }
    const int j = i / 32;   // Q4_K, Q5_K
    int s = b[4 + j % 4], t = b[8 + j % 4], both = b[12 + j % 4];
    if (j < 4) s = s % 64, t = t % 64;
    else s = both % 16 + s / 64 * 16, t = both / 16 + t / 64 * 16;
    int q = nibble((type == GGML_Q5_K ? 48 : 16) + i / 64 * 32, 32, i % 64);
    if (type == GGML_Q5_K) q += (b[16 + i % 32] >> j) % 2 * 16;
    return half(0) * s * q - half(2) * t;
}

// Random bytes, with halfs of moderate size where a block has them.
static Block random_blocks(GgmlType type, int64_t n, uint64_t seed) {
    Rng rng = {seed};
    const GgmlTypeFacts facts = ggml_type_facts(type);
    Block out(row_bytes(type, n));
    for (uint8_t& byte : out) byte = (uint8_t)random_u64(rng);
    auto tame = [&](size_t at) {   // 2^-7 to 2^-3, of either sign
        const uint16_t h = (uint16_t)((random_u64(rng) & 0x8fff) | 0x2000);
        memcpy(&out[at], &h, 2);
    };
    for (size_t b = 0; b < out.size(); b += facts.bytes) {
        const float x = normal(rng);
        if (type == GGML_F32) memcpy(&out[b], &x, 4);
        else if (type == GGML_BF16) quantize_bf16(&out[b], &x, 1);
        else tame(type == GGML_Q6_K ? b + 208 : b);
        if (type == GGML_Q4_1 || type == GGML_Q4_K || type == GGML_Q5_K) tame(b + 2);
    }
    return out;
}

static void test_decoding() {
    for (const Format& f : FORMATS) {
        const GgmlTypeFacts facts = ggml_type_facts(f.type);
        const int64_t n = 256 * 9, block = (int64_t)facts.block;
        const Block row = random_blocks(f.type, n, 1 + f.type);
        Floats got(n), part(n), want(n);
        dequantize(got.data(), f.type, row.data(), 0, n);
        for (int64_t i = 0; i < n; i++)
            want[i] = (float)slow_weight(f.type, &row[i / block * facts.bytes], (int)(i % block));
        check_same(text("%s decoded", facts.name), got, want);
        for (int64_t at = 0; at < n; at += 3 * block)
            dequantize(&part[at], f.type, row.data(), at, std::min(3 * block, n - at));
        check_same(text("%s decoded in pieces", facts.name), part, want);
    }
    for (uint32_t h = 0; h < 0x10000; h++) {   // halfs, all of them
        const uint16_t bits[32] = {(uint16_t)h};
        float one, many[32], want = half_to_float((uint16_t)h);
        dequantize(&one, GGML_F16, (const uint8_t*)bits, 0, 1);
        dequantize(many, GGML_F16, (const uint8_t*)bits, 0, 32);
        if (want != want) continue;
        if (memcmp(&one, &want, 4) != 0 || memcmp(many, &want, 4) != 0)
            check(false, "half %04x is %g and %g, expected %g", h, one, many[0], want);
        if (float_to_half(want) != h) check(false, "half %04x comes back as another", h);
    }
    check(!can_compute_with(GGML_F64) && !can_compute_with(6) && can_compute_with(GGML_Q5_K),
          "what can be computed with");
    report("decoding");
}

// ---- the product --------------------------------------------------------------------------------

// Weight i of a block as q, zero, scale and minimum; and a row's sum as quants.h defines it for
// products in integers, number by number.
struct Parts {
    int q, zero;
    float scale, minimum;   // scale without Q6_K's s
    int s;
};

static Parts parts_of(GgmlType type, const uint8_t* b, int i) {
    auto half = [&](int at) { return half_to_float((uint16_t)(b[at] | b[at + 1] << 8)); };
    auto nibble = [&](int at) { return i < 16 ? b[at + i] % 16 : b[at + i - 16] / 16; };
    if (type == GGML_Q8_0) return {(int8_t)b[2 + i], 0, half(0), 0, 1};
    if (type == GGML_Q4_0) return {nibble(2), 8, half(0), 0, 1};
    if (type == GGML_Q4_1) return {nibble(4), 0, half(0), half(2), 1};
    const int s = (int8_t)b[192 + i / 16];
    uint8_t plain[210];   // the same block with d = 1 and s = 1: its weights are q - 32
    memcpy(plain, b, 210);
    memset(plain + 192, 1, 16);
    plain[208] = 0, plain[209] = 0x3c;
    return {32 + (int)slow_weight(type, plain, i), 32, half(208), 0, s};
}

// int8: the input has one digit, else three.
static float integer_sum(GgmlType type, const float* x, const uint8_t* row, int in, bool int8) {
    const GgmlTypeFacts facts = ggml_type_facts(type);
    const int part = type == GGML_Q6_K ? 16 : 32;   // weights with one scale
    const float range = int8 ? 127 : 127 << 16;
    float sum = 0;
    for (int at = 0; at < in; at += 32) {
        float most = 0;
        for (int i = at; i < at + 32; i++) most = std::max(most, fabsf(x[i]));
        const float inverse = most > 1e-30f ? range / most : 0, scale = most / range;
        int64_t upper = 0, low = 0, inputs = 0;
        for (int i = at; i < at + 32; i++) {
            const int digits = (int)rintf(x[i] * inverse), block = (int)facts.block;
            const Parts p = parts_of(type, row + i / block * facts.bytes, i % block);
            const int last = (digits + 128 + (1 << 24)) % 256 - 128;   // all, if it is one
            upper += (p.q - p.zero) * ((digits - last) / 256), low += (p.q - p.zero) * last;
            inputs += digits;
            if ((i + 1) % part) continue;
            if (type == GGML_Q4_1) sum = fmaf((float)inputs, p.minimum * scale, sum);
            sum = fmaf(fmaf((float)upper, 256, (float)low), (float)p.s * (p.scale * scale), sum);
            upper = low = 0;
        }
    }
    return sum;
}

// In integers; or few rows: dot() on decoded weights, and many: matmul.h's chain, from the bias on,
// in the order of k.
static float expected(const Format& f, const float* x, const float* w, const uint8_t* row,
                      const float* bias, int in, int n, bool int8) {
    if (int8 ? f.one_digit != nullptr : f.three_digits && n < FEW)
        return integer_sum(f.type, x, row, in, int8) + (bias ? *bias : 0);
    if (n < FEW) return dot(x, w, in) + (bias ? *bias : 0);
    float sum = bias ? *bias : 0;
    for (int k = 0; k < in; k++) sum = fmaf(x[k], w[k], sum);
    return sum;
}

static void check_product(const Format& f, int in, int out, int n, bool with_bias, bool int8) {
    const char* name = ggml_type_facts(f.type).name;
    const std::string what =
        text("%s (%d, %d), %d rows%s", name, out, in, n, int8 ? " of int8" : "");
    const Block data = random_blocks(f.type, (int64_t)in * out, 77);
    const Floats x = random_floats(5, (size_t)in * n, 1), bias = random_floats(6, out, 1);
    const float* b = with_bias ? bias.data() : nullptr;
    Floats w((size_t)in * out), want((size_t)n * out), first;
    for (int o = 0; o < out; o++)
        dequantize(&w[(size_t)o * in], f.type, data.data() + o * row_bytes(f.type, in), 0, in);
    for (int i = 0; i < n; i++)
        for (int o = 0; o < out; o++) {
            const float *row = &w[(size_t)o * in], *inp = &x[(size_t)i * in];
            const uint8_t* bytes = data.data() + o * row_bytes(f.type, in);
            want[(size_t)i * out + o] =
                expected(f, inp, row, bytes, b ? b + o : nullptr, in, n, int8);
            double exact = b ? b[o] : 0, scale = fabs(exact), half_steps = 0;
            for (int k = 0; k < in; k++) {
                exact += (double)inp[k] * row[k], scale += fabs((double)inp[k] * row[k]);
                double most = 0;
                for (int j = k / 32 * 32; int8 && f.one_digit && j < k / 32 * 32 + 32; j++)
                    most = std::max(most, fabs((double)inp[j]));
                half_steps += most / 254 * fabs((double)row[k]);
            }
            check_error(what, fabs(want[(size_t)i * out + o] - exact),
                        (2 * sqrt(in) + 2) * ROUND_FLOAT * scale + half_steps);
        }
    for (int threads : {1, 2, 3}) {
        use_threads(threads);
        Floats got((size_t)n * out + 1, NAN);
        product(got.data(), x.data(), {f.type, data.data(), in, out, int8}, b, n);
        check(std::isnan(got.back()), "%s: wrote behind its result", what.c_str());
        got.pop_back();
        check_same(text("%s, %d threads", what.c_str(), threads), got, want);
    }
    use_threads(processors());
}

static void test_product() {
    for (const Format& f : FORMATS)
        for (bool int8 : {false, true}) {
            const int block = (int)ggml_type_facts(f.type).block;
            for (int n : {1, 2, 3, 4, 5, 6, 7, 9, 16, 33})
                for (int out : {1, 2, 5, 33}) check_product(f, 256, out, n, out % 2, int8);
            for (int n : {1, 3, 8}) check_product(f, 1280, 7, n, true, int8);
            check_product(f, 768, 179, 1, true, int8);   // enough for threads to share it
            check_product(f, 2304, 19, 8, true, int8);   // a long row's input passes in parts
            // KC ends within a block; two BLOCKs of columns; INPUTS_AT_ONCE and some more rows
            check_product(f, 1280, 135, 33, true, int8);
            check_product(f, 256, 5, 133, true, int8);
            if (block == 32)   // rows that end within a group of 128
                for (int in : {32, 64, 96, 160, 576}) check_product(f, in, 5, 2, true, int8);
            if (block == 1)
                for (int n : {1, 3, 8})
                    for (int in : {1, 31, 37, 1031}) check_product(f, in, 3, n, true, int8);
        }
    report("product");
}

// What the digits of integer products can and cannot hold: extremes, zeros, numbers too small to
// count, and those that are none, which must come out as none.
static void test_hard_input() {
    for (const Format& f : FORMATS)
        for (bool int8 : {false, true}) {
            if (!(int8 ? f.one_digit != nullptr : f.three_digits != nullptr)) continue;
            const char* name = ggml_type_facts(f.type).name;
            const int in = 512;
            Block row(row_bytes(f.type, in), 0xff);   // every q at its most, every scale NaN but:
            const GgmlTypeFacts facts = ggml_type_facts(f.type);
            for (size_t b = 0; b < row.size(); b += facts.bytes)
                for (size_t half : {f.type == GGML_Q6_K ? 208 : 0,
                                    f.type == GGML_Q4_1 ? 2 : f.type == GGML_Q6_K ? 208 : 0})
                    put_half(&row[b + half], 1);
            if (f.type == GGML_Q8_0)   // its bytes have a sign: the least
                for (size_t b = 0; b < row.size(); b++)
                    if (b % 34 >= 2) row[b] = 0x80;
            Floats x(in, 1);
            for (int i = 0; i < in; i++) {
                if (i < 128) x[i] = i % 2 ? -3e38f : 3e38f;
                else x[i] = i < 256 ? 0.0f : i < 384 ? 1e-36f : i % 32 == 0 ? -1 : 1e-6f;
                if (i > 480) x[i] = 128.0f / (127 << 16);   // with three digits: 0, 1, -128
            }
            for (int i = 0; i < 128; i++) x[i] *= i < 64 ? 1e-37f : 1;
            for (int i = 64; i < 128; i++) x[i] *= 1e-35f;
            const Weight w = {f.type, row.data(), in, 1, int8};
            float got;
            product(&got, x.data(), w, nullptr, 1);
            const float want = integer_sum(f.type, x.data(), row.data(), in, int8);
            check(memcmp(&got, &want, 4) == 0, "%s: hard input gives %a, expected %a", name, got,
                  want);
            for (float bad : {NAN, INFINITY, -INFINITY})
                for (int at : {0, 200, 511}) {
                    Floats y = x;
                    y[at] = bad;
                    product(&got, y.data(), w, nullptr, 1);
                    check(!std::isfinite(got), "%s: %g at %d gives %g", name, bad, at, got);
                }
        }
    report("hard input");
}

// ---- encoding -----------------------------------------------------------------------------------

// Rows as they are in models, and rows that are hard: 0 and -0, one huge number, ties, numbers that
// are equal in magnitude, and some so small that no half holds their scale.
static Floats hard_rows() {
    Floats x = random_floats(11, 16 * 256, 0.02f);
    for (int i = 0; i < 256; i++) {
        x[1 * 256 + i] = i % 2 ? -0.0f : 0.0f;
        x[2 * 256 + i] *= i == 40 ? 3000.0f : 1.0f;
        x[3 * 256 + i] = (float)(i % 17 - 8) * 0.5f;
        x[4 * 256 + i] = i % 3 ? 1.0f : -1.0f;
        x[5 * 256 + i] *= 1e-4f;
        x[6 * 256 + i] *= 1e-12f;
        x[7 * 256 + i] *= 1e-38f;
        x[8 * 256 + i] = i % 32 < 16 ? 0.0f : x[8 * 256 + i];
        x[9 * 256 + i] *= i % 16 == 5 ? 100.0f : 0.001f;
        x[10 * 256 + i] = i == 7 ? 1.0f : 0.0f;
        x[11 * 256 + i] = (float)(i - 128) / 127 * 2;
        x[12 * 256 + i] = i % 32 ? (float)(i % 32 - 16) + 0.5f : 127.0f;   // Q8_0's step is 1
    }
    return x;
}

// Made by ggml_quantize_chunk() of llama.cpp's libggml-base on hard_rows(), no importance matrix.
static const struct {
    GgmlType type;
    const char* sha256;
} KNOWN[] = {
    {GGML_F16, "8f99ca37a49aa794409b49546c6b260879b9deb001a5025b4a58e6ca49df7a3a"},
    {GGML_BF16, "8e553357a9146a700121259c4c5988e99b924469341a5ca843e1d2d0c3d6c489"},
    {GGML_Q8_0, "a3e21d1c8f420babfe8c890e10dcdd1551a1ea80f3c98116c9b254f920e28d6c"},
    {GGML_Q4_0, "c28c2cfac0b0d0fef242179cfe558ebd6b42a42282e4a72c4dc0fb2961e70cbc"},
    {GGML_Q6_K, "ae61f01ad2a773587d4005e5c66a79fba8bf106d8c34a5fbcf48a9c4323613f3"}};

static void test_known_bytes() {
    const Floats x = hard_rows();
    for (const auto& known : KNOWN) {
        Block bytes(row_bytes(known.type, (int64_t)x.size()));
        find_format(known.type)->quantize(bytes.data(), x.data(), (int64_t)x.size());
        Sha256 sum;
        sha256_add(sum, bytes.data(), bytes.size());
        const std::string found = sha256_hex(sum);
        check(found == known.sha256, "%s: sha256 %s, expected %s", ggml_type_facts(known.type).name,
              found.c_str(), known.sha256);
    }
    report("known bytes");
}

// Each weight comes back within half a step, where the largest of its group fixes the step; and a
// weight that a format can hold comes back as it is.
static void test_rounding() {
    const struct {
        GgmlType type;
        int group;
        double step;   // of the largest. Q6_K's scale is itself rounded, and chosen for the sum
    } cases[] = {{GGML_Q8_0, 32, 1.0 / 127}, {GGML_Q4_0, 32, 1.0 / 8}, {GGML_Q6_K, 16, 1.3 / 32}};
    const int n = 64 * 256;
    const Floats x = random_floats(12, n, 0.02f);
    for (const auto& c : cases) {
        const char* name = ggml_type_facts(c.type).name;
        const Format& f = *find_format(c.type);
        Block bytes(row_bytes(c.type, n)), again(bytes.size());
        Floats back(n);
        f.quantize(bytes.data(), x.data(), n);
        f.dequantize(back.data(), bytes.data(), n);
        for (int g = 0; g < n; g += c.group) {
            double most = 0;
            for (int i = g; i < g + c.group; i++) most = std::max(most, fabs((double)x[i]));
            for (int i = g; i < g + c.group; i++) {
                // Q4_0's largest is -8; a weight of the other sign may lie beyond 7.
                const double allowed = c.type == GGML_Q4_0 ? 1.01 : 0.55;
                check_error(text("%s weight %d", name, i), fabs((double)back[i] - x[i]),
                            allowed * c.step * most + 1e-9);
            }
        }
    }
    Floats zero(256), back(256, 1);
    for (const Format& f : FORMATS) {
        if (!f.quantize) continue;
        Block bytes(row_bytes(f.type, 256), 0xff);
        f.quantize(bytes.data(), zero.data(), 256);
        f.dequantize(back.data(), bytes.data(), 256);
        for (float v : back)
            if (v != 0) check(false, "%s: 0 comes back as %g", ggml_type_facts(f.type).name, v);
    }
    const std::pair<float, int> halves[] = {
        {1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff}, {65519.99f, 0x7bff}, {65520, 0x7c00},
        {INFINITY, 0x7c00}, {0x1p-24f, 1}, {0x1p-25f, 0}, {0x1.8p-24f, 2}, {0x1.002p0f, 0x3c00},
        {0x1.006p0f, 0x3c02}, {0x1.ff8p-15f, 0x3ff}, {0x1.ffcp-15f, 0x400}, {-0.0f, 0x8000}};
    for (const auto& h : halves)
        check(float_to_half(h.first) == h.second, "half of %a: %04x, expected %04x", h.first,
              float_to_half(h.first), h.second);
    check(float_to_half(NAN) == 0x7e00, "half of NaN");
    report("rounding");
}

int main(int argc, char** argv) {
    return run_tests(argc, argv, {{"decoding", test_decoding},
                                  {"product", test_product},
                                  {"hard input", test_hard_input},
                                  {"known bytes", test_known_bytes},
                                  {"rounding", test_rounding}});
}
