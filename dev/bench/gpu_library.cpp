// gpu_library.cpp - a part of layers.h for Python's ctypes, which finds functions by their C names.
//
// Linked with train_gpt2.cu (or its twin for the CPU) into a shared library, it lets
// gpu_attention.py call the trainer's own attention beside PyTorch's, in one process and by turns.
#include "../../layers.h"

extern "C" {

const char* legible_init() {   // what floatX is, by PyTorch's name
    static const char* const NAMES[] = {"float32", "bfloat16", "float16"};   // Precision's order
    device_init(0);
    return NAMES[PRECISION];
}

void* legible_alloc(size_t bytes) { return device_alloc(bytes); }
void legible_free(void* p) { device_free(p); }
void legible_to_device(void* to, const void* host, size_t bytes) { to_device(to, host, bytes); }
void legible_to_host(void* host, const void* from, size_t bytes) { to_host(host, from, bytes); }

void legible_attention_forward(floatX* out, float* lse, const floatX* qkv, int B, int T, int C,
                               int NH) {
    attention_forward(out, lse, qkv, B, T, C, NH);
}

void legible_attention_backward(floatX* dqkv, float* D, const floatX* dout, const floatX* qkv,
                                const floatX* out, const float* lse, int B, int T, int C, int NH) {
    attention_backward(dqkv, D, dout, qkv, out, lse, B, T, C, NH);
}

}   // extern "C"
