// vector_types.h - CUDA's small vectors (float4, int2, ...), dim3, and the make_ functions.
// A GPU reads a float4 in one instruction, but only from an address that is a multiple of 16: hence
// the alignments, which are CUDA's own. The emulator checks them.
#pragma once
#define EMU_VECTOR(T, name) \
    struct name##1 { T x; }; \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; }; \
    struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
    inline constexpr name##1 make_##name##1(T x) { return {x}; } \
    inline constexpr name##2 make_##name##2(T x, T y) { return {x, y}; } \
    inline constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    inline constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(signed char, char) EMU_VECTOR(unsigned char, uchar)
EMU_VECTOR(short, short) EMU_VECTOR(unsigned short, ushort)
EMU_VECTOR(int, int) EMU_VECTOR(unsigned int, uint)
EMU_VECTOR(long, long) EMU_VECTOR(unsigned long, ulong)
EMU_VECTOR(long long, longlong) EMU_VECTOR(unsigned long long, ulonglong)
EMU_VECTOR(float, float) EMU_VECTOR(double, double)
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};
