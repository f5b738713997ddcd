// blas.cpp - cuBLAS and cuBLASLt through matmul.h, for float, half and bfloat16; sums in float.
//
// A product by columns is the product by rows of the same memory with the factors swapped, so
// matmul.h needs only the right strides. 16-bit factors are widened first, and the result is
// rounded once, after the epilogue.
#include <vector>
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "emu.h"
#include "matmul.h"

struct emu_blas {
    cudaStream_t stream;
    cublasPointerMode_t pointers;
    cublasMath_t math;
};
struct emu_lt_desc {
    cudaDataType scale;
    cublasOperation_t ta = CUBLAS_OP_N, tb = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
    void *bias = nullptr, *aux = nullptr;
    int64_t aux_ld = 0;
    int bias_type = -1, aux_type = -1;          // -1: that of D
    bool unsupported = scale != CUDA_R_32F;
};
struct emu_lt_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld, stride = 0;
    int batches = 1;
    cublasLtOrder_t order = CUBLASLT_ORDER_COL;
};
struct emu_lt_preference { size_t workspace; };

namespace emu {

static size_t type_bytes(int type) { return type == CUDA_R_32F ? 4 : type == CUDA_R_64F ? 8 : 2; }
static bool type_known(int type) {
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}
static float load(const void* p, int type, int64_t i) {
    if (type == CUDA_R_32F) return ((const float*)p)[i];
    uint16_t bits = ((const uint16_t*)p)[i];
    return type == CUDA_R_16F ? half_value(bits) : bf16_value(bits);
}
static void store(void* p, int type, int64_t i, float x) {
    if (type == CUDA_R_32F) ((float*)p)[i] = x;
    else ((uint16_t*)p)[i] = type == CUDA_R_16F ? half_bits(x) : bf16_bits(x);
}

struct BlasMatrix {
    void* p;
    int type;
    int64_t ld;
    bool transposed;
};

// What cuBLAS reads and writes is checked as if a kernel did: (rows, cols) as they lie in memory.
static void touch(const char* call, BlasMatrix m, int64_t rows, int64_t cols, Access access,
                  uint32_t op, Pc pc) {
    if (!checking) return;
    for (int64_t j = 0; j < cols; j++)
        check_library(call, (char*)m.p + j * m.ld * type_bytes(m.type), rows * type_bytes(m.type),
                      access, op, pc);
}

struct Epilogue {
    cublasLtEpilogue_t kind = CUBLASLT_EPILOGUE_DEFAULT;
    void *bias = nullptr, *aux = nullptr;
    int bias_type = CUDA_R_32F, aux_type = CUDA_R_32F;
    int64_t aux_ld = 0;
};
const int RELU = 2, BIAS = 4, GELU = 32, AUX = 128, DGELU = 64, BGRAD = 16, BGRADA = 256,
          BGRADB = 512;

// One matrix as floats, as it lies, ld = rows.
static const float* widen(std::vector<float>& room, BlasMatrix m, int64_t rows, int64_t cols,
                          int64_t* ld) {
    *ld = m.ld;
    if (m.type == CUDA_R_32F) return (const float*)m.p;
    room.resize(rows * cols);
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++) room[j * rows + i] = load(m.p, m.type, j * m.ld + i);
    *ld = rows;
    return room.data();
}

// sums (m, n), by columns without gaps, to D: the epilogue.
static void finish(const float* sums, float alpha, float beta, BlasMatrix c, BlasMatrix d, int m,
                   int n, const Epilogue& e) {
#pragma omp parallel for
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            float x = alpha * sums[(int64_t)j * m + i];
            if (beta != 0) x += beta * load(c.p, c.type, j * c.ld + i);
            if (e.kind & BIAS) x += load(e.bias, e.bias_type, i);
            if ((e.kind & GELU) && (e.kind & AUX)) store(e.aux, e.aux_type, j * e.aux_ld + i, x);
            if (e.kind & GELU) x = gelu(x);
            if (e.kind & RELU) x = x > 0 ? x : 0;
            if (e.kind & DGELU) x *= gelu_derivative(load(e.aux, e.aux_type, j * e.aux_ld + i));
            store(d.p, d.type, j * d.ld + i, x);
        }
    }
    if (!(e.kind & BGRAD)) return;
    for (int i = 0; i < m; i++) {
        float sum = 0;
        for (int j = 0; j < n; j++) sum += load(d.p, d.type, j * d.ld + i);
        store(e.bias, e.bias_type, i, sum);
    }
}

// D (m, n) = epilogue(alpha op(A) op(B) + beta C), op(A) (m, k), op(B) (k, n).
static void product(const char* call, Pc pc, uint32_t op, int m, int n, int k, float alpha,
                    BlasMatrix a, BlasMatrix b, float beta, BlasMatrix c, BlasMatrix d,
                    const Epilogue& e = Epilogue()) {
    int64_t a_rows = a.transposed ? k : m, b_rows = b.transposed ? n : k;
    int64_t a_cols = a.transposed ? m : k, b_cols = b.transposed ? k : n, lda, ldb;
    touch(call, a, a_rows, a_cols, READ, op, pc);
    touch(call, b, b_rows, b_cols, READ, op, pc);
    if (beta != 0) touch(call, c, m, n, READ, op, pc);
    BlasMatrix bias = {e.bias, e.bias_type, 0, false}, aux = {e.aux, e.aux_type, e.aux_ld, false};
    bool writes_bias = e.kind & (BGRAD | BGRADA | BGRADB);
    if (e.bias) touch(call, bias, e.kind == BGRADB ? n : m, 1, writes_bias ? WRITE : READ, op, pc);
    if (e.aux) touch(call, aux, m, n, e.kind & DGELU ? READ : WRITE, op, pc);
    touch(call, d, m, n, WRITE, op, pc);
    std::vector<float> room_a, room_b, sums((size_t)m * n, 0.0f);
    const float* fa = widen(room_a, a, a_rows, a_cols, &lda);
    const float* fb = widen(room_b, b, b_rows, b_cols, &ldb);
    // By rows: sums^T (n, m) = op(B)^T (n, k) op(A)^T (k, m).
    Matrix bt = {fb, b.transposed ? 1 : ldb, b.transposed ? ldb : 1};
    Matrix at = {fa, a.transposed ? 1 : lda, a.transposed ? lda : 1};
    matmul(sums.data(), bt, at, n, m, k);
    finish(sums.data(), alpha, beta, c, d, m, n, e);
    if (e.kind == BGRADA || e.kind == BGRADB) {
        Matrix rows = e.kind == BGRADB ? bt : Matrix{at.p, at.col, at.row};
        for (int i = 0; i < (e.kind == BGRADB ? n : m); i++) {
            float sum = 0;
            for (int l = 0; l < k; l++) sum += rows.p[i * rows.row + l * rows.col];
            store(e.bias, e.bias_type, i, sum);
        }
    }
}

// alpha or beta: float, or half when sums are asked for in half; on the device in that pointer
// mode.
static float scalar(const void* p, bool half) {
    return half ? half_value(*(const uint16_t*)p) : *(const float*)p;
}

// Level 1 and 2 work on vectors: x[i] is at p[i * inc].
static void touch_vector(const char* call, const float* p, int n, int inc, Access access,
                         uint32_t op, Pc pc) {
    touch(call, {(void*)p, CUDA_R_32F, inc, false}, 1, n, access, op, pc);
}

}  // namespace emu

using namespace emu;

// ---- handles ------------------------------------------------------------------------------------
struct StatusText {
    int value;
    const char* name;
};
#define EMU_ROW(name, value) {value, #name},
const char* cublasGetStatusName(cublasStatus_t status) {
    static const StatusText rows[] = {EMU_BLAS_STATUS(EMU_ROW)};
    for (const StatusText& row : rows)
        if (row.value == status) return row.name;
    return "unknown cuBLAS status";
}
const char* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }
cublasStatus_t cublasCreate(cublasHandle_t* h) {
    *h = new emu_blas{};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t h, cudaStream_t stream) {
    h->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream(cublasHandle_t h, cudaStream_t* stream) {
    *stream = h->stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode) {
    h->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* mode) {
    *mode = h->math;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t h, cublasPointerMode_t mode) {
    h->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetVersion(cublasHandle_t, int* version) {
    *version = 120400;
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t copied(cudaError_t error) {
    return error ? CUBLAS_STATUS_MAPPING_ERROR : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetVector(int n, int bytes, const void* x, int incx, void* y, int incy) {
    return copied(cudaMemcpy2D(y, (size_t)incy * bytes, x, (size_t)incx * bytes, bytes, n,
                               cudaMemcpyHostToDevice));
}
cublasStatus_t cublasGetVector(int n, int bytes, const void* x, int incx, void* y, int incy) {
    return copied(cudaMemcpy2D(y, (size_t)incy * bytes, x, (size_t)incx * bytes, bytes, n,
                               cudaMemcpyDeviceToHost));
}
cublasStatus_t cublasSetMatrix(int m, int n, int bytes, const void* a, int lda, void* b, int ldb) {
    return copied(cudaMemcpy2D(b, (size_t)ldb * bytes, a, (size_t)lda * bytes, (size_t)m * bytes, n,
                               cudaMemcpyHostToDevice));
}
cublasStatus_t cublasGetMatrix(int m, int n, int bytes, const void* a, int lda, void* b, int ldb) {
    return copied(cudaMemcpy2D(b, (size_t)ldb * bytes, a, (size_t)lda * bytes, (size_t)m * bytes, n,
                               cudaMemcpyDeviceToHost));
}

// ---- vectors ------------------------------------------------------------------------------------
// result = sum of f(x[i], y[i]); a result on the host means that the host waits.
template <class F> static cublasStatus_t reduce(const char* call, cublasHandle_t h, int n,
                                                const float* x, int incx, const float* y, int incy,
                                                float* result, Pc pc, F f) {
    uint32_t op = begin_op(h->stream, call, pc);
    protect_heap(true);
    touch_vector(call, x, n, incx, READ, op, pc);
    touch_vector(call, y, n, incy, READ, op, pc);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += f(x[(int64_t)i * incx], y[(int64_t)i * incy]);
    if (h->pointers == CUBLAS_POINTER_MODE_DEVICE) touch_vector(call, result, 1, 1, WRITE, op, pc);
    else op_waited(h->stream);
    *result = (float)(call[6] == 'S' && call[7] == 'n' ? sqrt(sum) : sum);
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSdot(cublasHandle_t h, int n, const float* x, int incx, const float* y,
                          int incy, float* r) {
    return reduce("cublasSdot", h, n, x, incx, y, incy, r, EMU_CALLER,
                  [](double a, double b) { return a * b; });
}
cublasStatus_t cublasSnrm2(cublasHandle_t h, int n, const float* x, int incx, float* r) {
    return reduce("cublasSnrm2", h, n, x, incx, x, incx, r, EMU_CALLER,
                  [](double a, double b) { return a * b; });
}
cublasStatus_t cublasSasum(cublasHandle_t h, int n, const float* x, int incx, float* r) {
    return reduce("cublasSasum", h, n, x, incx, x, incx, r, EMU_CALLER,
                  [](double a, double) { return fabs(a); });
}
cublasStatus_t cublasIsamax(cublasHandle_t h, int n, const float* x, int incx, int* result) {
    uint32_t op = begin_op(h->stream, "cublasIsamax", EMU_CALLER);
    protect_heap(true);
    touch_vector("cublasIsamax", x, n, incx, READ, op, EMU_CALLER);
    int best = 0;
    for (int i = 1; i < n; i++)
        if (fabsf(x[(int64_t)i * incx]) > fabsf(x[(int64_t)best * incx])) best = i;
    if (h->pointers == CUBLAS_POINTER_MODE_HOST) op_waited(h->stream);
    *result = n > 0 ? best + 1 : 0;       // counted from 1, as Fortran does
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}
// y = f(x, y)
template <class F> static cublasStatus_t transform(const char* call, cublasHandle_t h, int n,
                                                   const float* alpha, const float* x, int incx,
                                                   float* y, int incy, bool reads_y, Pc pc, F f) {
    uint32_t op = begin_op(h->stream, call, pc);
    protect_heap(true);
    touch_vector(call, x, n, incx, READ, op, pc);
    if (reads_y) touch_vector(call, y, n, incy, READ, op, pc);
    touch_vector(call, y, n, incy, WRITE, op, pc);
    for (int i = 0; i < n; i++)
        y[(int64_t)i * incy] =
            f(alpha ? *alpha : 0, x[(int64_t)i * incx], reads_y ? y[(int64_t)i * incy] : 0);
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSaxpy(cublasHandle_t h, int n, const float* alpha, const float* x, int incx,
                           float* y, int incy) {
    return transform("cublasSaxpy", h, n, alpha, x, incx, y, incy, true, EMU_CALLER,
                     [](float a, float x, float y) { return fmaf(a, x, y); });
}
cublasStatus_t cublasSscal(cublasHandle_t h, int n, const float* alpha, float* x, int incx) {
    return transform("cublasSscal", h, n, alpha, x, incx, x, incx, true, EMU_CALLER,
                     [](float a, float x, float) { return a * x; });
}
cublasStatus_t cublasScopy(cublasHandle_t h, int n, const float* x, int incx, float* y, int incy) {
    return transform("cublasScopy", h, n, nullptr, x, incx, y, incy, false, EMU_CALLER,
                     [](float, float x, float) { return x; });
}

// ---- products -----------------------------------------------------------------------------------
static bool shape_is_wrong(int m, int n, int k, cublasOperation_t ta, cublasOperation_t tb,
                           int64_t lda, int64_t ldb, int64_t ldc) {
    return m < 0 || n < 0 || k < 0 || lda < (ta == CUBLAS_OP_N ? m : k) ||
           ldb < (tb == CUBLAS_OP_N ? k : n) || ldc < m;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType type_a,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType type_b, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType type_c, int ldc,
                                          long long stride_c, int batches,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
    if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (shape_is_wrong(m, n, k, ta, tb, lda, ldb, ldc) || batches < 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!type_known(type_a) || !type_known(type_b) || !type_known(type_c))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    uint32_t op = begin_op(h->stream, "cuBLAS's gemm", EMU_CALLER);
    protect_heap(true);
    bool half = compute == CUBLAS_COMPUTE_16F || compute == CUBLAS_COMPUTE_16F_PEDANTIC;
    float scale_ab = scalar(alpha, half), scale_c = scalar(beta, half);
    for (int i = 0; i < batches; i++) {
        BlasMatrix ma = {(char*)a + i * stride_a * type_bytes(type_a), type_a, lda,
                         ta != CUBLAS_OP_N};
        BlasMatrix mb = {(char*)b + i * stride_b * type_bytes(type_b), type_b, ldb,
                         tb != CUBLAS_OP_N};
        BlasMatrix mc = {(char*)c + i * stride_c * type_bytes(type_c), type_c, ldc, false};
        product("cuBLAS's gemm", EMU_CALLER, op, m, n, k, scale_ab, ma, mb, scale_c, mc, mc);
    }
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemmBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb,
                                  int m, int n, int k, const float* alpha, const float* const a[],
                                  int lda, const float* const b[], int ldb, const float* beta,
                                  float* const c[], int ldc, int batches) {
    if (shape_is_wrong(m, n, k, ta, tb, lda, ldb, ldc) || batches < 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t op = begin_op(h->stream, "cublasSgemmBatched", EMU_CALLER);
    protect_heap(true);
    for (int i = 0; i < batches; i++) {
        BlasMatrix mc = {c[i], CUDA_R_32F, ldc, false};
        product("cublasSgemmBatched", EMU_CALLER, op, m, n, k, *alpha,
                {(void*)a[i], CUDA_R_32F, lda, ta != CUBLAS_OP_N},
                {(void*)b[i], CUDA_R_32F, ldb, tb != CUBLAS_OP_N}, *beta, mc, mc);
    }
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemv(cublasHandle_t h, cublasOperation_t ta, int m, int n, const float* alpha,
                           const float* a, int lda, const float* x, int incx, const float* beta,
                           float* y, int incy) {
    if (lda < m || incx < 1 || incy < 1) return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t op = begin_op(h->stream, "cublasSgemv", EMU_CALLER);
    protect_heap(true);
    int rows = ta == CUBLAS_OP_N ? m : n, cols = ta == CUBLAS_OP_N ? n : m;
    BlasMatrix my = {y, CUDA_R_32F, incy, false};       // y as a row: (1, rows)
    product("cublasSgemv", EMU_CALLER, op, 1, rows, cols, *alpha,
            {(void*)x, CUDA_R_32F, incx, false}, {(void*)a, CUDA_R_32F, lda, ta == CUBLAS_OP_N},
            *beta, my, my);
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgeam(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                           int n, const float* alpha, const float* a, int lda, const float* beta,
                           const float* b, int ldb, float* c, int ldc) {
    uint32_t op = begin_op(h->stream, "cublasSgeam", EMU_CALLER);
    protect_heap(true);
    bool na = ta == CUBLAS_OP_N, nb = tb == CUBLAS_OP_N;
    if (*alpha != 0)
        touch("cublasSgeam", {(void*)a, CUDA_R_32F, lda, false}, na ? m : n, na ? n : m, READ, op,
              EMU_CALLER);
    if (*beta != 0)
        touch("cublasSgeam", {(void*)b, CUDA_R_32F, ldb, false}, nb ? m : n, nb ? n : m, READ, op,
              EMU_CALLER);
    touch("cublasSgeam", {c, CUDA_R_32F, ldc, false}, m, n, WRITE, op, EMU_CALLER);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            float x = *alpha != 0 ? *alpha * a[na ? j * lda + i : i * lda + j] : 0;
            c[j * ldc + i] = x + (*beta != 0 ? *beta * b[nb ? j * ldb + i : i * ldb + j] : 0);
        }
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDgemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                           int n, int k, const double* alpha, const double* a, int lda,
                           const double* b, int ldb, const double* beta, double* c, int ldc) {
    if (shape_is_wrong(m, n, k, ta, tb, lda, ldb, ldc)) return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t op = begin_op(h->stream, "cublasDgemm", EMU_CALLER);
    protect_heap(true);
    bool na = ta == CUBLAS_OP_N, nb = tb == CUBLAS_OP_N;
    touch("cublasDgemm", {(void*)a, CUDA_R_64F, lda, false}, na ? m : k, na ? k : m, READ, op,
          EMU_CALLER);
    touch("cublasDgemm", {(void*)b, CUDA_R_64F, ldb, false}, nb ? k : n, nb ? n : k, READ, op,
          EMU_CALLER);
    if (*beta != 0) touch("cublasDgemm", {c, CUDA_R_64F, ldc, false}, m, n, READ, op, EMU_CALLER);
    touch("cublasDgemm", {c, CUDA_R_64F, ldc, false}, m, n, WRITE, op, EMU_CALLER);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum =
                    fma(a[na ? l * lda + i : i * lda + l], b[nb ? j * ldb + l : l * ldb + j], sum);
            c[j * ldc + i] = *alpha * sum + (*beta != 0 ? *beta * c[j * ldc + i] : 0);
        }
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}

// ---- cuBLASLt -----------------------------------------------------------------------------------
cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) { return cublasCreate(h); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return cublasDestroy(h); }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t,
                                        cudaDataType scale) {
    *desc = new emu_lt_desc{scale};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
template <class T> static cublasStatus_t take(T* field, const void* value, size_t bytes) {
    if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
    switch (attribute) {
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return CUBLAS_STATUS_SUCCESS;
        case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return take(&d->scale, value, bytes);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return take(&d->pointers, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSA: return take(&d->ta, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return take(&d->tb, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&d->epilogue, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&d->bias, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return take(&d->bias_type, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return take(&d->aux, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return take(&d->aux_ld, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return take(&d->aux_type, value, bytes);
        default: d->unsupported = true;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = new emu_lt_layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
    switch (attribute) {
        case CUBLASLT_MATRIX_LAYOUT_TYPE: return take(&l->type, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ORDER: return take(&l->order, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ROWS: return take(&l->rows, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_COLS: return take(&l->cols, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_LD: return take(&l->ld, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(&l->batches, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(&l->stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = new emu_lt_preference{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t lt_check(const emu_lt_desc* desc, const emu_lt_layout* a,
                               const emu_lt_layout* b, const emu_lt_layout* c,
                               const emu_lt_layout* d) {
    bool drelu = desc->epilogue == CUBLASLT_EPILOGUE_DRELU ||
                 desc->epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD;
    bool relu_aux = (desc->epilogue & RELU) && (desc->epilogue & AUX);
    if (desc->unsupported || drelu || relu_aux) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (const emu_lt_layout* l : {a, b, c, d}) {
        if (!type_known(l->type) || l->order != CUBLASLT_ORDER_COL)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        if (l->ld < (int64_t)l->rows || l->batches != a->batches)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    uint64_t ka = desc->ta == CUBLAS_OP_N ? a->cols : a->rows,
             kb = desc->tb == CUBLAS_OP_N ? b->rows : b->cols;
    uint64_t m = desc->ta == CUBLAS_OP_N ? a->rows : a->cols,
             n = desc->tb == CUBLAS_OP_N ? b->cols : b->rows;
    if (ka != kb || d->rows != m || d->cols != n || c->rows != m || c->cols != n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((desc->epilogue & AUX || desc->epilogue & DGELU) && desc->aux && desc->aux_ld < (int64_t)m)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
    *found = 0;
    cublasStatus_t status = lt_check(desc, a, b, c, d);
    if (status || requested < 1) return status ? status : CUBLAS_STATUS_INVALID_VALUE;
    results[0] = {};
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t la, const void* b,
                              cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                              cublasLtMatrixLayout_t lc, void* d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t stream) {
    if (cublasStatus_t status = lt_check(desc, la, lb, lc, ld)) return status;
    bool needs_bias = desc->epilogue & (BIAS | BGRAD | BGRADA | BGRADB),
         needs_aux = desc->epilogue & (AUX | DGELU);
    if ((needs_bias && !desc->bias) || (needs_aux && !desc->aux))
        return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t op = begin_op(stream, "cublasLtMatmul", EMU_CALLER);
    protect_heap(true);
    Epilogue e;
    e.kind = desc->epilogue;
    e.bias = needs_bias ? desc->bias : nullptr;
    e.aux = needs_aux ? desc->aux : nullptr;
    e.bias_type = desc->bias_type < 0 ? ld->type : desc->bias_type;
    e.aux_type = desc->aux_type < 0 ? ld->type : desc->aux_type;
    e.aux_ld = desc->aux_ld;
    int k = (int)(desc->ta == CUBLAS_OP_N ? la->cols : la->rows);
    for (int i = 0; i < la->batches; i++) {
        BlasMatrix ma = {(char*)a + i * la->stride * type_bytes(la->type), la->type, la->ld,
                         desc->ta != CUBLAS_OP_N};
        BlasMatrix mb = {(char*)b + i * lb->stride * type_bytes(lb->type), lb->type, lb->ld,
                         desc->tb != CUBLAS_OP_N};
        BlasMatrix mc = {(char*)c + i * lc->stride * type_bytes(lc->type), lc->type, lc->ld, false};
        BlasMatrix md = {(char*)d + i * ld->stride * type_bytes(ld->type), ld->type, ld->ld, false};
        product("cublasLtMatmul", EMU_CALLER, op, (int)ld->rows, (int)ld->cols, k,
                *(const float*)alpha, ma, mb, *(const float*)beta, mc, md, e);
    }
    protect_heap(false);
    return CUBLAS_STATUS_SUCCESS;
}
