// blas.cpp - cuBLAS and cuBLASLt through matmul.h, for float, half and bfloat16; sums in float.
// A product by columns is the product by rows of the same memory with the factors swapped, so
// matmul.h needs only the right strides. 16-bit factors are widened; the result is rounded once.
#include <functional>
#include <vector>
#include "cublasLt.h"
#include "emu.h"
#include "matmul.h"
namespace emu {
const cublasStatus_t OK = CUBLAS_STATUS_SUCCESS;
static bool type_known(int type) {
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}
static float load(const BlasMatrix& m, int64_t i) {
    if (m.type == CUDA_R_32F) return ((const float*)m.p)[i];
    uint16_t bits = ((const uint16_t*)m.p)[i];
    return m.type == CUDA_R_16F ? half_value(bits) : bf16_value(bits);
}
static void store(const BlasMatrix& m, int64_t i, float x) {
    if (m.type == CUDA_R_32F) ((float*)m.p)[i] = x;
    else ((uint16_t*)m.p)[i] = m.type == CUDA_R_16F ? half_bits(x) : bf16_bits(x);
}
// What cuBLAS reads and writes is checked as if a kernel did: op(M) of (rows, cols).
static void touch(const Work& work, BlasMatrix m, int64_t rows, int64_t cols, Access access) {
    if (m.transposed) std::swap(rows, cols);
    for (int64_t j = 0; checking && j < cols; j++)
        check_call(work, m.behind(j * m.ld).p, rows * m.bytes(), access);
}
struct Epilogue {
    int kind = CUBLASLT_EPILOGUE_DEFAULT;
    BlasMatrix bias = {nullptr, 0}, aux = {nullptr, 0};      // read or written if kind says so
    bool split_k = false;      // in two, and each half's sums are rounded to D's type
};
enum { RELU = 2, BIAS = 4, BGRAD = 16, GELU = 32, DGELU = 64, AUX = 128, BGRADA = 256,
       BGRADB = 512, WRITES_BIAS = BGRAD | BGRADA | BGRADB };      // bits of a cublasLtEpilogue_t
// op(M)^T as floats, for matmul.h: the columns of M are the rows there.
static Matrix widen(std::vector<float>& room, BlasMatrix m, int64_t rows, int64_t cols) {
    const float* p = (const float*)m.p;
    if (m.type != CUDA_R_32F) {
        if (m.transposed) std::swap(rows, cols);
        room.resize(rows * cols);
        for (int64_t j = 0; j < cols; j++)
            for (int64_t i = 0; i < rows; i++) room[j * rows + i] = load(m, j * m.ld + i);
        p = room.data();
        m.ld = rows;
    }
    return {p, m.transposed ? 1 : m.ld, m.transposed ? m.ld : 1};
}
// sums (n, m) = bt (n, k) at (k, m), by rows. With split-K, many blocks share a sum; where cuBLAS
// is not told otherwise, their parts may meet in D, which has 8 or 11 bits.
static void add_products(std::vector<float>& sums, Matrix bt, Matrix at, int m, int n, int k,
                         BlasMatrix d, bool split_k) {
    const int LONG = 256;      // products worth being split
    if (!split_k || k < LONG || d.type == CUDA_R_32F)
        return matmul(sums.data(), m, bt, at, n, m, k);
    std::vector<float> rest(sums.size(), 0.0f);
    int half = k / 2;
    matmul(sums.data(), m, bt, at, n, m, half);
    matmul(rest.data(), m, part(bt, 0, half), part(at, half, 0), n, m, k - half);
    auto rounded = [&](float x) {
        uint16_t bits;
        store({d.type, &bits, 0}, 0, x);
        return load({d.type, &bits, 0}, 0);
    };
    for (size_t i = 0; i < sums.size(); i++) sums[i] = rounded(sums[i]) + rounded(rest[i]);
}
// sums (m, n), by columns without gaps, to D: the epilogue.
static void finish(const float* sums, float alpha, float beta, BlasMatrix c, BlasMatrix d, int m,
                   int n, const Epilogue& e) {
#pragma omp parallel for
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            float x = alpha * sums[(int64_t)j * m + i];
            if (beta != 0) x += beta * load(c, j * c.ld + i);
            if (e.kind & BIAS) x += load(e.bias, i);
            if ((e.kind & GELU) && (e.kind & AUX)) store(e.aux, j * e.aux.ld + i, x);
            if (e.kind & GELU) x = gelu(x);
            if (e.kind & RELU) x = x > 0 ? x : 0;
            if (e.kind & DGELU) x *= gelu_derivative(load(e.aux, j * e.aux.ld + i));
            store(d, j * d.ld + i, x);
        }
    }
}
static void product_of_doubles(int m, int n, int k, double alpha, BlasMatrix a, BlasMatrix b,
                               double beta, BlasMatrix c) {
    const double *pa = (const double*)a.p, *pb = (const double*)b.p;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0, *x = (double*)c.p + c.index(i, j);
            for (int64_t l = 0; l < k; l++) sum = fma(pa[a.index(i, l)], pb[b.index(l, j)], sum);
            *x = alpha * sum + (beta != 0 ? beta * *x : 0);
        }
}
// D (m, n) = epilogue(alpha op(A) op(B) + beta C), op(A) (m, k), op(B) (k, n).
static void product(const Work& work, int m, int n, int k, double alpha, BlasMatrix a,
                    BlasMatrix b, double beta, BlasMatrix c, BlasMatrix d,
                    const Epilogue& e = Epilogue()) {
    touch(work, a, m, k, READ);
    touch(work, b, k, n, READ);
    if (beta != 0) touch(work, c, m, n, READ);
    if (e.kind & BIAS) touch(work, e.bias, m, 1, READ);
    if (e.kind & WRITES_BIAS) touch(work, e.bias, e.kind == BGRADB ? n : m, 1, WRITE);
    if (e.kind & AUX) touch(work, e.aux, m, n, e.kind & DGELU ? READ : WRITE);
    touch(work, d, m, n, WRITE);
    if (d.type == CUDA_R_64F) return product_of_doubles(m, n, k, alpha, a, b, beta, d);
    // By rows: sums^T (n, m) = op(B)^T (n, k) op(A)^T (k, m).
    std::vector<float> room_a, room_b, sums((size_t)m * n, 0.0f);
    Matrix at = widen(room_a, a, m, k), bt = widen(room_b, b, k, n);
    add_products(sums, bt, at, m, n, k, d, e.split_k);
    finish(sums.data(), (float)alpha, (float)beta, c, d, m, n, e);
    auto add_up = [&](int count, int depth, auto element) {
        for (int i = 0; i < count; i++) {
            float sum = 0;
            for (int l = 0; l < depth; l++) sum += element(i, l);
            store(e.bias, i, sum);
        }
    };
    if (e.kind & BGRAD) add_up(m, n, [&](int i, int j) { return load(d, d.index(i, j)); });
    if (e.kind & BGRADA) add_up(m, k, [&](int i, int l) { return at.p[l * at.row + i * at.col]; });
    if (e.kind & BGRADB) add_up(n, k, [&](int j, int l) { return bt.p[j * bt.row + l * bt.col]; });
}
cublasStatus_t gemm(const char* call, cublasHandle_t h, int m, int n, int k, const void* alpha,
                    BlasMatrix a, BlasMatrix b, const void* beta, BlasMatrix c, int batches,
                    ComputeType compute) {
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || batches < 0 || c.ld < m || a.ld < (a.transposed ? k : m) ||
        b.ld < (b.transposed ? n : k)) return CUBLAS_STATUS_INVALID_VALUE;
    for (int type : {a.type, b.type, c.type})
        if (compute.doubles ? type != CUDA_R_64F : !type_known(type))
            return CUBLAS_STATUS_NOT_SUPPORTED;
    StreamWork work(call, h->stream, EMU_CALLER);
    auto scalar = [&](const void* p) {      // of the type that sums are asked for in
        if (compute.doubles) return *(const double*)p;
        return compute.half ? half_value(*(const uint16_t*)p) : (double)*(const float*)p;
    };
    for (int i = 0; i < batches; i++)
        product(work, m, n, k, scalar(alpha), a.batch(i), b.batch(i), scalar(beta), c.batch(i),
                c.batch(i));
    return OK;
}
// cuBLASLt has no algorithm for some products with an epilogue; it may say so when it is asked for
// one, or only by the product itself. EMU_BLAS_REFUSE=epilogues or =matmul makes it so for all, so
// that what a program does instead can be tested.
static bool refused(const char* by, int epilogue) {
    const char* what = getenv("EMU_BLAS_REFUSE") ?: "";
    if (*what && strcmp(what, "epilogues") && strcmp(what, "matmul")) {
        fprintf(stderr, "emu: EMU_BLAS_REFUSE=%s: expected epilogues or matmul\n", what);
        exit(1);
    }
    return !strcmp(what, by) && epilogue != CUBLASLT_EPILOGUE_DEFAULT;
}
cublasStatus_t lt_check(cublasLtMatmulDesc_t desc, EMU_LAYOUTS) {
    int kind = desc->epilogue;
    bool drelu = kind == CUBLASLT_EPILOGUE_DRELU || kind == CUBLASLT_EPILOGUE_DRELU_BGRAD;
    if (desc->unsupported || drelu || ((kind & RELU) && (kind & AUX)) || refused("epilogues", kind))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (const emu_lt_layout* l : {la, lb, lc, ld}) {
        if (!type_known(l->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
        if (l->ld < (int64_t)l->rows) return CUBLAS_STATUS_INVALID_VALUE;
    }
    uint64_t m = la->rows, ka = la->cols, kb = lb->rows, n = lb->cols;
    if (desc->ta != CUBLAS_OP_N) std::swap(m, ka);
    if (desc->tb != CUBLAS_OP_N) std::swap(kb, n);
    bool aux_too_small = (kind & AUX) && desc->aux.p && desc->aux.ld < (int64_t)m;
    if (ka != kb || ld->rows != m || ld->cols != n || lc->rows != m || lc->cols != n ||
        aux_too_small)
        return CUBLAS_STATUS_INVALID_VALUE;
    return OK;
}
// A result for the host, which then has waited, or for the device.
template <class T>
static cublasStatus_t give(cublasHandle_t h, const Work& work, T* place, double value) {
    if (h->pointers == CUBLAS_POINTER_MODE_HOST) op_waited(h->stream);
    else touch(work, {(float*)place, 1}, 1, 1, WRITE);
    *place = (T)value;
    return OK;
}
template <class F> static double sum(const Work& work, int n, const float* x, int incx,
                                     const float* y, int incy, F f) {
    touch(work, {x, incx}, 1, n, READ);
    touch(work, {y, incy}, 1, n, READ);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += f(x[i * incx], y[i * incy]);
    return sum;
}
// y = f(x, y)
template <class F> static cublasStatus_t transform(const Work& work, int n, const float* x,
                                                   int incx, float* y, int incy, F f) {
    touch(work, {x, incx}, 1, n, READ);
    touch(work, {y, incy}, 1, n, WRITE);
    for (int64_t i = 0; i < n; i++) y[i * incy] = f(x[i * incx], y[i * incy]);
    return OK;
}
}  // namespace emu
using namespace emu;
const char* cublasGetStatusName(cublasStatus_t status) {
    switch (status) { EMU_BLAS_STATUS(EMU_NAME) }
    return "unknown cuBLAS status";
}

// ---- vectors ------------------------------------------------------------------------------------
cublasStatus_t cublasSdot(cublasHandle_t h, int n, const float* x, int incx, const float* y,
                          int incy, float* r) {
    StreamWork work("cublasSdot", h->stream, EMU_CALLER);
    return give(h, work, r, sum(work, n, x, incx, y, incy, std::multiplies<double>()));
}
cublasStatus_t cublasSnrm2(cublasHandle_t h, int n, const float* x, int incx, float* r) {
    StreamWork work("cublasSnrm2", h->stream, EMU_CALLER);
    return give(h, work, r, sqrt(sum(work, n, x, incx, x, incx, std::multiplies<double>())));
}
cublasStatus_t cublasIsamax(cublasHandle_t h, int n, const float* x, int incx, int* r) {
    StreamWork work("cublasIsamax", h->stream, EMU_CALLER);
    touch(work, {x, incx}, 1, n, READ);
    int best = 0;
    for (int i = 1; i < n; i++)
        if (fabsf(x[(int64_t)i * incx]) > fabsf(x[(int64_t)best * incx])) best = i;
    return give(h, work, r, n > 0 ? best + 1 : 0);       // counted from 1, as Fortran does
}
cublasStatus_t cublasSaxpy(cublasHandle_t h, int n, const float* alpha, const float* x, int incx,
                           float* y, int incy) {
    StreamWork work("cublasSaxpy", h->stream, EMU_CALLER);
    touch(work, {y, incy}, 1, n, READ);
    return transform(work, n, x, incx, y, incy,
                     [&](float x, float y) { return fmaf(*alpha, x, y); });
}
cublasStatus_t cublasSscal(cublasHandle_t h, int n, const float* alpha, float* x, int incx) {
    StreamWork work("cublasSscal", h->stream, EMU_CALLER);
    return transform(work, n, x, incx, x, incx, [&](float x, float) { return *alpha * x; });
}
cublasStatus_t cublasScopy(cublasHandle_t h, int n, const float* x, int incx, float* y, int incy) {
    StreamWork work("cublasScopy", h->stream, EMU_CALLER);
    return transform(work, n, x, incx, y, incy, [](float x, float) { return x; });
}

// ---- products -----------------------------------------------------------------------------------
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t la, const void* b,
                              cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                              cublasLtMatrixLayout_t lc, void* d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t,
                              cudaStream_t stream) {
    if (cublasStatus_t status = lt_check(desc, la, lb, lc, ld)) return status;
    bool second = algorithm && algorithm->data[1];
    if (refused("matmul", desc->epilogue) ||
        (second && desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT)) return CUBLAS_STATUS_NOT_SUPPORTED;
    Epilogue e = {desc->epilogue, desc->bias, desc->aux,
                  !algorithm || algorithm->data[0] & EMU_LT_ROUNDING_SCHEMES};
    if (((e.kind & (BIAS | WRITES_BIAS)) && !e.bias.p) || ((e.kind & AUX) && !e.aux.p))
        return CUBLAS_STATUS_INVALID_VALUE;
    for (BlasMatrix* m : {&e.bias, &e.aux})
        if (m->type < 0) m->type = ld->type;
    StreamWork work("cublasLtMatmul", stream, EMU_CALLER);
    int k = (int)(desc->ta == CUBLAS_OP_N ? la->cols : la->rows);
    product(work, (int)ld->rows, (int)ld->cols, k, *(const float*)alpha,
            {la->type, a, la->ld, desc->ta}, {lb->type, b, lb->ld, desc->tb}, *(const float*)beta,
            {lc->type, c, lc->ld}, {ld->type, d, ld->ld}, e);
    return OK;
}
