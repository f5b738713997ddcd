// sha256.h - SHA-256 (FIPS 180-4, section 6.2): a file's fingerprint, which nobody can make another
// file to. A run's checkpoints name with it the data and the tokenizer that they were made from.
//
//     Sha256 s;  sha256_add(s, bytes, n); ...  std::string hex = sha256_hex(s)
//
// The message, padded with a one bit, zeros and its length to a multiple of 64 bytes, is taken in
// blocks of 16 words. Eight words of state are stirred 64 times for each block and added to what
// they were before it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

struct Sha256 {
    uint32_t state[8];
    uint64_t bytes = 0;   // so far
    uint8_t block[64];    // the last bytes % 64 of them are not taken yet
    Sha256();
};

// The standard's constants, chosen so that nobody could have chosen them: the first 32 bits behind
// the point of the square roots (state) and cube roots (64 rounds) of the first primes. In front of
// the point are at most 5 bits, so a double's 53 hold what is needed.
struct Sha256Constants {
    uint32_t square[64], cube[64];
    Sha256Constants() {
        int n = 0;
        for (int candidate = 2; n < 64; candidate++) {
            bool prime = true;
            for (int d = 2; d * d <= candidate; d++) prime = prime && candidate % d != 0;
            if (!prime) continue;
            double root2 = sqrt((double)candidate), root3 = cbrt((double)candidate);
            square[n] = (uint32_t)((root2 - floor(root2)) * 0x1p32);
            cube[n++] = (uint32_t)((root3 - floor(root3)) * 0x1p32);
        }
    }
};

inline const Sha256Constants& sha256_constants() {
    static const Sha256Constants constants;
    return constants;
}

inline Sha256::Sha256() { memcpy(state, sha256_constants().square, sizeof state); }

inline uint32_t rotate_right(uint32_t x, int n) { return x >> n | x << (32 - n); }

// The names are the standard's: a to h, W, Ch, Maj.
inline void sha256_block(uint32_t* state, const uint8_t* block) {
    const uint32_t* K = sha256_constants().cube;
    uint32_t W[64];
    for (int t = 0; t < 16; t++)
        W[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < 64; t++) {
        uint32_t x = W[t - 15], y = W[t - 2];
        W[t] = W[t - 16] + (rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3) + W[t - 7] +
               (rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        uint32_t Ch = (e & f) ^ (~e & g), Maj = (a & b) ^ (a & c) ^ (b & c);
        uint32_t T1 = h + (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) + Ch +
                      K[t] + W[t];
        uint32_t T2 = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + Maj;
        h = g, g = f, f = e, e = d + T1, d = c, c = b, b = a, a = T1 + T2;
    }
    const uint32_t after[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; i++) state[i] += after[i];
}

inline void sha256_add(Sha256& s, const void* bytes, uint64_t n) {
    const uint8_t* p = (const uint8_t*)bytes;
    while (n > 0) {
        uint64_t at = s.bytes % 64, part = n < 64 - at ? n : 64 - at;
        if (part == 64) {
            sha256_block(s.state, p);
        } else {
            memcpy(s.block + at, p, part);
            if (at + part == 64) sha256_block(s.state, s.block);
        }
        p += part, n -= part, s.bytes += part;
    }
}

// The digest of all that was added, as 64 hexadecimal digits. A copy is finished: more may follow.
inline std::string sha256_hex(Sha256 s) {
    const uint64_t bits = s.bytes * 8;
    const uint8_t one = 0x80, zero = 0;
    sha256_add(s, &one, 1);
    while (s.bytes % 64 != 56) sha256_add(s, &zero, 1);
    for (int shift = 56; shift >= 0; shift -= 8) {
        uint8_t byte = (uint8_t)(bits >> shift);
        sha256_add(s, &byte, 1);
    }
    std::string hex;
    for (int i = 0; i < 64; i++) hex += "0123456789abcdef"[s.state[i / 8] >> (28 - i % 8 * 4) & 15];
    return hex;
}
