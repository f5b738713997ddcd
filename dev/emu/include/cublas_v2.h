// cublas_v2.h - what ../blas.cpp has of cuBLAS. Matrices lie by columns: (i, j) is p[i + j * ld].
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#define EMU_BLAS_STATUS(X) \
    X(CUBLAS_STATUS_SUCCESS, 0) X(CUBLAS_STATUS_NOT_INITIALIZED, 1) \
    X(CUBLAS_STATUS_ALLOC_FAILED, 3) \
    X(CUBLAS_STATUS_INVALID_VALUE, 7) X(CUBLAS_STATUS_ARCH_MISMATCH, 8) \
    X(CUBLAS_STATUS_MAPPING_ERROR, 11) X(CUBLAS_STATUS_EXECUTION_FAILED, 13) \
    X(CUBLAS_STATUS_INTERNAL_ERROR, 14) X(CUBLAS_STATUS_NOT_SUPPORTED, 15) \
    X(CUBLAS_STATUS_LICENSE_ERROR, 16)
enum cublasStatus_t { EMU_BLAS_STATUS(EMU_ENUM) };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE };
enum cublasMath_t {
    CUBLAS_DEFAULT_MATH = 0, CUBLAS_TENSOR_OP_MATH = 1, CUBLAS_PEDANTIC_MATH = 2,
    CUBLAS_TF32_TENSOR_OP_MATH = 3, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16
};
enum cublasComputeType_t {
    CUBLAS_COMPUTE_16F = 64, CUBLAS_COMPUTE_16F_PEDANTIC = 65, CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_PEDANTIC = 69, CUBLAS_COMPUTE_64F = 70, CUBLAS_COMPUTE_32F_FAST_16F = 74,
    CUBLAS_COMPUTE_32F_FAST_16BF = 75, CUBLAS_COMPUTE_32F_FAST_TF32 = 77
};
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1, CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99 };
const char* cublasGetStatusName(cublasStatus_t status);
inline const char* cublasGetStatusString(cublasStatus_t status) {
    return cublasGetStatusName(status);
}

// ---- handles ------------------------------------------------------------------------------------
struct emu_blas {
    cudaStream_t stream;
    cublasPointerMode_t pointers;
    cublasMath_t math;
};
typedef emu_blas* cublasHandle_t;
#define EMU_CREATE(name, Object, parameters, ...) \
    inline cublasStatus_t name##Create parameters { \
        *object = new Object __VA_ARGS__; \
        return CUBLAS_STATUS_SUCCESS; \
    } \
    inline cublasStatus_t name##Destroy(Object* object) { \
        delete object; \
        return CUBLAS_STATUS_SUCCESS; \
    }
EMU_CREATE(cublas, emu_blas, (cublasHandle_t* object), {})
#define EMU_PROPERTY(Name, T, member) \
    inline cublasStatus_t cublasSet##Name(cublasHandle_t h, T value) { \
        h->member = value; \
        return CUBLAS_STATUS_SUCCESS; \
    } \
    inline cublasStatus_t cublasGet##Name(cublasHandle_t h, T* value) { \
        *value = h->member; \
        return CUBLAS_STATUS_SUCCESS; \
    }
EMU_PROPERTY(Stream, cudaStream_t, stream) EMU_PROPERTY(MathMode, cublasMath_t, math)
EMU_PROPERTY(PointerMode, cublasPointerMode_t, pointers)
#define EMU_BLAS_COPY(name, kind) \
    inline cublasStatus_t cublas##name##Matrix(int m, int n, int bytes, const void* a, int lda, \
                                               void* b, int ldb) { \
        return cudaMemcpy2D(b, (size_t)ldb * bytes, a, (size_t)lda * bytes, (size_t)m * bytes, n, \
                            kind) ? CUBLAS_STATUS_MAPPING_ERROR : CUBLAS_STATUS_SUCCESS; \
    } \
    inline cublasStatus_t cublas##name##Vector(int n, int bytes, const void* x, int incx, void* y, \
                                               int incy) { \
        return cublas##name##Matrix(1, n, bytes, x, incx, y, incy); \
    }
EMU_BLAS_COPY(Set, cudaMemcpyHostToDevice) EMU_BLAS_COPY(Get, cudaMemcpyDeviceToHost)

// ---- vectors ------------------------------------------------------------------------------------
cublasStatus_t cublasSaxpy(cublasHandle_t h, int n, const float* alpha, const float* x, int incx,
                           float* y, int incy);
cublasStatus_t cublasSscal(cublasHandle_t h, int n, const float* alpha, float* x, int incx);
cublasStatus_t cublasScopy(cublasHandle_t h, int n, const float* x, int incx, float* y, int incy);
cublasStatus_t cublasSdot(cublasHandle_t h, int n, const float* x, int incx, const float* y,
                          int incy, float* r);
cublasStatus_t cublasSnrm2(cublasHandle_t h, int n, const float* x, int incx, float* result);
cublasStatus_t cublasIsamax(cublasHandle_t h, int n, const float* x, int incx, int* result);

// ---- matrices -----------------------------------------------------------------------------------
namespace emu {
// A batch of matrices, `stride` elements apart: (i, j) of op(M) is p[index(i, j)]. A vector x is a
// row: x[j] is p[j * ld].
struct BlasMatrix {
    void* p;
    int type;
    int64_t ld;
    bool transposed;
    int64_t stride;
    BlasMatrix(int type, const void* p, int64_t ld, cublasOperation_t op = CUBLAS_OP_N,
               int64_t stride = 0)
        : p((void*)p), type(type), ld(ld), transposed(op != CUBLAS_OP_N), stride(stride) {}
    BlasMatrix(const float* p, int64_t ld, cublasOperation_t op = CUBLAS_OP_N)
        : BlasMatrix(CUDA_R_32F, p, ld, op) {}
    int64_t index(int64_t i, int64_t j) const { return transposed ? i * ld + j : j * ld + i; }
    int64_t bytes() const { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }
    BlasMatrix behind(int64_t elements) const {
        BlasMatrix other = *this;
        other.p = (char*)p + elements * bytes();
        return other;
    }
    BlasMatrix batch(int i) const { return behind(i * stride); }
};
// How sums are to be kept. CUDA 11 named it by a cudaDataType, and code written for it compiles.
struct ComputeType {
    bool doubles, half;
    ComputeType(cublasComputeType_t t)
        : doubles(t == CUBLAS_COMPUTE_64F),
          half(t == CUBLAS_COMPUTE_16F || t == CUBLAS_COMPUTE_16F_PEDANTIC) {}
    ComputeType(cudaDataType t) : doubles(t == CUDA_R_64F), half(t == CUDA_R_16F) {}
};
cublasStatus_t gemm(const char* call, cublasHandle_t h, int m, int n, int k, const void* alpha,
                    BlasMatrix a, BlasMatrix b, const void* beta, BlasMatrix c, int batches,
                    ComputeType compute);
}  // namespace emu
#define EMU_BLAS __forceinline__ cublasStatus_t
#define EMU_SHAPE \
    cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k
EMU_BLAS cublasGemmStridedBatchedEx(EMU_SHAPE, const void* alpha, const void* a,
                                    cudaDataType type_a, int lda, long long stride_a,
                                    const void* b, cudaDataType type_b, int ldb,
                                    long long stride_b, const void* beta, void* c,
                                    cudaDataType type_c, int ldc, long long stride_c, int batches,
                                    emu::ComputeType compute, cublasGemmAlgo_t) {
    return emu::gemm(__func__, h, m, n, k, alpha, {type_a, a, lda, ta, stride_a},
                     {type_b, b, ldb, tb, stride_b}, beta, {type_c, c, ldc, CUBLAS_OP_N, stride_c},
                     batches, compute);
}
EMU_BLAS cublasGemmEx(EMU_SHAPE, const void* alpha, const void* a, cudaDataType type_a, int lda,
                      const void* b, cudaDataType type_b, int ldb, const void* beta, void* c,
                      cudaDataType type_c, int ldc, emu::ComputeType compute, cublasGemmAlgo_t) {
    return emu::gemm(__func__, h, m, n, k, alpha, {type_a, a, lda, ta}, {type_b, b, ldb, tb}, beta,
                     {type_c, c, ldc}, 1, compute);
}
#define EMU_GEMM(letter, T, type) \
    EMU_BLAS cublas##letter##gemmStridedBatched( \
        EMU_SHAPE, const T* alpha, const T* a, int lda, long long stride_a, const T* b, int ldb, \
        long long stride_b, const T* beta, T* c, int ldc, long long stride_c, int batches) { \
        return emu::gemm(__func__, h, m, n, k, alpha, {type, a, lda, ta, stride_a}, \
                         {type, b, ldb, tb, stride_b}, beta, \
                         {type, c, ldc, CUBLAS_OP_N, stride_c}, batches, type); \
    } \
    EMU_BLAS cublas##letter##gemm(EMU_SHAPE, const T* alpha, const T* a, int lda, const T* b, \
                                  int ldb, const T* beta, T* c, int ldc) { \
        return emu::gemm(__func__, h, m, n, k, alpha, {type, a, lda, ta}, {type, b, ldb, tb}, \
                         beta, {type, c, ldc}, 1, type); \
    }
EMU_GEMM(S, float, CUDA_R_32F) EMU_GEMM(D, double, CUDA_R_64F) EMU_GEMM(H, __half, CUDA_R_16F)
EMU_BLAS cublasSgemv(cublasHandle_t h, cublasOperation_t ta, int m, int n, const float* alpha,
                     const float* a, int lda, const float* x, int incx, const float* beta,
                     float* y, int incy) {      // y^T (1, rows) = x^T (1, cols) op(A)^T
    bool plain = ta == CUBLAS_OP_N;
    return emu::gemm(__func__, h, 1, plain ? m : n, plain ? n : m, alpha, {x, incx},
                     {a, lda, plain ? CUBLAS_OP_T : CUBLAS_OP_N}, beta, {y, incy}, 1, CUDA_R_32F);
}
