// cuda_fp16.h - half and half2.
#pragma once
#include "emu_float16.h"
EMU_FLOAT16(__half, __half2, half, HALF, emu::half_bits, emu::half_value)
typedef __half half;
typedef __half2 half2;
typedef __half nv_half;
typedef __half2 nv_half2;
#define CUDART_INF_FP16 __ushort_as_half(0x7c00)
#define CUDART_ONE_FP16 __ushort_as_half(0x3c00)
#define CUDART_ZERO_FP16 __ushort_as_half(0)
#define CUDART_MAX_NORMAL_FP16 __ushort_as_half(0x7bff)
