// layers.h - the contract: what each layer of GPT-2 computes, forward and backward.
//
// train_gpt2.cpp implements these functions on the CPU and train_gpt2.cu on a GPU; gpt2.h composes
// them into a model without knowing which; tests/ checks each against PyTorch. Read the equations
// here once, and either implementation is a matter of loops.
//
// Sizes      B sequences of T tokens each, N = B*T rows in all; C channels; NH heads of hs = C/NH
//            channels; V tokens in the vocabulary, stored as Vp: V rounded up to a multiple of 128.
// Layout     row-major, last index fastest: x (B, T, C) has element (b, t, c) at (b*T + t)*C + c.
// Names      inp, out, weight, bias as in the field; dX is the derivative of the loss by X.
// Types      floatX holds activations, their gradients and the weights that layers read: float on
//            the CPU; float, bfloat16 or float16 on a GPU. Statistics, losses and parameter
//            gradients are always float.
// Gradients  backward overwrites (=) the gradients of activations and adds to (+=) those of
//            parameters, so accumulating over micro-batches needs nothing but to call it again.
// Aliasing   buffers do not overlap unless a comment says that they may.
// Pointers   every pointer is to device memory (device_alloc's), except where a comment says host.
//            On the CPU both are the same memory.
// Bits       no sum's order depends on the number of threads: results are functions of the inputs.
#pragma once
#include <cstddef>
#include <cstdint>

enum Precision { FP32, BF16, FP16 };
#if defined LEGIBLE_BF16
#include <cuda_bf16.h>
typedef __nv_bfloat16 floatX;
const Precision PRECISION = BF16;
#elif defined LEGIBLE_FP16
#include <cuda_fp16.h>
typedef __half floatX;
const Precision PRECISION = FP16;
#else
typedef float floatX;
const Precision PRECISION = FP32;
#endif

// ---- the device ---------------------------------------------------------------------------------

// Sets the number of CPU threads (0: one for each core); a GPU is chosen by CUDA_VISIBLE_DEVICES.
void device_init(int threads);
const char* device_name();

// What matrix products are made of: "fp32", or "bf16" or "fp16", inputs rounded to 16 bits and sums
// in float32. "": what the device was built for. An error says what it lacks.
void device_dtype(const char* dtype);

// The most multiply-adds that this device can do, in FLOP per second (a multiply-add is 2) and in
// floatX's precision: measured, or for a known GPU the maker's figure. What MFU is a fraction of.
double device_peak_flops();

// Measures the ceilings of profile.h's table, to which layers add their times while profile.on is
// set. False where they do not time themselves: a GPU's maker has better tools (nsys, ncu).
bool device_profile();

// bytes of memory, aligned to 64 bytes or more; what they hold is for the caller to write, so that
// compute-sanitizer's initcheck sees whoever reads them too early.
// Out of memory is an error that says how much was asked for.
void* device_alloc(size_t bytes);
void device_free(void* p);
void to_device(void* device, const void* host, size_t bytes);
void to_host(void* host, const void* device, size_t bytes);
void device_zero(void* device, size_t bytes);

// How many bytes the layers need for themselves, beside what they are given, for batches of B x T
// tokens and C channels. A GPU takes them now, and does not grow later.
size_t device_reserve(int B, int T, int C);

// ---- encoder ------------------------------------------------------------------------------------
// Radford et al. 2019 (GPT-2), section 2.3; Vaswani et al. 2017, arXiv:1706.03762, section 3.4.
// A token's vector plus its position's:
//     out[b,t] = wte[tokens[b,t]] + wpe[t]
// out (B, T, C)   tokens (B, T), each 0 .. V-1   wte (V, C)   wpe (T or more, C)
void encoder_forward(floatX* out, const int* tokens, const floatX* wte, const floatX* wpe,
                     int B, int T, int C);

//     dwte[v] += sum of dout[b,t] over all (b,t) with tokens[b,t] == v
//     dwpe[t] += sum_b dout[b,t]
// sorted (B*T) holds the rows 0 .. B*T-1 ordered by token, and by row where tokens are equal.
// A token's rows then stand side by side: one thread can add them up, in one order,
// and no two threads share a row of dwte.
void encoder_backward(float* dwte, float* dwpe, const floatX* dout, const int* tokens,
                      const int* sorted, int B, int T, int C);

// ---- layernorm: Ba, Kiros and Hinton 2016, arXiv:1607.06450, section 3 --------------------------
// For each row x of inp, with eps = LAYERNORM_EPS:
//     mean = sum(x) / C      rstd = 1 / sqrt(sum((x - mean)^2) / C + eps)
//     out  = (x - mean) * rstd * weight + bias
// inp, out (B, T, C)   mean, rstd (B, T), kept for backward   weight, bias (C)   out may be inp.
// About 8 FLOPs an element, and 8 bytes of float32: bound by memory everywhere.
const float LAYERNORM_EPS = 1e-5f;
void layernorm_forward(floatX* out, float* mean, float* rstd, const floatX* inp,
                       const floatX* weight, const floatX* bias, int B, int T, int C);

// With xhat = (x - mean) * rstd and g = dout * weight, for each row:
//     dinp = rstd * (g - sum(g) / C - xhat * sum(g * xhat) / C)
// and over all rows:  dweight += sum(dout * xhat)      dbias += sum(dout)
// dinp may be dout.
void layernorm_backward(floatX* dinp, float* dweight, float* dbias, const floatX* dout,
                        const floatX* inp, const floatX* weight, const float* mean,
                        const float* rstd, int B, int T, int C);

// ---- residual_layernorm: the residual sum, and the norm that always follows it ------------------
//     residual = inp1 + inp2      out, mean, rstd = layernorm(residual)
// One function, so that a GPU has the sum in registers. residual may be inp1 or inp2.
void residual_layernorm_forward(floatX* residual, floatX* out, float* mean, float* rstd,
                                const floatX* inp1, const floatX* inp2, const floatX* weight,
                                const floatX* bias, int B, int T, int C);

// The stream's gradient arrives from two sides: dresidual, from whoever reads the sum further on,
// and layernorm's own. A sum hands its gradient on to both summands, so one buffer serves both:
//     dinp = dresidual + layernorm_backward(dout)          (= d inp1 = d inp2)
// dinp may be dresidual.
void residual_layernorm_backward(floatX* dinp, float* dweight, float* dbias,
                                 const floatX* dresidual, const floatX* dout,
                                 const floatX* residual, const floatX* weight,
                                 const float* mean, const float* rstd, int B, int T, int C);

// ---- matmul: a linear layer, with a GELU behind it on request -----------------------------------
//     out[n,o] = sum_c inp[n,c] * weight[o,c] + bias[o]                       if pre_gelu is null
//     pre_gelu = that sum      out = gelu(pre_gelu)  (numerics.h: tanh form)  if not
// inp (B, T, C)   out, pre_gelu (B, T, OC)   weight (OC, C)   bias (OC), or null   2*B*T*C*OC FLOPs
void matmul_forward(floatX* out, floatX* pre_gelu, const floatX* inp, const floatX* weight,
                    const floatX* bias, int B, int T, int C, int OC);

// out = gelu(inp), both (B, T, C): what matmul_forward made of its pre_gelu, once more, for
// activation checkpointing (--recompute 1). In float the bits are the same. In 16 bits they may
// differ by a rounding, where GELU is part of the product: that has the sum before it was rounded.
void gelu_forward(floatX* out, const floatX* inp, int B, int T, int C);

//     dinp[n,c] = sum_o dout[n,o] * weight[o,c]         dinp may be null: then it is not computed
//     dweight[o,c] = sum_n dout[n,o] * inp[n,c]         or, with add, +=
//     dbias[o] += sum_n dout[n,o]                       dbias may be null
// If inp was gelu(pre_gelu), pass that pre_gelu (B, T, C): dinp is then the gradient of pre_gelu,
//     dinp[n,c] *= gelu'(pre_gelu[n,c])
// since a GPU multiplies by it in the product's epilogue. Null otherwise. 4*B*T*C*OC FLOPs.
// Without add, the largest gradients need not be cleared first, nor read back.
void matmul_backward(floatX* dinp, float* dweight, float* dbias, const floatX* dout,
                     const floatX* inp, const floatX* weight, const floatX* pre_gelu,
                     int B, int T, int C, int OC, bool add);

// ---- attention ----------------------------------------------------------------------------------
// Vaswani et al. 2017, section 3.2; Dao et al. 2022, arXiv:2205.14135, section 3.
// In each sequence and head, with scale = 1 / sqrt(hs), position t looks at positions s <= t:
//     score[t,s] = scale * q[t] . k[s]      lse[t] = log sum_{s<=t} e^score[t,s]
//     p[t,s] = e^(score[t,s] - lse[t])      out[t] = sum_{s<=t} p[t,s] v[s]
// qkv (B, T, 3C): a row holds q, then k, then v, and head h has channels h*hs .. h*hs+hs-1 of each.
// out (B, T, C)   lse (B, NH, T), kept for backward, which finds p by it: no T x T matrix is kept.
// About 2*B*T*T*C FLOPs, thanks to the causal half.
void attention_forward(floatX* out, float* lse, const floatX* qkv, int B, int T, int C, int NH);

// With D[t] = dout[t] . out[t], for s <= t and 0 otherwise:
//     dp[t,s] = dout[t] . v[s]                    dscore[t,s] = p[t,s] * (dp[t,s] - D[t])
//     dq[t] = scale * sum_s dscore[t,s] k[s]      dk[s] = scale * sum_t dscore[t,s] q[t]
//     dv[s] = sum_t p[t,s] dout[t]
// dqkv (B, T, 3C)   dout, out (B, T, C)   D (B, NH, T): room to work in. About 5*B*T*T*C FLOPs.
void attention_backward(floatX* dqkv, float* D, const floatX* dout, const floatX* qkv,
                        const floatX* out, const float* lse, int B, int T, int C, int NH);

// ---- classifier: softmax, cross-entropy and their gradient in one -------------------------------
//     losses[n] = log(sum_v e^logits[n,v]) - logits[n,target]            v = 0 .. V-1
//     dlogits[n,v] = (softmax(logits[n])[v] - [v == target]) * dloss     and 0 for v = V .. Vp-1
// logits, dlogits (B, T, Vp)   losses (B, T)   targets (B, T), each 0 .. V-1
// dloss: the derivative of what is minimised by each losses[n], 1/(tokens in the step) for a mean.
// dlogits may be logits, which saves the largest buffer of all, or null, for the losses alone.
void classifier(float* losses, floatX* dlogits, const floatX* logits, const int* targets,
                float dloss, int B, int T, int V, int Vp);

// *total = the sum of N losses, in double. It stays on the device: nobody has to wait for it yet.
void sum_losses(double* total, const float* losses, int N);

// ---- the optimizer ------------------------------------------------------------------------------
// A parameter's place in buffers that hold all of them, one after the other, each from a multiple
// of 64 elements on. What lies between them is 0.
struct Tensor {
    size_t first, count;   // elements
    bool decay;            // weight decay is for this one
    bool product;          // its gradient is a product's, which does not add to what is there
};

// grads = 0 for every tensor of a table whose gradient is no product's, before layers add to it.
void zero_gradients(float* grads, const Tensor* tensors, int n_tensors);

// sqrt(sum_i grads[i]^2), returned to the host. Clipping scales all gradients by
// min(1, clip / norm) (Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 3.2). n elements.
float grad_norm(const float* grads, size_t n);

// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2), steps from 1, for each i:
//     g = grad_scale * grads[i]
//     m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
//     mhat = m / (1 - beta1^step)          vhat = v / (1 - beta2^step)
//     master -= lr * (mhat / (sqrt(vhat) + eps) + weight_decay * master)
//     params = master, rounded to floatX
// master, grads, m, v (n) float; params (n) floatX. params may be master where floatX is float.
// With a table of tensors, in their order, weight_decay is 0 for those that do not decay.
// The settings are double: 1 - beta2 in float would be off in its fifth digit.
struct AdamW {
    double lr, beta1, beta2, eps, weight_decay;
    float grad_scale;
    int step;
};
void adamw_update(floatX* params, float* master, const float* grads, float* m, float* v, size_t n,
                  AdamW adamw, const Tensor* tensors = nullptr, int n_tensors = 0);
