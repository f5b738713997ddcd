// test_numerics.cpp - numerics.h against the C library in double precision, its random numbers
// against known ones, and matmul.h against three plain loops, bit for bit.
#include <algorithm>
#include "check.h"
#ifdef __AVX512F__
#define LEGIBLE_AMX_IN_SOFTWARE   // its tiles, on a processor without them
#endif
#include "../matmul.h"

// The distance to the next float: an error of 1 ulp is a result one float away from the right one.
static double ulp(double x) {
    float f = (float)fabs(x);
    return (double)nextafterf(f, INFINITY) - f;
}

// Calls test(x) for floats from low to high: a sweep over the bit patterns, so that small numbers
// are visited as thoroughly as large ones. A prime step keeps it from meeting the same low bits
// again and again.
static void sweep(float low, float high, uint32_t step, const std::function<void(float)>& test) {
    auto order = [](float x) {   // floats in the order of integers
        int32_t bits = (int32_t)float_to_bits(x);
        return bits < 0 ? -(int64_t)(bits & 0x7fffffff) : (int64_t)bits;
    };
    for (int64_t i = order(low), end = order(high); i <= end; i += step)
        test(bits_to_float(i < 0 ? 0x80000000u | (uint32_t)-i : (uint32_t)i));
}

static void test_exp() {
    double worst = 0;
    auto test = [&](float x) {
        double want = exp((double)x);
        worst = std::max(worst, fabs(exp_f(x) - want) / ulp(want));
    };
    sweep(-87.33f, 88.37f, 499, test);
    for (int n = -125; n <= 126; n++)   // where the reduction changes its n
        for (int i = -50; i <= 50; i++) test((float)((n + 0.5) * 0.6931471805599453 + i * 1e-6));
    check_error("exp_f, in ulp", worst, 1.0);
    check(exp_f(0) == 1, "exp_f(0) is %.9g", exp_f(0));
    check(exp_f(-88) == 0 && exp_f(-1e30f) == 0 && exp_f(-INFINITY) == 0,
          "exp_f of very negative numbers is not 0");
    check(exp_f(89) == exp_f(1e30f) && exp_f(INFINITY) == exp_f(89),
          "exp_f of large numbers is not one number");
    check(fabs(log(exp_f(89)) - 88.37) < 1e-5, "exp_f(89) is %.9g, not e^88.37", exp_f(89));
    check(std::isnan(exp_f(NAN)), "exp_f(NaN) is not NaN");
    report("exp_f");
}

// Both in double, with 1 - sigmoid(x) as sigmoid(-x) so that nothing cancels.
static double gelu_u(double x) {
    return 0.7978845608028654 * (x + 0.044715 * x * x * x);
}

static double gelu_double(double x) {
    return x / (1 + exp(-2 * gelu_u(x)));
}

static double gelu_derivative_double(double x) {
    double u = gelu_u(x), s = 1 / (1 + exp(-2 * u)), rest = 1 / (1 + exp(2 * u));
    return s + x * s * rest * 2 * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

static void test_gelu() {
    double worst = 0, worst_derivative = 0;
    sweep(-9.5f, 30, 4001, [&](float x) {
        // Roundings of u come out of e^-2u multiplied by 2|u|; they matter where it is not small
        // beside 1.
        double amplified = x < 0 ? 2 * fabs(gelu_u(x)) : 0;
        worst = std::max(worst, fabs(gelu(x) - gelu_double(x)) /
                                    (fabs(gelu_double(x)) * (1 + amplified) + 1e-37));
        // 1 - s is off by half a rounding of 1, and multiplied by x 2u'.
        double factor = 2 * fabs(x) * 0.8 * (1 + 0.134145 * x * x) * (x > 6 ? 0 : 1);
        worst_derivative = std::max(
            worst_derivative, fabs(gelu_derivative(x) - gelu_derivative_double(x)) / (4 + factor));
    });
    check_error("gelu, relative", worst, 4 * ROUND_FLOAT);
    check_error("gelu_derivative", worst_derivative, 2 * ROUND_FLOAT);
    check(gelu(0) == 0 && gelu_derivative(0) == 0.5f, "gelu(0) = %g with slope %g", gelu(0),
          gelu_derivative(0));
    for (float x : {30.0f, 1e4f, 1e6f}) {   // e^-2u has left float's range, on either side
        check(gelu(x) == x && gelu_derivative(x) == 1, "gelu(%g) = %g with slope %g", x, gelu(x),
              gelu_derivative(x));
        check(fabs(gelu(-x)) < 1e-30 && fabs(gelu_derivative(-x)) < 1e-20,
              "gelu(%g) = %g with slope %g", -x, gelu(-x), gelu_derivative(-x));
    }
    check(std::isnan(gelu(NAN)) && std::isnan(gelu_derivative(NAN)), "gelu loses a NaN");
    report("gelu");
}

static void test_log_cos() {
    double worst_log = 0, worst_exp = 0, worst_cos = 0, worst_far = 0;
    Rng rng = {1};
    for (int i = 0; i < 1000000; i++) {
        double x = exp(((double)uniform(rng) - 0.5) * (i % 2 ? 1400 : 2)), want = log(x);
        worst_log = std::max(worst_log, fabs(log_d(x) - want) / (fabs(want) + 1e-300));
        double turn = ((double)uniform(rng) - 0.5) * (i % 2 ? 2000 : 13);
        worst_cos = std::max(worst_cos, fabs(cos_d(turn) - cos(turn)));
        worst_far = std::max(worst_far, fabs(cos_d(1000 * turn) - cos(1000 * turn)));
        double y = ((double)uniform(rng) - 0.5) * (i % 2 ? 1400 : 2);
        worst_exp = std::max(worst_exp, fabs(exp_d(y) / exp(y) - 1));
    }
    check_error("exp_d, relative", worst_exp, 1e-15);
    check_error("cos_d of up to a million", worst_far, 1e-9);
    check_error("log_d, relative", worst_log, 1e-15);
    check_error("cos_d", worst_cos, 1e-12);
    check(log_d(1) == 0 && cos_d(0) == 1, "log_d(1) = %g, cos_d(0) = %g", log_d(1), cos_d(0));
    check(log_d(0) == -INFINITY && log_d(INFINITY) == INFINITY, "log_d(0) = %g, log_d(inf) = %g",
          log_d(0), log_d(INFINITY));
    check(std::isnan(log_d(-1)) && std::isnan(log_d(NAN)), "log_d(-1) or log_d(NaN) is not NaN");
    report("log_d, exp_d, cos_d");
}

static void test_random() {
    // SplitMix64's first outputs for the seed 1234567, as its published implementations give them.
    const uint64_t known[5] = {6457827717110365317ull, 3203168211198807973ull,
                               9817491932198370423ull, 4593380528125082431ull,
                               16408922859458223821ull};
    Rng rng = {1234567};
    for (uint64_t want : known) check(random_u64(rng) == want, "random_u64 is not SplitMix64");

    const int n = 1000000;
    double sum = 0, lowest = 1, highest = 0;
    for (int i = 0; i < n; i++) {
        double x = uniform(rng);
        sum += x;
        lowest = std::min(lowest, x);
        highest = std::max(highest, x);
    }
    check_error("uniform, mean", fabs(sum / n - 0.5), 5 * 0.2887 / sqrt(n));   // 5 standard errors
    check(lowest >= 0 && lowest < 1e-4 && highest < 1 && highest > 0.9999, "uniform: %g to %g",
          lowest, highest);

    double moments[5] = {};
    for (int i = 0; i < n; i++) {
        double x = normal(rng), power = 1;
        for (double& moment : moments) {
            moment += power / n;
            power *= x;
        }
    }
    const double want[5] = {1, 0, 1, 0, 3}, variance[5] = {1e-9, 1, 2, 15, 96};   // of x^k
    for (int k = 0; k < 5; k++)
        check_error(text("normal, moment %d", k), fabs(moments[k] - want[k]),
                    5 * sqrt(variance[k] / n));

    std::vector<int> counts(7);
    for (int i = 0; i < 70000; i++) counts[random_below(rng, 7)]++;
    for (int k = 0; k < 7; k++)
        check(abs(counts[k] - 10000) < 500, "random_below: %d is drawn %d times", k, counts[k]);
    bool inside = true;
    for (int i = 0; i < 1000; i++)
        inside &= random_below(rng, 1) == 0 && random_below(rng, 1ull << 63) < 1ull << 63;
    check(inside, "random_below leaves its range");
    report("random numbers");
}

// Generators of one seed, for every purpose and many indices, start at places of their own.
static void test_generators() {
    std::vector<uint64_t> states;
    for (uint64_t seed : {0ull, 1ull, 2ull, 1337ull})
        for (RngPurpose purpose : {RNG_INIT, RNG_ORDER, RNG_SAMPLE})
            for (uint64_t index = 0; index < 50; index++)
                states.push_back(make_rng(seed, purpose, index).state);
    std::sort(states.begin(), states.end());
    bool repeated = std::adjacent_find(states.begin(), states.end()) != states.end();
    check(!repeated, "make_rng gives two purposes the same numbers");
    report("make_rng");
}

// dot's value, in the order that numerics.h promises: 32 lanes, then pairs.
static float plain_dot(const Floats& a, const Floats& b, int n) {
    std::vector<float> lanes(32);
    for (int i = 0; i < n; i++) lanes[i % 32] = fmaf(a[i], b[i], lanes[i % 32]);
    for (int half = 16; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

static void test_dot() {
    Floats a = random_floats(2, 1000, 1), b = random_floats(3, 1000, 1);
    for (int n : {0, 1, 31, 32, 33, 64, 100, 999})
        check(dot(a.data(), b.data(), n) == plain_dot(a, b, n),
              "dot of %d numbers: not the promised order", n);
    report("dot");
}

// ---- matmul.h -----------------------------------------------------------------------------------

// The promise of matmul.h. The first c is kept in `c`.
static Floats plain_matmul(Floats c, Matrix a, Matrix b, int M, int N, int K) {
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++)
                c[m * N + n] =
                    fmaf(a.p[m * a.row + k * a.col], b.p[k * b.row + n * b.col], c[m * N + n]);
    return c;
}

static void test_matmul_sizes(int M, int N, int K) {
    // Vectors of exactly the size needed: a read outside them is what the address sanitizer finds.
    Floats a = random_floats(4, M * K, 1), b = random_floats(5, K * N, 1),
           start = random_floats(6, M * N, 1), bias = random_floats(7, N, 1), with_bias;
    for (int m = 0; m < M; m++) with_bias.insert(with_bias.end(), bias.begin(), bias.end());
    for (int form = 0; form < 4; form++) {   // a and b as they are, or transposed
        Matrix am = form & 1 ? Matrix{a.data(), 1, M} : Matrix{a.data(), K, 1};
        Matrix bm = form & 2 ? Matrix{b.data(), 1, K} : Matrix{b.data(), N, 1};
        std::string name = text("%d x %d x %d, form %d", M, N, K, form);
        Floats sum = plain_matmul(start, am, bm, M, N, K);
        Floats plain = plain_matmul(Floats(M * N), am, bm, M, N, K);
        Finish add, none;
        add.add = true;
        for (bool small : {false, true})   // by all threads, or by one without packing
            for (bool adds : {false, true}) {
                Floats c = adds ? start : Floats(M * N, NAN);
                if (small) gemm(c.data(), N, am, bm, M, N, K, adds);
                else matmul(c.data(), N, am, bm, M, N, K, adds ? add : none);
                check_same((small ? "gemm " : "matmul ") + name, c, adds ? sum : plain);
            }
        Floats expected = plain_matmul(with_bias, am, bm, M, N, K);
        Floats c(M * N, NAN), after(M * N, NAN);
        Finish finish;
        finish.bias = bias.data();
        finish.gelu = after.data();
        matmul(c.data(), N, am, bm, M, N, K, finish);
        check_same("with a bias, " + name, c, expected);
        for (float& x : expected) x = gelu(x);
        check_same("GELU, " + name, after, expected);
        finish = {};
        finish.pre_gelu = start.data();
        for (int i = 0; i < M * N; i++) expected[i] = plain[i] * gelu_derivative(start[i]);
        matmul(c.data(), N, am, bm, M, N, K, finish);
        check_same("times GELU's derivative, " + name, c, expected);
    }
    // Rows that are further apart than they are long: what lies between stays as it was.
    const int ldc = N + 3;
    Floats wide = random_floats(8, M * ldc, 1), expected = wide;
    Matrix am = {a.data(), K, 1}, bm = {b.data(), N, 1};
    Floats plain = plain_matmul(Floats(M * N), am, bm, M, N, K);
    for (int i = 0; i < M * N; i++) expected[i / N * ldc + i % N] = plain[i];
    Floats c = wide;
    matmul(c.data(), ldc, am, bm, M, N, K);
    check_same(text("matmul %d x %d x %d, rows apart", M, N, K), c, expected);
    c = wide;
    gemm(c.data(), ldc, am, bm, M, N, K, false);
    check_same(text("gemm %d x %d x %d, rows apart", M, N, K), c, expected);
}

// Products in bfloat16: exact where every rounding and sum is, and within n * eps of double else.
static void test_bfloat16(const Kernel* kernel) {
    if (!kernel) return;
    for (auto s : std::vector<std::vector<int>>{{1, 1, 1}, {12, 32, 2}, {5, 33, 31}, {40, 70, 33},
             {33, 64, 64}, {32, 32, 400}, {67, 45, 1001}, {130, 96, 800}, {13, 260, 417}}) {
        const int M = s[0], N = s[1], K = s[2];
        for (int form = 0; form < 4; form++) {
            Floats a = random_floats(11, M * K, 1), b = random_floats(12, K * N, 1);
            Matrix am = form & 1 ? Matrix{a.data(), 1, M} : Matrix{a.data(), K, 1};
            Matrix bm = form & 2 ? Matrix{b.data(), 1, K} : Matrix{b.data(), N, 1};
            std::string name = text("%s, %d x %d x %d, form %d", kernel->name, M, N, K, form);
            Floats start = random_floats(13, M * N, 1), bias = random_floats(14, N, 1);
            for (bool adds : {false, true}) {
                Floats c = start;
                Finish finish;
                finish.add = adds;
                if (!adds) finish.bias = bias.data();
                matmul(c.data(), N, am, bm, M, N, K, finish, *kernel);
                int bad = 0;
                for (int i = 0; i < M * N; i++) {
                    const int m = i / N, n = i % N;
                    double sum = adds ? start[i] : bias[n], sizes = fabs(sum);
                    for (int k = 0; k < K; k++) {
                        auto rounded = [](float x) {
                            return (double)bits_to_float(bfloat16_bits(x) << 16);
                        };
                        double x = rounded(am.p[m * am.row + k * am.col]) *
                                   rounded(bm.p[k * bm.row + n * bm.col]);
                        sum += x;
                        sizes += fabs(x);
                    }
                    bad += !(fabs(c[i] - sum) <= (K + 2) * 6e-8 * sizes + 1e-30);
                }
                check(bad == 0, "%s: %d of %d sums are off", name.c_str(), bad, M * N);
            }
            // Small whole numbers: exact, whatever the order.
            for (float& x : a) x = (float)(int)(8 * x);
            for (float& x : b) x = (float)(int)(8 * x);
            Floats c(M * N, NAN);
            matmul(c.data(), N, am, bm, M, N, K, {}, *kernel);
            check_same("whole numbers, " + name, c, plain_matmul(Floats(M * N), am, bm, M, N, K));
        }
    }
    report(kernel->name);
}

static void test_matmul() {
    for (int M : {1, 2, 5, 8, 12, 25})
        for (int N : {1, 3, 16, 31, 32, 33, 70})
            for (int K : {1, 2, 7, 64}) test_matmul_sizes(M, N, K);
    // Past blocks of columns and of steps, past the pieces that threads take, and past what the
    // shared buffer holds of a long product; turned, and with a packed for all and b by each.
    for (auto s : std::vector<std::vector<int>>{
             {3, 257, 300}, {65, 40, 513}, {260, 130, 31}, {67, 1, 257}, {1, 600, 70},
             {301, 300, 200}, {30, 33, 40000}, {33, 30, 40000},
             {65, 1100, 240}, {130, 2100, 126}})
        test_matmul_sizes(s[0], s[1], s[2]);
    // Past the columns, or the rows, that are packed at a time: three rows of the result.
    for (auto s : std::vector<std::vector<int>>{{GROUP + 70, GROUP + 40, 1030},
                                                {GROUP + 40, GROUP + 70, 1030}}) {
        const int M = s[0], N = s[1], K = s[2];
        Floats a = random_floats(9, M * K, 1), b = random_floats(10, K * N, 1), c(M * N, NAN), row;
        const Matrix am = {a.data(), K, 1}, bm = {b.data(), N, 1};
        matmul(c.data(), N, am, bm, M, N, K);
        for (int m : {0, 200, M - 1}) {
            row.assign(c.begin() + m * N, c.begin() + (m + 1) * N);
            check_same(text("row %d of %d x %d x %d", m, M, N, K), row,
                       plain_matmul(Floats(N), part(am, m, 0), bm, 1, N, K));
        }
    }
    report("matmul.h");
}

// Every bfloat16 comes back, and what lies between two of them goes to the nearer, or the even one.
static void test_bfloat16_bits() {
    int wrong_back = 0, wrong_rounding = 0;
    for (uint32_t b = 0; b < 65536; b++) {
        float f = bits_to_float(b << 16);
        uint32_t back = bfloat16_bits(f);
        wrong_back += f != f ? (back & 0x7f80) != 0x7f80 || !(back & 0x7f) : back != b;
        if ((b & 0x7fff) >= 0x7f80) continue;
        wrong_rounding += bfloat16_bits(bits_to_float(b << 16 | 0x7fff)) != b;
        wrong_rounding += bfloat16_bits(bits_to_float(b << 16 | 0x8000)) != b + (b & 1);
        wrong_rounding += bfloat16_bits(bits_to_float(b << 16 | 0x8001)) != b + 1;
    }
    check(wrong_back == 0, "bfloat16_bits: %d of 65536 do not come back", wrong_back);
    check(wrong_rounding == 0, "bfloat16_bits: %d roundings are wrong", wrong_rounding);
    check(bfloat16_bits(bits_to_float(0x7f800001)) == 0x7fc0,
          "bfloat16_bits: a NaN of low bits stays NaN");
    report("bfloat16_bits");
}

int main(int argc, char** argv) {
    return run_tests(argc, argv,
                     {{"exp", test_exp},
                      {"gelu", test_gelu},
                      {"bfloat16_bits", test_bfloat16_bits},
                      {"log_cos", test_log_cos},
                      {"random", test_random},
                      {"generators", test_generators},
                      {"dot", test_dot},
                      {"matmul", test_matmul},
#ifdef LEGIBLE_AMX_IN_SOFTWARE
                      {"bfloat16_amx", [] { test_bfloat16(&BFLOAT16_AMX); }},
#endif
                      {"bfloat16", [] { test_bfloat16(bfloat16_kernel()); }}});
}
