#!/usr/bin/env python3
"""mutants.py - plants known bugs, one at a time, and sees that the tests catch every one.

    tests/mutants.py            all of them                                    (make test-mutants)
    tests/mutants.py WORD...    those whose file or description contains a word

A test that passes says little until it has been seen to fail. Each mutant below is a mistake that
somebody could make, or has made: a term left out, = for +=, a bound off by one. It is planted in a
copy of the tree; the test that it names is built and run there, and must fail. A mutant that is not
noticed fails this program, and so does one whose text is not found exactly once, since then it no
longer speaks of the code as it is.
"""
import concurrent.futures
import glob
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JOBS = os.cpu_count() + 1   # some tests wait for most of their time
LIMIT = 300   # seconds; a test that a mutant keeps running for ever counts as failed

# What a mutant is caught by: a program or script, whose first argument chooses the test.
PROGRAMS = ["numerics", "layers", "model", "gguf", "flags", "tokenizer",   # build/test_X
            "dataloader", "quants", "runtime", "speculate",
            "layers_fp32", "layers_bf16", "layers_sm90",   # of train_gpt2.cu, on the emulator
            "ladder"]   # build/ladder
SCRIPTS = {"infer": ["infer"], "chat": ["infer"], "draft": ["infer"],   # tests/test_X.py runs these
           "trainer": ["train_gpt2", "infer"], "quantize": ["infer"],
           "safety": ["train_gpt2", "infer"], "data": ["infer"], "bundle": ["infer", "runtime"],
           "corpora": []}
# How that is built. Without optimisation, since most of the time goes into compiling; by clang if
# there is one, which takes half as long as g++.
KINDS = {"slow": ["OPTIMIZE=-O1", "CLANG"],   # these run longer than it takes to compile them
         "usual": ["OPTIMIZE=-O0", "CLANG", "EMU_CHECK=0"],
         "g++": ["OPTIMIZE=-O0"],   # for the emulator's checks, and OpenMP in a static program
         "static": ["OPTIMIZE=-O0", "CLANG", "OPENMP="]}
KIND_OF = {"ladder check": "slow", "speculate law": "slow", "numerics matmul": "slow",
           "safety signals_in_a_validation": "slow", "layers_bf16": "g++", "bundle runs": "g++",
           "bundle forms": "g++", "bundle": "static"}   # the others: usual

# (file, what is wrong, the text, the text instead, the test that must fail: its program or script,
# its name or a part of it, and what the environment must hold)
MUTANTS = [
    # ---- layers ----------------------------------------------------------------------------------
    ("train_gpt2.cpp", "encoder: position is the row in the batch",
     "wpe + (int64_t)(n % T) * C", "wpe + (int64_t)(n / T) * C", "layers encoder"),
    ("train_gpt2.cpp", "encoder: a token's gradient takes its last row only",
     "for (int j = i; j < N && tokens[sorted[j]] == token; j++) {\n            const float* d",
     "for (int j = i; j < i + 1; j++) {\n            const float* d", "layers encoder"),
    ("train_gpt2.cpp", "encoder: positions' gradient overwrites",
     "const float* d = dout + ((int64_t)b * T + t) * C;\n"
     "            for (int c = 0; c < C; c++) row[c] += d[c];",
     "const float* d = dout + ((int64_t)b * T + t) * C;\n"
     "            for (int c = 0; c < C; c++) row[c] = d[c];", "layers encoder"),
    ("train_gpt2.cpp", "layernorm: no epsilon",
     "/ C + LAYERNORM_EPS)", "/ C)", "layers layernorm"),
    ("train_gpt2.cpp", "layernorm: the variance is divided by C - 1",
     "sum_squared_deviations(x, m, C) / C", "sum_squared_deviations(x, m, C) / (C - 1)",
     "layers layernorm"),
    ("train_gpt2.cpp", "layernorm: backward leaves out the mean of g",
     "g[c] - g_mean - xhat[c]", "g[c] - xhat[c]", "layers layernorm"),
    ("train_gpt2.cpp", "layernorm: backward leaves out the mean of g * xhat",
     "- g_mean - xhat[c] * g_xhat_mean", "- g_mean", "layers layernorm"),
    ("train_gpt2.cpp", "layernorm: no gradient of the bias",
     "    add_columns(dbias, dout, N, C);\n#pragma", "#pragma",
     "layers layernorm"),
    ("train_gpt2.cpp", "layernorm: the weight's gradient overwrites",
     "dweight[c0 + c] += dw[c];", "dweight[c0 + c] = dw[c];", "layers layernorm"),
    ("train_gpt2.cpp", "residual: its own gradient is dropped",
     "dx[c] = skip ? skip[c] + norm : norm;", "dx[c] = norm;\n                (void)skip;",
     "layers residual"),
    ("train_gpt2.cpp", "matmul: no gradient of the bias",
     "add_columns(dbias, dout, N, OC);", "(void)dbias;",
     "layers matmul"),
    ("train_gpt2.cpp", "matmul: the bias's gradient overwrites",
     "to[c0 + c] += sums[c];", "to[c0 + c] = sums[c];",
     "layers matmul"),
    ("train_gpt2.cpp", "matmul: dinp is added to what was there",
     "    finish.pre_gelu = pre_gelu;\n", "    finish.pre_gelu = pre_gelu, finish.add = true;\n",
     "layers matmul"),
    ("train_gpt2.cpp", "matmul: GELU's derivative is left out",
     "    finish.pre_gelu = pre_gelu;\n", "    (void)pre_gelu;\n",
     "layers matmul"),
    ("train_gpt2.cpp", "matmul: GELU's derivative at the wrong side of it",
     "    finish.pre_gelu = pre_gelu;\n", "    finish.pre_gelu = pre_gelu ? inp : nullptr;\n",
     "layers matmul"),
    ("train_gpt2.cpp", "attention: no 1/sqrt(hs)",
     "                    1.0f / sqrtf((float)hs));", "                    1.0f);",
     "layers attention"),
    ("train_gpt2.cpp", "attention: no 1/sqrt(hs) in backward",
     "dp[s * QUERIES + i] = scale * e *", "dp[s * QUERIES + i] = e *",
     "layers attention"),
    ("train_gpt2.cpp", "attention: a position does not see itself",
     "lane < s - h.t0; lane++)", "lane <= s - h.t0; lane++)", "layers attention"),
    ("train_gpt2.cpp", "attention: the mask forgets a block's last columns",
     "for (int s = h.t0 + 1; s < h.keys; s++)", "for (int s = h.t0 + 1; s < h.keys - 1; s++)",
     "layers attention"),
    ("train_gpt2.cpp", "attention: the mask is off by one in backward",
     "lane < s - h.t0; lane++)", "lane < s - h.t0 - 1; lane++)",
     "layers attention"),
    ("train_gpt2.cpp", "attention: the maximum is not subtracted",
     "most[i] = p[i];\n                    for (int s = 1;",
     "most[i] = 0;\n                    for (int s = h.keys;",
     "layers attention"),
    ("train_gpt2.cpp", "attention: lse without the maximum",
     "l[i] = most[i] + (float)log_d(total[i]);", "l[i] = (float)log_d(total[i]);",
     "layers attention"),
    ("train_gpt2.cpp", "attention: backward without D",
     "(dp[s * QUERIES + i] - d[i])", "dp[s * QUERIES + i]",
     "layers attention"),
    ("train_gpt2.cpp", "attention: a head's dk takes the place of its dv",
     "*dk = dfirst + C, *dv = dfirst + 2 * C;", "*dk = dfirst + C, *dv = dfirst + C;",
     "layers attention"),
    ("train_gpt2.cpp", "attention: a block's dk does not reach the keys before it",
     "gemm(dk, 3 * C, {dp, QUERIES, 1}, dpq, t0", "gemm(dk, 3 * C, {dp, QUERIES, 1}, dpq, 0",
     "layers attention"),
    ("train_gpt2.cpp", "classifier: the maximum is not subtracted",
     "float most = largest(x, V);", "float most = 0;",
     "layers classifier"),
    ("train_gpt2.cpp", "classifier: dloss is forgotten",
     "float factor = dloss / total;", "float factor = 1 / total;", "layers classifier"),
    ("train_gpt2.cpp", "classifier: the target's - 1 is forgotten",
     "d[targets[n]] -= dloss;", "", "layers classifier"),
    ("train_gpt2.cpp", "classifier: the maximum looks at padding",
     "float most = largest(x, V);", "float most = largest(x, Vp);",
     "layers classifier"),
    ("train_gpt2.cpp", "grad_norm: no root",
     "return (float)sqrt(total);", "return (float)total;", "layers grad_norm"),
    ("train_gpt2.cpp", "adamw: beta1 and beta2 swapped",
     "const float beta1 = (float)a.beta1, rest1 = (float)(1 - a.beta1);",
     "std::swap(a.beta1, a.beta2);\n"
     "    const float beta1 = (float)a.beta1, rest1 = (float)(1 - a.beta1);", "layers adamw"),
    ("train_gpt2.cpp", "adamw: no bias correction of v",
     "vhat = v[i] * correction2", "vhat = v[i]", "layers adamw"),
    ("train_gpt2.cpp", "adamw: no bias correction of m",
     "float mhat = m[i] * correction1", "float mhat = m[i]", "layers adamw"),
    ("train_gpt2.cpp", "adamw: epsilon inside the root",
     "sqrtf(vhat) + eps", "sqrtf(vhat + eps)", "layers adamw"),
    ("train_gpt2.cpp", "adamw: weight decay as part of the gradient",
     "float g = a.grad_scale * grads[i];",
     "float g = a.grad_scale * grads[i] + weight_decay * master[i];", "layers adamw"),
    ("train_gpt2.cpp", "adamw: clipping's scale is ignored",
     "float g = a.grad_scale * grads[i];", "float g = grads[i];", "layers adamw"),

    # ---- the same layers in CUDA -----------------------------------------------------------------
    ("train_gpt2.cu", "sums: a block does not wait for its warps",
     "__syncthreads();   // all warps' sums are there\n    float total = 0;\n"
     "    for (int warp = 0; warp < (int)blockDim",
     "float total = 0;\n    for (int warp = 0; warp < (int)blockDim", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "matmul: the weight's gradient is added to what nobody cleared",
     "{false, true, true, add}", "{false, true, true, true}", "layers_fp32 matmul"),
    ("train_gpt2.cu", "sums: shuffles begin at a quarter of the lanes",
     "for (int other = width / 2; other > 0; other /= 2) x += ",
     "for (int other = width / 4; other > 0; other /= 2) x += ", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "sums: the columns of two warps are added before all have come",
     "__syncthreads();   // all warps' sums are there\n    float total = 0;\n"
     "    if (threadIdx.x < SUM_COLUMNS)",
     "float total = 0;\n    if (threadIdx.x < SUM_COLUMNS)", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "sums: a stride that fits one of two users only",
     "load(parts + (int64_t)p * stride + column", "load(parts + (int64_t)p * n + column",
     "layers_fp32 layernorm"),
    ("train_gpt2.cu", "tails: a row's last elements are not read",
     "j < left ? (float)p[j] : 0.0f", "0.0f", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "tails: one element too many is written",
     "if (j < left) p[j] = (Number)v.x[j];", "if (j <= left) p[j] = (Number)v.x[j];",
     "layers_fp32 layernorm"),
    ("train_gpt2.cu", "tails: 16 bytes at once from any address",
     "Vec v;\n    if (left >= VEC && (uintptr_t)p % 16 == 0) {", "Vec v;\n    if (left >= VEC) {",
     "layers_bf16 layernorm"),
    ("train_gpt2.cu", "encoder: positions' gradient with the stride of one sequence",
     "((int64_t)b * T + t) * C + c", "((int64_t)b + t) * C + c", "layers_fp32 encoder"),
    ("train_gpt2.cu", "encoder: two blocks write a token's gradient",
     "if (i > 0 && tokens[sorted[i - 1]] == token)\n        return;", "if (i < 0)\n        return;",
     "layers_fp32 encoder"),
    ("train_gpt2.cu", "layernorm: channels beyond C count in the variance",
     "c + j < C ? x.x[j] - m : 0.0f", "x.x[j] - m", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "layernorm: two sums share their shared memory",
     "block_sum(squares, sums[1])", "block_sum(squares, sums[0])", "layers_bf16 layernorm"),
    ("train_gpt2.cu", "layernorm: no gradient of the bias",
     "add_parts(dbias, parts + C, n_parts, 2 * C, C);", "", "layers_fp32 layernorm"),
    ("train_gpt2.cu", "matmul: the last part of a bias's gradient goes beyond the rows",
     "end = min(N, begin + rows)", "end = begin + rows", "layers_fp32 matmul"),
    ("train_gpt2.cu", "matmul: a kernel's grid is rounded down",
     "dim3(N, (unsigned)ceil_div(columns, 128 * VEC))",
     "dim3(N, (unsigned)std::max(1, columns / (128 * VEC)))", "layers_fp32 wide_rows"),
    ("train_gpt2.cu", "matmul: the epilogue leaves out GELU",
     "fused.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS", "fused.epilogue = CUBLASLT_EPILOGUE_BIAS",
     "layers_sm90 matmul"),
    ("train_gpt2.cu", "matmul: parts of a sum may meet in bfloat16",
     "reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE", "reduction = 7",
     "layers_bf16 long_sums"),
    ("train_gpt2.cu", "matmul: a product that cuBLASLt refuses ends the program",
     "status != CUBLAS_STATUS_NOT_SUPPORTED;   // it", "true;   // it",
     "layers_sm90 matmul EMU_BLAS_REFUSE=matmul"),
    ("train_gpt2.cu", "matmul: no advice is taken for an error",
     "if (status != CUBLAS_STATUS_NOT_SUPPORTED) blas_check(status);", "blas_check(status);",
     "layers_sm90 matmul EMU_BLAS_REFUSE=epilogues"),
    ("train_gpt2.cu", "matmul: the plain form has no bias",
     "128>>>(out, pre_gelu, added ? nullptr : bias, OC)",
     "128>>>(out, pre_gelu, nullptr, OC)", "layers_sm90 matmul EMU_BLAS_REFUSE=epilogues"),
    ("train_gpt2.cu", "matmul: the plain form has no bias where there is no GELU",
     "if (!pre_gelu && (added || !bias)) return;", "if (!pre_gelu) return;",
     "layers_sm90 matmul EMU_BLAS_REFUSE=matmul"),
    ("train_gpt2.cu", "attention: heads above 64 take the form for 64",
     "if (hs <= 64) launch_forward<64>", "if (hs <= 128) launch_forward<64>",
     "layers_fp32 head_sizes"),
    ("train_gpt2.cu", "attention: heads above 64 take the form for 64 in backward",
     "if (C / NH <= 64) launch_backward<64>", "if (C / NH <= 128) launch_backward<64>",
     "layers_fp32 head_sizes"),
    ("train_gpt2.cu", "attention: no 1/sqrt(hs)",
     "tx + 16 * j <= t ? scale * score[i][j]", "tx + 16 * j <= t ? score[i][j]",
     "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: the mask is off by one",
     "s0 + tx + 16 * j <= t ? scale", "s0 + tx + 16 * j <= t + 1 ? scale", "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: old sums keep the old maximum",
     "l[i] *= rescale;", "", "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: k and v are overwritten while they are read",
     "__syncthreads();   // other warps may still be reading the last tile from k and v\n"
     "        load_tile<HS>(k, head + C", "load_tile<HS>(k, head + C", "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: scores are read before they are complete",
     "__syncwarp();   // a row of p was written, and will be read, by the same half of a warp\n",
     "", "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: in backward, ds takes the place of p too early",
     "__syncwarp();   // the other lanes have read p: ds may take its place\n", "",
     "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: rows of shared memory overlap",
     "STRIDE = HS + 4, SCORE_STRIDE", "STRIDE = HS - 4, SCORE_STRIDE", "layers_fp32 attention"),
    ("train_gpt2.cu", "attention: more shared memory than was granted",
     "grant_shared(attention_backward_kv_kernel<HS>, bytes);", "", "layers_fp32 attention"),
    ("train_gpt2.cu", "classifier: the target's logit is read when others may have written it",
     "d.x[j] = v + j < V ? expf(d.x[j] - most) * factor : 0.0f;",
     "d.x[j] = v + j < V ? expf(d.x[j] - most) * factor + 0 * (float)x[target] : 0.0f;",
     "layers_bf16 classifier"),
    ("train_gpt2.cu", "classifier: padding is part of the softmax",
     "if (v + j >= V) logit.x[j] = -INFINITY;", "", "layers_fp32 classifier"),
    ("train_gpt2.cu", "grad_norm: neighbouring threads share elements",
     "for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * VEC; i < n; i += step)",
     "for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)",
     "layers_fp32 grad_norm"),
    ("train_gpt2.cu", "adamw: the last elements get no block",
     "(unsigned)ceil_div((int64_t)n, 256 * VEC)", "(unsigned)std::max<size_t>(1, n / (256 * VEC))",
     "layers_fp32 adamw"),
    ("train_gpt2.cu", "adamw: the copy in floatX keeps its old value",
     "if ((void*)params != (void*)master) store(params",
     "if ((void*)params == (void*)master) store(params", "layers_bf16 adamw"),

    # ---- the model -------------------------------------------------------------------------------
    ("gpt2.h", "decay of biases and norms",
     "value, matrix, product, offset", "value, true, product, offset", "model decay_and_clipping"),
    ("gpt2.h", "clipping is ignored", "grad_clip / norm : 1.0f", "1.0f : 1.0f",
     "model decay_and_clipping"),
    ("gpt2.h", "clipping scales small gradients up",
     "grad_clip > 0 && norm > grad_clip ?", "grad_clip > 0 ?", "model decay_and_clipping"),
    ("gpt2.h", "residual projections start as large as the others",
     "0.02f / sqrtf(2.0f * c.L)", "0.02f", "model initialisation"),
    ("gpt2.h", "every tensor starts with the same numbers",
     "make_rng(seed, RNG_INIT, tensor++)", "make_rng(seed, RNG_INIT, tensor)",
     "model initialisation"),
    ("gpt2.h", "gradients are not cleared",
     "if (!add && !p.product) device_zero(dw + p.offset, p.count * sizeof(float));", "(void)p;",
     "model accumulation"),
    ("gpt2.h", "a product's gradient is added to that of the step before",
     "nullptr, B, T, C, c.Vp, add);", "nullptr, B, T, C, c.Vp, true);", "model accumulation"),
    ("gpt2.h", "backward: what layers add to is not cleared first",
     "if (!add && !p.product)", "if (false && !p.product)", "model accumulation"),
    ("gpt2.h", "backward: what layers add to is cleared for every micro-batch",
     "if (!add && !p.product)", "if (!p.product)", "model accumulation"),
    ("gpt2.h", "token embeddings get no gradient from the head",
     "matmul_backward(a.dnorm, dw + at.token_embd, nullptr,",
     "matmul_backward(a.dnorm, model.m + at.token_embd, nullptr,", "model forward_backward"),
    ("gpt2.h", "the MLP's gradient skips the GELU",
     "w + p.ffn_down_weight, b.ffn_pre, B, T, 4 * C, C",
     "w + p.ffn_down_weight, nullptr, B, T, 4 * C, C", "model forward_backward"),
    ("gpt2.h", "the second norm's statistics are the first's",
     "b.ffn_mean, b.ffn_rstd, B, T, C", "b.attn_mean, b.ffn_rstd, B, T, C",
     "model forward_backward"),
    ("gpt2.h", "a lifetime ends with forward",
     "&b.residual, N * C, {{l == 0 ? 0 : attn, attn_undone}}",
     "&b.residual, N * C, {{l == 0 ? 0 : attn, mlp}}", "model plan"),
    ("gpt2.h", "recompute: what is computed again has no place yet",
     "return {{born, last}, {mlp_undone, undone}};", "return {{born, last}, {undone, undone}};",
     "model plan"),
    ("gpt2.h", "recompute: GELU is not computed again",
     "gelu_forward(b.ffn_up, b.ffn_pre, B, T, 4 * C);", "", "model plan"),
    ("gpt2.h", "recompute: the block's first norm is of another stream",
     "if (l == 0 || again)", "if (l == 0)", "model plan"),
    ("gpt2.h", "the plan lets neighbours overlap",
     "x.born <= y.dies && y.born <= x.dies",
     "x.born < y.dies && y.born < x.dies", "model plan"),
    ("gpt2.h", "padding rows are written to files",
     "row(\"token_embd.weight\", at.token_embd, {C, (uint64_t)c.V}, STD, 0);",
     "row(\"token_embd.weight\", at.token_embd, {C, (uint64_t)c.Vp}, STD, 0);", "model files"),
    ("gpt2.h", "the last norm's backward reads another stream",
     "a.residual, w + at.output_norm_weight, a.mean",
     "a.blk.back().residual_mid, w + at.output_norm_weight, a.mean", "model forward_backward"),
    ("gpt2.h", "the loss is the last row's", "sum += loss;", "sum = loss * (B * T);",
     "model forward_backward"),

    # ---- the ground floor ------------------------------------------------------------------------
    ("numerics.h", "exp: one term of the series less",
     "float p = 1.0f / 5040.0f;", "float p = 0;", "numerics exp"),
    ("numerics.h", "exp: ln2 in one part",
     "r = __builtin_fmaf(n, -LN2_LOW, r);", "(void)LN2_LOW;", "numerics exp"),
    ("numerics.h", "GELU: its cubic term's factor",
     "GELU_CUBIC = 0.044715f", "GELU_CUBIC = 0.04472f", "numerics gelu"),
    ("numerics.h", "GELU: derivative without u'",
     "* (1.0f - s) * 2.0f * du", "* (1.0f - s) * 2.0f * GELU_SCALE", "numerics gelu"),
    ("numerics.h", "log: two terms of the series less",
     "int k = 21; k >= 1", "int k = 17; k >= 1", "numerics log_cos"),
    ("numerics.h", "e^x in double ends its series early", "for (int k = 14; k >= 1; k--)",
     "for (int k = 11; k >= 1; k--)", "numerics log_cos"),
    ("numerics.h", "random numbers: a shift of SplitMix64",
     "(z ^ (z >> 27))", "(z ^ (z >> 28))", "numerics random"),
    ("numerics.h", "normal numbers: log of 1 - u",
     "__builtin_sqrt(-2.0 * log_d(u))", "__builtin_sqrt(-1.9 * log_d(u))", "numerics random"),
    ("matmul.h", "the last row of a matrix is left out",
     "const int some = std::min(mr, rows - m);",
     "const int some = std::min(mr, rows - m);\n            if (some == 1 && rows > 1) continue;",
     "numerics matmul"),
    ("matmul.h", "beyond KC steps, the product starts again",
     "return {f.add || !first,", "return {f.add,", "numerics matmul"),
    ("matmul.h", "the edge forgets what was there",
     "memcpy(edge + i * NR, begin ? begin : c + i * ldc, sizeof(float) * width);",
     "if (begin) memcpy(edge + i * NR, begin, sizeof(float) * width);", "numerics matmul"),
    ("matmul.h", "GELU before the last step of k",
     "f.pre_gelu && last ?", "f.pre_gelu ?", "numerics matmul"),
    ("matmul.h", "later steps are read from the shared buffer's start",
     "p.panels + (int64_t)(k0 - k.from) * p.group +", "p.panels +", "numerics matmul"),
    ("matmul.h", "a turned product's bias belongs to its first row",
     "whole.bias ? whole.bias[i] : 0.0f", "whole.bias ? whole.bias[0] : 0.0f", "numerics matmul"),
    ("matmul.h", "a turned product does not begin with what was there",
     "if (p.turned && whole.add) transpose(", "if (p.turned && p.f.add) transpose(",
     "numerics matmul"),
    ("matmul.h", "columns that were copied are read as rows",
     "{{b_is_own ? shared : to, 1, kernel.mr},", "{{b_is_own ? shared : to, depth, 1},",
     "numerics matmul"),
    ("matmul.h", "a thread's own part of b is not packed where k's steps follow each other",
     "if (b_is_own || kernel.per_word > 1 ||", "if (kernel.per_word > 1 ||", "numerics matmul"),
    ("matmul.h", "a second group is packed from the first's items",
     "packed.items(item, some,", "packed.items(item - g, some,", "numerics matmul"),
    ("vectors.h", "a transpose leaves out what is no whole block",
     "for (int i = j < j8 ? i8 : 0; i < rows; i++)", "for (int i = i8; i < rows; i++)",
     "numerics matmul"),
    ("dev/matmul/5_register_tile.cpp", "the ladder: a tile starts again with each panel",
     "panels[p][0], k0 == 0);", "panels[p][0], true);", "ladder check"),
    ("dataloader.h", "targets are the inputs",
     "targets[r * d.T + t] = p[t + 1];", "targets[r * d.T + t] = p[t];", "dataloader sequential"),
    ("dataloader.h", "windows are T + 1 apart",
     "(window - s.first_window) * d.T", "(window - s.first_window) * (d.T + 1)",
     "dataloader sequential"),
    ("dataloader.h", "a batch may lack its last target",
     "(s.count - 1) / (B * T)", "s.count / (B * T)", "dataloader boundary"),
    ("dataloader.h", "every epoch has the same order",
     "RNG_ORDER, (uint64_t)epoch", "RNG_ORDER, 0", "dataloader shuffled"),
    ("dataloader.h", "an epoch's order is kept for the next",
     "d.shuffled && d.ordered != epoch", "d.shuffled && d.ordered < 0", "dataloader shuffled"),
    ("sha256.h", "the length's block is forgotten",
     "s.bytes % 64 != 56", "s.bytes % 64 != 0 && s.bytes % 64 != 56", "dataloader fingerprints"),
    ("tokenizer.h", "a contraction is not a word",
     "\"'re\", \"'ve\", \"'m\"", "\"'re\", \"'m\"", "tokenizer words"),
    ("tokenizer.h", "a merge of the wrong rank comes first",
     "return a.rank != b.rank ? a.rank > b.rank", "return a.rank != b.rank ? a.rank < b.rank",
     "tokenizer merges"),
    ("tokenizer.h", "white space keeps its last character",
     "return whole ? i : last;", "return i;", "tokenizer words"),
    ("tokenizer.h", "smollm: numbers are words of many digits",
     "if (cut == CUT_SMOLLM && first == 'N') return at + length;",
     "for (; cut == CUT_SMOLLM && first == 'N'; at += length)\n"
     "        if (class_of(at) != 'N') return at;", "tokenizer words_smollm"),
    ("tokenizer.h", "smollm: a number takes a space along",
     "wanted == '-' || (cut == CUT_SMOLLM && wanted == 'N'))", "wanted == '-')",
     "tokenizer words_smollm"),
    ("tokenizer.h", "smollm: white space before a number is cut",
     "next == '-' || (cut == CUT_SMOLLM && next == 'N') ||", "next == '-' ||",
     "tokenizer words_smollm"),
    ("tokenizer.h", "llama-bpe: four digits are a word", "n < 3 && class_of", "n < 4 && class_of",
     "tokenizer words_llama3"),
    ("tokenizer.h", "llama-bpe: marks take no line break along", "while (is_break(i)) i++;", "",
     "tokenizer words_llama3"),
    ("tokenizer.h", "llama-bpe: the first line break ends white space",
     "if (is_break(i)) after_break = i + 1;",
     "if (is_break(i) && after_break == at) after_break = i + 1;", "tokenizer words_llama3"),
    ("tokenizer.h", "llama-bpe: a line break goes with letters",
     "first == 'N' || is_break(at) ? 0", "first == 'N' ? 0", "tokenizer words_llama3"),
    ("tokenizer.h", "llama-bpe: endings are lower case only",
     "ending_at(text, at, true)", "ending_at(text, at, false)", "tokenizer words_llama3"),
    ("tokenizer.h", "U+FEFF is white space to all", "(c == 0xFEFF && !bom_is_space)", "false",
     "tokenizer words"),
    ("tokenizer.h", "whole words are merged", "if (t.kind.whole_words) {\n        int id",
     "if (false) {\n        int id", "tokenizer kinds"),
    ("tokenizer.h", "a text begins as add_bos_token never said",
     "gguf_bool_or(g, add_bos, t.kind.bos)", "t.kind.bos", "tokenizer kinds"),
    ("tokenizer.h", "a turn's end is no end", "t.ends.push_back(turn);", ";", "tokenizer kinds"),
    ("tokenizer.h", "a later merge of the same pair counts",
     "if (t.merge_at[slot] < 0) t.merge_at[slot] = (int)rank;",
     "t.merge_at[slot] = (int)rank;", "tokenizer merges"),
    ("tokenizer.h", "a collision is taken for the entry",
     "while (slots[i] >= 0 && !same(slots[i]))", "while (false && !same(slots[i]))",
     "tokenizer golden"),
    ("tokenizer.h", "the shortest special token wins",
     "t.tokens[*first].size() == n + 1) longest = *first++;",
     "t.tokens[*first].size() == n + 1) return *first;", "tokenizer special"),
    ("tokenizer.h", "user-defined tokens need --special",
     "special ? t.special : t.user_defined", "special ? t.special : std::vector<int>()",
     "tokenizer special"),
    ("tokenizer.h", "a merge makes a control token", "if (!v.spelled[id])", "if (false)",
     "data refused_tokenizers"),
    # ---- speculate -------------------------------------------------------------------------------
    ("speculate.h", "every guess is accepted",
     "accepted = uniform(how.rng) * probability(q[i], x) < probability(p, x);", "accepted = true;",
     "speculate law"),
    ("speculate.h", "a guess is accepted if it is at all possible",
     "accepted = uniform(how.rng) * probability(q[i], x) < probability(p, x);",
     "accepted = probability(p, x) > 0;", "speculate law"),
    ("speculate.h", "after a refusal, p is drawn from and not the residual",
     "draw(residual(p, q[i], V), how.rng)", "draw(p, how.rng)", "speculate law"),
    ("speculate.h", "the residual is taken of q", "c.p = std::max(0.0f, c.p - of_draft[c.id])",
     "c.p = std::max(0.0f, of_draft[c.id] - c.p)", "speculate law"),
    ("sampling.h", "p and q do not sum to 1", "for (Candidate& c : all) c.p /= sum;",
     "for (Candidate& c : all) c.p *= 1;", "speculate law"),
    ("speculate.h", "the n-gram's guess is half sure", "q.push_back({{id, 0, 1}});",
     "q.push_back({{id, 0, 0.5f}});", "speculate law"),
    ("speculate.h", "guesses are drawn from another distribution than q",
     "ids.push_back(draw(q.back(), how.rng));",
     "ids.push_back(q.back()[0].id);", "speculate law"),
    ("speculate.h", "guesses see each other's logits a row too late",
     "distribution(&rows[(size_t)i * V], V, ids, how)",
     "distribution(&rows[(size_t)std::min(i + 1, K) * V], V, ids, how)", "speculate greedy"),
    ("speculate.h", "what was refused stays in the cache",
     "s.pos = (int)ids.size() - 1;   // forgets", "s.pos = std::max(s.pos - 1, 0);   // forgets",
     "speculate greedy"),
    ("speculate.h", "the draft never forgets",
     "draft.state.pos = std::min(draft.state.pos, s.pos);", "", "speculate greedy"),
    ("speculate.h", "the n-gram's oldest place",
     "for (size_t end = ids.size() - 1; end >= n; end--)",
     "for (size_t end = n; end < ids.size(); end++)", "speculate ngram"),
    ("speculate.h", "guesses may pass the end of the room", "std::min(draft.most, s.room - before)",
     "draft.most", "draft draft"),
    ("speculate.h", "a draft of another vocabulary", "if (d.V != m.d.V)", "if (false)",
     "speculate errors"),
    ("infer.cpp", "a step's first token alone is shown", "next = t.ids.size();\n",
     "next = t.ids.size() + (rows.size() > 2u * m.d.V);\n", "draft draft"),

    # ---- pressure --------------------------------------------------------------------------------
    ("pressure.h", "keys keep the angle of their old position",
     "for (int i = 0; what == KEYS && i < tail; i++)", "for (int i = 0; what < 0 && i < tail; i++)",
     "runtime trim"),
    ("pressure.h", "keys are turned on and not back", "const double angle = -dropped *",
     "const double angle = dropped *", "runtime trim"),
    ("pressure.h", "values are turned too", "what == KEYS && i < tail", "what >= KEYS && i < tail",
     "runtime trim"),
    ("pressure.h", "GPT-2's tail is not computed again",
     "s.pos = m.d.family.rotary ? keep + tail : keep;", "s.pos = keep + tail;", "runtime trim"),
    ("pressure.h", "the oldest are dropped, not the middle",
     "ids.erase(ids.begin() + keep, ids.begin() + keep + dropped);",
     "ids.erase(ids.begin(), ids.begin() + dropped);", "runtime trim"),
    ("pressure.h", "a page that begins with what is kept goes back",
     "(int64_t)first * d.hs) + page - 1;", "(int64_t)first * d.hs);", "runtime give"),
    ("pressure.h", "no page goes back",
     "madvise((void*)from, to - from, MADV_DONTNEED) == 0", "page > 0", "runtime give"),
    ("pressure.h", "a number beyond 100 is believed", "!(x >= 0 && x <= 100)", "!(x >= 0)",
     "runtime pressure"),
    ("pressure.h", "the file is read before every token", "again = now + 0.25;", "",
     "runtime pressure"),
    ("pressure.h", "the limit must be passed", "return found >= limit;", "return found > limit;",
     "draft pressure"),
    ("pressure.h", "trims again while the average remembers", "watch.again = now + 10;",
     "watch.again = 0;", "draft pressure"),
    ("pressure.h", "a draft keeps its cache of the old text",
     "draft.state.pos = std::min(draft.state.pos, keep);", "", "runtime pressure"),

    # ---- chat ------------------------------------------------------------------------------------
    ("chat.h", "a user's text forges the tokens that mark turns",
     "encode(*c.tokenizer, whole + c.format->before + text)",
     "encode(*c.tokenizer, whole + c.format->before + text, true)", "tokenizer templates"),
    ("chat.h", "the template's own system message is left out",
     "return literal.substr(start, end - start);", "return \"\";", "tokenizer templates"),
    ("chat.h", "half a literal is taken for the system message",
     "given[at - 1] == '\"') && end != std::string::npos", "given[at - 1] == '\"') && true",
     "tokenizer templates"),
    ("chat.h", "llama3: white space stays around a text", "if (c.format->trimmed) {",
     "if (false) {", "tokenizer templates"),
    ("chat.h", "the system message goes first when the context is full",
     "size_t first = !c.turns.empty() && c.turns[0].role == \"system\", end",
     "size_t first = 0, end", "tokenizer make_room"),
    ("chat.h", "a question goes without its answer",
     "while (end < c.turns.size() && c.turns[end].role != \"user\") end++;", "",
     "tokenizer make_room"),
    ("chat.h", "what the model has seen is never looked at again",
     "while (same < most && c.seen[same] == ids[same]) same++;", "same = most;", "chat history"),
    ("chat.h", "an answer is not closed", "close_turn(c, *turn);\n", "", "chat history"),
    ("chat.h", "/save writes over any file", "if (found != start) return", "if (false) return",
     "chat save"),
    ("chat.h", "the context may be one token too long",
     "; fits = ids.size() + closing < c.context) {",
     "; fits = ids.size() < c.context) {", "chat overflow"),
    ("chat.h", "Ctrl-C at the prompt is not heard",
     "return !chat_interrupted && (c == '\\n' || !line.empty());",
     "clearerr(stdin); return chat_interrupted || c == '\\n' || !line.empty();", "chat interrupt"),
    ("tokenizer.h", "white space is a document", "if (at == text.size()) return;", "",
     "tokenizer documents"),
    ("tokenizer.h", "a separator's line break belongs to the next document",
     "start = next;\n    }\n    encode_document", "start = end;\n    }\n    encode_document",
     "tokenizer documents"),
    ("tokenizer.h", "a separator with \\r is none",
     "if (end > at && text[end - 1] == '\\r') end--;", "", "tokenizer documents"),
    ("gguf.h", "a tensor may end past the file",
     "t.bytes > size - expected", "t.bytes > size", "gguf wrong_files"),
    ("gguf.h", "a half's infinity is a number", "if (magnitude >= 0x0f800000) bits",
     "if (magnitude > 0x0f800000) bits", "gguf half"),
    ("gguf.h", "a tensor has as many bytes as elements",
     "p.tensor.count / facts.block * facts.bytes", "p.tensor.count", "gguf round_trip"),
    ("numerics.h", "rounding to bfloat16 cuts off",
     "(bits + 0x7fff + (bits >> 16 & 1)) >> 16", "bits >> 16", "numerics bfloat16_bits"),
    ("gguf.h", "duplicate names are accepted",
     "if (!g.tensor_at.emplace(g.tensors.back().name, i).second)", "if (false)",
     "gguf wrong_files"),
    ("gguf.h", "C1 controls are printed", "!(c >= 0x7f && c < 0xa0)", "c != 0x7f", "gguf strings"),
    ("gguf.h", "a surrogate is a character",
     "first == 0xed ? 0x9f", "first == 0xed ? 0xbf", "gguf strings"),
    ("gguf.h", "tensors that nobody asks for are accepted", "if (!names.count(t.name))",
     "if (false)", "gguf wrong_keys"),

    # ---- the runtime -----------------------------------------------------------------------------
    ("runtime.h", "the cache forgets the token before",
     "attend_group(&w.heads[at], &w.q[at], keys, values, row.pos + 1,",
     "attend_group(&w.heads[at], &w.q[at], keys, values, row.pos + (row.pos == 0),",
     "infer cache"),
    ("runtime.h", "positions start again at each call",
     "row.pos = row.text->pos++;", "row.pos = (int)(&row - w.rows.data()), row.text->pos++;",
     "infer cache"),
    ("runtime.h", "the MLP has no GELU", "up[i] = gelu(up[i]);", "up[i] = up[i];", "infer logits"),
    ("runtime.h", "an untied output is ignored",
     "if (gguf_tensor(g, \"output.weight\"))", "if (false)", "infer logits"),
    ("runtime.h", "a query sees the position after its own",
     "for (int j = 0; j <= s - count; j++) p", "for (int j = 0; j < s - count; j++) p",
     "infer logits"),
    ("runtime.h", "512 rows later, positions are the first's",
     "for (Row& row : w.rows) row.pos = row.text->pos++;",
     "for (Row& row : w.rows) row.pos = row.text->pos % 512, row.text->pos++;", "infer logits"),
    ("runtime.h", "texts of a batch share the first one's keys",
     "memcpy(strip(*row.text, d, layer, KEYS", "memcpy(strip(*w.rows[0].text, d, layer, KEYS",
     "runtime batch"),
    ("runtime.h", "the last layer continues with the first rows",
     "float *x = w.x.data() + first * C,", "float *x = w.x.data(),", "infer logits"),
    ("runtime.h", "rotary pairs are half a head apart",
     "a = x[c], b = x[c + 1];\n            x[c] = __builtin_fmaf(a, cosine, -(b * sine));\n"
     "            x[c + 1] =",
     "a = x[c / 2], b = x[c / 2 + d.rope_dims / 2];\n"
     "            x[c / 2] = __builtin_fmaf(a, cosine, -(b * sine));\n"
     "            x[c / 2 + d.rope_dims / 2] =",
     "infer llama_family"),
    ("runtime.h", "queries are not turned", "if (i >= first) rotate", "if (false) rotate",
     "infer llama_family"),
    ("runtime.h", "factors of rotary positions are ignored",
     "m.turns[i] /= factor[i];", "", "infer llama_family"),
    ("runtime.h", "a query looks at the first keys again and again",
     "const int64_t at = (int64_t)(s + i) * hs;", "const int64_t at = (int64_t)i * hs;",
     "infer cache"),
    ("runtime.h", "all heads look at the first keys and values",
     "shared = head / group;", "shared = head / group * 0;", "infer llama_family"),
    ("runtime.h", "neighbouring heads have different keys and values",
     "shared = head / group;", "shared = t.together ? t.head : head % d.NKV;",
     "infer llama_family"),
    ("runtime.h", "RMSNorm takes out the mean", "if (!d.family.rms_norm) mean", "mean",
     "infer llama_family"),
    ("runtime.h", "gate and up are swapped",
     "up[i] *= gate[i] / (1 + exp_f(-gate[i]))", "up[i] = up[i] / (1 + exp_f(-up[i])) * gate[i]",
     "infer llama_family"),
    ("description.h", "a number of key and value heads that does not divide the heads is accepted",
     "if (d.NH % d.NKV != 0)", "if (false)", "infer wrong_llamas"),
    ("description.h", "an odd number of rotary channels is accepted",
     "|| d.rope_dims % 2 != 0)", ")", "infer wrong_llamas"),
    ("description.h", "any rotary base is accepted",
     "if (!(d.rope_base >= 1 && d.rope_base <= 1e12))", "if (d.rope_base > 1e12)",
     "infer wrong_llamas"),
    ("description.h", "scaled rotary positions are ignored",
     "if (gguf_string_or(g, type, \"none\") != \"none\")", "if (false)", "infer wrong_llamas"),
    ("perplexity.h", "a window's first token is counted in the first window only",
     "from = windows.from;", "from = windows.from + (at > 0);", "infer perplexity"),
    ("perplexity.h", "a window begins where the last one's positions ended",
     "r->s.pos = 0;", "r->s.pos = at ? 1 : 0, r->s.room += at ? 1 : 0;", "infer perplexity"),
    ("perplexity.h", "each window predicts the next one's first token",
     "(int)std::min<size_t>(windows.to, ids", "(int)std::min<size_t>(windows.size, ids",
     "infer windows"),
    ("perplexity.h", "the divergence is the other way round",
     "exp_f((float)log_ref) * (log_ref - (logit[v] - total))",
     "exp_f((float)(logit[v] - total)) * (logit[v] - total - log_ref)", "infer windows"),
    ("perplexity.h", "the error is that of a sample, not of its mean",
     "sqrt(squares / n / (n - 1))", "sqrt(squares / n)", "infer windows"),
    ("infer.cpp", "--kl takes a model of another vocabulary",
     "if (tokenizer_sha256(ref.m.file) != tokenizer_sha256(m.file) ||", "if (", "infer windows"),
    ("infer.cpp", "--ctx: the token that begins a text stands in the first window only",
     "return {size, size / 2, size - 1, begin};", "return {size, size / 2, size - 1, -1};",
     "infer windows"),
    ("sampling.h", "a stop text is not found where its beginning failed once",
     "            out += s.held[0];\n            s.held.erase(0, 1);",
     "            out += s.held;\n            s.held.clear();", "infer stop"),
    ("sampling.h", "what waits for a stop text is lost at the end",
     "rest.swap(t.stops.held);", "", "infer stop"),
    ("sampling.h", "of stop texts that end together the first counts",
     "stop.size() > s.found.size() &&", "s.found.empty() &&", "infer stop"),
    ("sampling.h", "JSON: half a surrogate pair", "0xdc00 + (high & 0x3ff)",
     "0xdc00 + (high & 0x1ff)", "infer json"),
    ("sampling.h", "JSON: log-probabilities are those of the logits' largest",
     "log_d(sum) + most", "log_d(sum) * 0 + most", "infer json"),
    ("sampling.h", "top-k: what is below the largest block's largest is out",
     "least, sorted[k - 1]", "least, sorted[0]", "speculate best"),
    ("sampling.h", "top-k: a block's last token is not looked at",
     "std::min(b * BLOCK + BLOCK, V)", "std::min(b * BLOCK + BLOCK, V) - 1", "speculate best"),
    ("sampling.h", "a forbidden token can be drawn", "least = -FLT_MAX", "least = -INFINITY",
     "speculate best"),
    ("sampling.h", "a bias counts once only", "own[id] += x;", "own[id] = x;",
     "infer logit_bias"),
    ("infer.cpp", "all texts of a batch have one seed",
     "make_rng((uint64_t)o.seed + texts.size(), ", "make_rng((uint64_t)o.seed, ", "infer batch"),
    ("infer.cpp", "a text of a batch gets its neighbour's logits",
     "&logit[(i - first) * m.d.V]", "&logit[i * m.d.V]", "infer batch"),
    ("quants.h", "a batch's rows all see the first row's input",
     "vec_load(p.inp + r * p.stride + i", "vec_load(p.inp + i", "quants product"),
    ("runtime.h", "the file's epsilon is ignored",
     "sqrt(squares / C + d.eps)", "sqrt(squares / C + 1e-5f)", "infer logits"),
    ("sampling.h", "the penalty makes negative logits likelier",
     ": logit[id] * penalty", ": logit[id] / penalty", "infer sampling"),
    ("runtime.h", "logits that are no number are printed",
     "if (!std::isfinite(out[i])) fail_not_finite", "if (false) fail_not_finite",
     "infer not_finite"),
    ("tokenizer.h", "a character is split while it streams",
     "if (c == UTF8_CUT && !last) break;\n        if (c < 0)",
     "if (c == UTF8_CUT && !last) out += pending[at];\n        else if (c < 0)", "infer streaming"),
    ("tokenizer.h", "a terminal obeys the text", "else if (!terminal || c", "else if (true || c",
     "infer terminal"),
    ("infer.cpp", "a long name pads all rows",
     "std::max(name, std::min(k.name.size(), NAME_COLUMN))", "std::max(name, k.name.size())",
     "infer show"),

    # ---- the command line ------------------------------------------------------------------------
    ("flags.h", "the last of two values counts",
     "if (!first && !flag->to.list) fail", "if (false) fail", "flags errors"),
    ("flags.h", "--stop a --stop b is b alone",
     "if (first && flag->to.list)", "if (flag->to.list)", "flags values"),
    ("flags.h", "the user's --stop is added to a bundle's",
     "if (first && flag->to.list) flag->to.list->clear();", "", "flags two_lists"),
    ("flags.h", "a number may be one above its range", "x <= to.most", "x <= to.most + 1",
     "flags errors"),
    ("flags.h", "NaN is in every range", "!(x >= to.least && x <= to.most)",
     "x < to.least || x > to.most", "flags errors"),
    ("flags.h", "what follows a number is ignored", "end != v + value.size())", "false)",
     "flags errors"),
    ("flags.h", "two choices are one", "value.find('|') == std::string::npos &&", "",
     "flags errors"),
    ("flags.h", "a value ends at its second =", "value = word.substr(equals + 1)",
     "value = word.substr(equals + 1, word.find('=', equals + 1) - equals - 1)", "flags values"),
    ("flags.h", "every argument is the first", "f.name[0] != '-' && !given.count(f.name)",
     "f.name[0] != '-'", "flags arguments"),
    ("flags.h", "a command takes every other's flags",
     "if (!flag && (f.groups & groups) &&", "if (!flag &&", "flags errors"),
    ("flags.h", "-m may be missing", "if ((f.needed & group) && ", "if ((f.needed & ~group) && ",
     "flags errors"),
    ("flags.h", "any flag is what was meant", "std::min<size_t>(2, name.size() / 3)", "100",
     "flags errors"),
    ("flags.h", "the hint is the last name that is near", ", distance = d - 1", "",
     "flags errors"),
    ("infer.cpp", "--help wants a model first", "    else require_flags", "    require_flags",
     "infer flags"),
    ("trainer.h", "--resume changes the learning rate", "else if (f.groups == RUN && now != then)",
     "else if (false)", "trainer cannot_differ"),
    ("trainer.h", "--steps at its default counts as given", "if (!o.given.count(f.name)) set_flag",
     "if (flag_text(f).empty()) set_flag", "trainer resume"),

    # ---- the trainer -----------------------------------------------------------------------------
    ("trainer.h", "the warmup starts at 0",
     "(double)(step + 1) / (double)o.warmup", "(double)step / (double)o.warmup",
     "trainer schedules"),
    ("trainer.h", "the warmup is one step longer",
     "if (step < o.warmup)", "if (step <= o.warmup)", "trainer schedules"),
    ("trainer.h", "accumulation forgets to divide",
     "double tokens = (double)run.micro_batches * run.B * run.T;",
     "double tokens = (double)run.B * run.T;", "trainer accumulation"),
    ("trainer.h", "AdamW's step is counted from 0",
     "1, (int)run.step + 1}", "1, (int)run.step + (run.step > 0)}", "trainer optimizer_flags"),
    ("trainer.h", "a checkpoint forgets v",
     "run.model.v, \".v\");", "run.model.m, \".v\");",
     "trainer resume"),
    ("trainer.h", "the first batch is skipped",
     "return run.step * run.micro_batches", "return (run.step + 1) * run.micro_batches",
     "trainer order"),
    ("trainer.h", "every micro-batch reads the same rows",
     "(int64_t)micro * run.B, run.B, inputs", "0, run.B, inputs", "trainer accumulation"),
    ("trainer.h", "a step's rows depend on the micro-batch",
     "o.train, total / run.T, run.T", "o.train, run.B, run.T", "trainer accumulation"),
    ("trainer.h", "validation weighs a smaller batch like the others",
     "total += loss * rows;", "total += loss * run.B;", "trainer losses"),
    ("trainer.h", "--keep removes the one good checkpoint",
     "if (steps[i] != good) remove", "remove", "trainer not_finite"),
    ("gpt2.h", "a model of another epsilon is trained",
     "if (d.eps != LAYERNORM_EPS)", "if (!(d.eps < 1))", "safety hostile_models"),
    ("gpt2.h", "tensors of blocks that the keys do not count are ignored",
     "gguf_expect_only(file, known);", "", "safety hostile_models"),
    ("trainer.h", "no checkpoint comes by time",
     "now - saved_at >= pause", "now < saved_at", "safety saved_by_time"),
    ("trainer.h", "a signal waits for the end of the step",
     "if (interrupted) return false;", "", "safety signals_in_a_step"),
    ("trainer.h", "a signal waits for the end of a validation",
     "if (interrupted) return NAN;", "", "safety signals_in_a_validation"),
    ("trainer.h", "weights that the last step broke are saved",
     "    check_weights(run);\n    std::string path", "    std::string path",
     "safety broken_by_the_last_step"),
    ("trainer.h", "a checkpoint of two steps is believed",
     "if (made_with != weights_sha256(run.model))", "if (false)", "safety optimizer_fields"),
    ("trainer.h", "nohup is not respected",
     "before.sa_handler == SIG_IGN", "before.sa_handler == SIG_ERR", "safety signals_in_a_step"),
    ("trainer.h", "the old log is written over",
     "i == 1 || lstat(to.c_str(), &info) == 0", "i == 1", "safety begun_again"),
    ("trainer.h", "shards of another tokenizer are trained on",
     "if (!s.tokenizer.empty() && s.tokenizer != tokenizer)", "if (false)", "safety fingerprints"),
    ("trainer.h", "a replaced shard goes unnoticed",
     "if (resumed) compare_ingredients(run, state);", "", "safety fingerprints"),
    ("gpt2.h", "a negative v is believed",
     "host[i] >= least", "host[i] >= -INFINITY", "safety optimizer_fields"),
    ("trainer.h", "somebody's notes go with the checkpoint",
     "if (name != FILES[0] && name != FILES[1]) return false;", "(void)name;", "safety not_ours"),
    ("files.h", "the lock is taken by everybody",
     "flock(fd, LOCK_EX | LOCK_NB) != 0", "flock(fd, LOCK_SH | LOCK_NB) != 0", "safety lock"),
    ("files.h", "a pipe is waited for",
     "O_RDONLY | O_CLOEXEC | O_NONBLOCK", "O_RDONLY | O_CLOEXEC", "safety no_regular_files"),
    ("files.h", "a link under the temporary name is followed",
     "O_CREAT | O_EXCL | O_NOFOLLOW", "O_CREAT", "gguf round_trip"),
    # ---- the data --------------------------------------------------------------------------------
    ("data/files.py", "a pipe is waited for", "flags | os.O_NONBLOCK", "flags",
     "data regular_files"),
    ("data/files.py", "a link under the temporary name is followed",
     'mode.replace("w", "x")', "mode", "data atomic"),
    ("data/files.py", "control characters reach the terminal",
     "c if c.isprintable() else", "c if True else", "data messages"),
    ("data/bpe.py", "the fingerprint leaves out the merges",
     "[*tokens, *merges]", "tokens", "data shards"),
    ("data/bpe.py", "a fingerprint that belongs to other tokens is believed",
     "type=\"string\") != own:", "type=\"string\") is None:", "data refused_tokenizers"),
    ("data/bpe.py", "tokenizer.json: words may be cut otherwise",
     '"use_regex", (True, None)', '"use_regex", (True, None, False)', "data tokenizer_json"),
    ("data/prepare.py", "a shard with a listed name but other bytes is deleted",
     "\n                                     or sha256_file(path) != own[name]", "",
     "data replaced"),
    ("data/prepare.py", "the manifest, which says that files are mixed, is moved first",
     "    for name in new:\n", "    for name in [\"manifest.json\", *new]:\n", "data moves"),
    ("data/prepare.py", "a run that is given up deletes its manifest last",
     'name != "manifest.json"', 'name == "manifest.json"', "data moves"),
    ("data/prepare.py", "two runs work in one folder",
     "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", "data replaced"),
    ("data/prepare.py", "bytes of 0 are text", 'if b"\\0" in block:', "if False:", "data refused"),
    ("data/prepare.py", "stray NULs are taken for UTF-16's",
     "many and 0 not in start[::2]", "many", "data refused"),
    ("data/files.py", "a file that was cut short while it was read is taken for whole",
     "if len(data) != size:", "if False:", "data cut_short"),
    ("data/tales.py", "a user's own train.txt is replaced",
     "        check_free(path, content)\n", "        pass\n", "corpora tales"),
    ("data/download.py", "a damaged part is continued",
     'known.get("sha256") == sha256_file(part)', "os.path.exists(part)", "corpora download"),
    ("data/download.py", "bytes from another place are taken",
     " and int(m[1]) == start", "", "corpora download"),
    ("data/download.py", "a body without an end is taken for whole",
     "not reply.chunked and must_know_end", "must_know_end and False", "corpora download"),
    # ---- quantized weights -----------------------------------------------------------------------
    ("quants.h", "Q4_0's zero is 7", "nibbles(half_at(block), 8, -0.0f)",
     "nibbles(half_at(block), 7, -0.0f)", "quants decoding"),
    ("quants.h", "Q4_K: a late scale's upper bits come from the minimum",
     "s[j + 4] & 15) | s[j - 4] >> 6 << 4;", "s[j + 4] & 15) | s[j] >> 6 << 4;",
     "quants decoding"),
    ("quants.h", "Q5_K: the fifth bit of another piece", "bytes_at(block + 16) >> j & 1;",
     "bytes_at(block + 16) >> (j ^ 1) & 1;", "quants decoding"),
    ("quants.h", "Q6_K: one scale for 32 weights", "(float)scale[v * VEC / 16])",
     "(float)scale[0])", "quants decoding"),
    ("quants.h", "product: the second of an odd number's last two rows goes behind the result",
     "row < 2 && first + pair + row * half < w.out; row++", "row < 2; row++", "quants product"),
    ("quants.h", "product: the fifth row's input is the first one's",
     "{inp + (int64_t)i * w.in + k, w.in", "{inp + k, w.in", "quants product"),
    ("quants.h", "product: a long row's last part is its whole sum", "k > 0};", "false};",
     "quants product"),
    ("quants.h", "product: pairs of rows share one pair's sums", "lanes + 2 * rows * pair, p",
     "lanes, p", "quants product"),
    ("quants.h", "product: a long row's parts meet the input of the first",
     "* w.in + k, w.in", "* w.in, w.in", "quants product"),
    ("quants.h", "the lanes of one row become another's sum", "fold(sum[r], sum[r + half])",
     "fold(sum[r + half], sum[r])", "quants product"),
    ("quants.h", "product: the first of two decoded rows is the second",
     "2 * depth) + row * depth", "2 * depth) + 0 * depth", "quants product"),
    ("quants.h", "product: where rows are no multiple of 32, all see the first row's input",
     "dot(inp + (int64_t)i * w.in, row", "dot(inp, row", "quants product"),
    ("quants.h", "integers: Q4_0's zero is 7", "columns_q4<18, 2>, 1, 18, 8,",
     "columns_q4<18, 2>, 1, 18, 7,", "quants product"),
    ("quants.h", "integers: the last of a matrix's rows is nothing",
     "memcpy(last.data(), rows, (size_t)count", "memcpy(last.data(), rows, (size_t)(count - 1)",
     "quants product"),
    ("quants.h", "integers: what is behind a matrix's last rows is written too",
     "r < count; r++)", "r < at_once; r++)", "quants product"),
    ("quants.h", "integers: a batch's rows all see the first row's input",
     "make_digits(inp + (int64_t)(i % n) * in + i / n * 32)", "make_digits(inp + i / n * 32)",
     "quants product"),
    ("quants.h", "integers: the second half of the rows in work is the first",
     "rows + s * VEC * stride, stride, b", "rows, stride, b", "quants product"),
    ("quants.h", "integers: two columns of weights are one",
     "q[2 * i + 1] = upper_words", "q[2 * i + 1] = lower_words", "quants product"),
    ("quants.h", "integers: the middle digit counts double", "(high[s] << 8) + middle[s]",
     "(high[s] << 8) + middle[s] * 2", "quants product"),
    ("quants.h", "integers: an input that is no number counts as 0", "finite ? 0 : NAN", "0",
     "quants hard"),
    ("quants.h", "integers: Q6_K's halves of a piece share a scale", "16 * (j % 2) - 8 * h",
     "16 * (j % 2)", "quants product"),
    ("quants.h", "product: a prefill's weights are all those of the first columns",
     "w.data + (first + i) * bytes, from", "w.data + i * bytes, from", "quants product"),
    ("quants.h", "product: a prefill takes a block's weights from its start on",
     "return Matrix{to + k0 - from, 1, count};", "return Matrix{to, 1, count};", "quants product"),
    ("infer.cpp", "bench: a prompt's tokens all have logits", "one_by_one ? tokens : 1, V",
     "tokens, V", "infer bench"),
    ("quants.h", "Q8_0: rounded to even", "roundf(x[i] * inverse)", "rintf(x[i] * inverse)",
     "quants known"),
    ("quants.h", "Q4_0: the largest becomes 8", "largest(x, 32) / -8", "largest(x, 32) / 8",
     "quants known"),
    ("quants.h", "Q6_K: one way to scale is tried", "i <= 9; i++) {\n        if (i == 0) continue;",
     "i <= -10; i++) {\n        if (i == 0) continue;", "quants known"),
    ("quants.h", "Q6_K: not rounded anew after the scales were", "d != 0 && k < 16 * g + 16",
     "false && k < 16 * g + 16", "quants known"),
    ("gguf.h", "a half is rounded up at every tie", "+ 0xfff + (magnitude >> 13 & 1)) >> 13);",
     "+ 0x1000) >> 13);", "quants rounding"),
    ("infer.cpp", "quantize writes over its input",
     "    if (same_file(o.out, o.file))\n        fail(\"%s: is the file",
     "    if (false)\n        fail(\"%s: is the file", "quantize refused"),
    ("infer.cpp", "quantize: a file that cannot be finished stays",
     "        atomic_abandon(f);\n        fail(\"%s: tensor %s: row",
     "        fail(\"%s: tensor %s: row", "quantize refused"),
    ("files.h", "writing: what did not fit into a piece is lost",
     "from += some, n -= some;", "from += some, n = 0;", "quantize memory"),
    ("files.h", "writing: the last piece is lost",
     "    atomic_flush(f);\n    if (fsync", "    if (fsync", "quantize memory"),
    ("infer.cpp", "quantize: a tied embedding is like any matrix",
     "(tied && name == \"token_embd.weight\")", "(!tied && name == \"token_embd.weight\")",
     "quantize types"),

    # ---- bundles ---------------------------------------------------------------------------------
    ("bundle.h", "the GGUF does not begin a page of 64 KiB",
     "BUNDLE_PAGE = 65536", "BUNDLE_PAGE = 4096", "bundle extract"),
    ("bundle.h", "a bundle may be shorter than it says",
     "gguf != f.size - b.gguf_at", "gguf < f.size - b.gguf_at", "bundle damaged"),
    ("bundle.h", "a bundle may be longer than it says",
     "gguf != f.size - b.gguf_at", "gguf > f.size - b.gguf_at", "bundle damaged"),
    ("bundle.h", "the words may be longer than the file",
     "words <= left - BUNDLE_HEADER &&", "", "bundle damaged"),
    ("bundle.h", "the last word may run on",
     "(!words || text[words - 1] == '\\0')", "true", "bundle damaged"),
    ("bundle.h", "any executable is a bundle",
     "memcmp(f.data + header, BUNDLE_MAGIC, magic) == 0", "true", "bundle damaged"),
    ("bundle.h", "section headers may lie outside the file",
     " && bytes <= f.size && at <= f.size - bytes ?", " ?", "bundle refused"),
    ("bundle.h", "a bundle cannot be executed",
     "atomic_open(out, 0777)", "atomic_open(out)", "bundle extract"),
    ("bundle.h", "a bundle carries the model of the bundle that was its runtime",
     "runtime.data, program)", "runtime.data, runtime.size)", "bundle runs"),
    ("infer.cpp", "bundle: its output may be its input",
     "if (same_file(o.out, input))", "if (false)", "bundle refused"),
    ("infer.cpp", "extract: its output may be its input",
     "        if (same_file(o.out, o.file))", "        if (false)", "bundle extract"),
    ("infer.cpp", "bundle: words that it will not understand are baked in",
     "parse_command_line(trial, Bundle{1, o.bake}, {});", "", "bundle baked"),
    ("infer.cpp", "bundle: baked flags are those of every command",
     "if (&command == &usual) parse(baked);", "parse(baked);", "bundle baked"),
    ("infer.cpp", "bundle: messages name another program",
     "o.program = gguf_printable(argv[0], 200);", "o.program = \"infer\";", "bundle names"),
    ("infer.cpp", "bundle: a trial's messages name no program",
     "        trial.program = o.program;\n", "", "bundle names"),
    ("infer.cpp", "bundle: a baked command counts for nothing",
     "take_command(words, o) : usual;", "take_command(words, o) : COMMANDS[0];", "bundle baked"),
    ("infer.cpp", "bundle: --help prints what the user gave",
     "if (o.help) o = defaults, o.help = true;", "if (o.help) o.help = true;", "bundle baked"),
    ("infer.cpp", "bundle: a bundle looks for a runtime elsewhere",
     "if (read_bundle(self).gguf_at) return self;", "", "bundle runs"),
    ("launch.cpp", "the constructors of the form that is taken are not run",
     "(*c)(argc, argv, environ);", "(void)c;", "bundle forms"),
    ("launch.cpp", "infer has to start itself once more",
     "{ set_spinning(); }", "{}", "bundle runs"),
    ("launch.cpp", "LEGIBLE_FORM takes any other form than the one it names",
     "std::string(wanted) != form.name", "std::string(wanted) == form.name", "bundle forms"),
]


# ---- the work ------------------------------------------------------------------------------------

live = set()   # what run() has started


def stop(p):
    try:
        os.killpg(p.pid, signal.SIGKILL)   # with the programs that a script has started
    except ProcessLookupError:
        pass


def run(command, folder):
    """(exit code, output). A program is stopped at its first line that begins with FAIL, or after
    LIMIT seconds; its code is then -1."""
    # Waiting threads sleep, because two jobs share the cores; Python prints a line when it has one.
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", PYTHONUNBUFFERED="1", INFER="./infer",
                       TRAIN="./train_gpt2", TMPDIR=folder)
    p = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    live.add(p)
    timer = threading.Timer(LIMIT, stop, [p])
    timer.start()
    lines = []
    for line in p.stdout:
        lines.append(line.decode(errors="replace"))
        if line.startswith(b"FAIL"):
            stop(p)
            break
    p.wait()
    stop(p)   # what a script that broke off has left
    timer.cancel()
    live.discard(p)
    p.stdout.close()
    return (-1 if p.returncode < 0 else p.returncode), "".join(lines)


def program(test):
    return "build/ladder" if test == "ladder" else "build/test_" + test


def build(folder, tests):
    """For (exit code, output) of the make that fails, or of the last."""
    clang = shutil.which("clang++") and not os.environ.get("CXX")
    targets = {kind: set() for kind in KINDS}
    for test in tests:
        name = test.split()[0]
        kind = KIND_OF.get(test) or KIND_OF.get(name) or "usual"
        targets[kind].update([program(name)] if name in PROGRAMS else SCRIPTS[name])
    code, output = 0, ""
    for kind, settings in KINDS.items():   # what they share is built by the first, and not again
        if targets[kind] and code == 0:
            settings = ["CXX=clang++" if word == "CLANG" else word for word in settings
                        if clang or word != "CLANG"]
            code, output = run(["make", "-s", f"-j{JOBS}", "EMU_OPTIMIZE=-O0", *settings,
                                *sorted(targets[kind])], folder)
    return code, output


def run_test(folder, test):
    name, *words = test.split()
    command = [program(name)] if name in PROGRAMS else [sys.executable, f"tests/test_{name}.py"]
    settings = [word for word in words if "=" in word]
    return run(["env", *settings, *command, *words[:1]], folder)


def copy_tree(folder):
    os.makedirs(os.path.join(folder, "data"))
    for pattern in ["*.h", "*.cpp", "*.cu", "Makefile", "data/*.py"]:
        for path in glob.glob(os.path.join(ROOT, pattern)):
            shutil.copy2(path, os.path.join(folder, os.path.relpath(path, ROOT)))
    for tree in ("tests", "dev/matmul"):
        shutil.copytree(os.path.join(ROOT, tree), os.path.join(folder, tree),
                        ignore=shutil.ignore_patterns("__pycache__"))
    # One emulator for all folders: under another path it would compile its library again.
    os.symlink(os.path.join(ROOT, "dev", "emu"), os.path.join(folder, "dev", "emu"))


def try_mutant(base, folder, mutant):
    """None if the mutant is caught, or what is wrong. Times of files are kept, so that make builds
    only what it must."""
    file, _, old, new, test = mutant
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    path = os.path.join(folder, file)
    with open(path, encoding="utf-8") as f:
        source = f.read()
    if source.count(old) != 1:
        return f"its text is found {source.count(old)} times in {file}, expected once"
    with open(path, "w", encoding="utf-8") as f:
        f.write(source.replace(old, new))
    code, output = build(folder, [test])
    if code != 0:
        return "it does not compile: " + " ".join(output.split())[:300]
    code, output = run_test(folder, test)
    return "NOT CAUGHT" if code in (0, 77) else None


def main():
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in m[0] + ": " + m[1] for word in words)]
    if not chosen:
        sys.exit(f"no mutant's description contains {' or '.join(words)}")
    tests = sorted({m[4] for m in chosen})
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        def end(number, _):   # a mutant may be deaf to signals: nothing that was started lives on
            for p in list(live):
                stop(p)
            shutil.rmtree(temporary, ignore_errors=True)
            os._exit(128 + number)

        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        base = os.path.join(temporary, "base")
        copy_tree(base)
        code, output = build(base, tests)
        if code != 0:
            sys.exit(f"the tree does not build without a mutant:\n{output}")
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            results = pool.map(lambda test: run_test(base, test), tests)
            for test, (code, output) in zip(tests, results):
                if code != 0:   # or every mutant would seem to be caught
                    sys.exit(f"test {test} fails without a mutant:\n{output}")
        print(f"built, and tests pass without mutants, in {time.time() - start:.0f} s", flush=True)

        folders = queue.Queue()
        for i in range(JOBS):
            folders.put(os.path.join(temporary, f"job{i}"))

        def work(mutant):
            folder = folders.get()
            try:
                return try_mutant(base, folder, mutant)
            finally:
                folders.put(folder)

        failed = 0
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            for mutant, problem in zip(chosen, pool.map(work, chosen)):
                failed += problem is not None
                print(f"{'FAIL' if problem else 'ok  '}  {mutant[0]:15} {mutant[4]:20} {mutant[1]}"
                      + (f": {problem}" if problem else ""), flush=True)
    print(f"{time.time() - start:.0f} s")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
