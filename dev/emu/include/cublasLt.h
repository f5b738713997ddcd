// cublasLt.h - cuBLASLt's product with epilogues: D = epilogue(alpha op(A) op(B) + beta C).
#pragma once
#include "cublas_v2.h"
typedef emu_blas* cublasLtHandle_t;
struct cublasLtMatmulAlgo_t { uint64_t data[8]; };
struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
};
enum cublasLtEpilogue_t {
    CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_RELU = 2, CUBLASLT_EPILOGUE_BIAS = 4,
    CUBLASLT_EPILOGUE_RELU_BIAS = 6, CUBLASLT_EPILOGUE_GELU = 32, CUBLASLT_EPILOGUE_GELU_BIAS = 36,
    CUBLASLT_EPILOGUE_RELU_AUX = 130, CUBLASLT_EPILOGUE_RELU_AUX_BIAS = 134,
    CUBLASLT_EPILOGUE_DRELU = 136, CUBLASLT_EPILOGUE_DRELU_BGRAD = 152,
    CUBLASLT_EPILOGUE_GELU_AUX = 160, CUBLASLT_EPILOGUE_GELU_AUX_BIAS = 164,
    CUBLASLT_EPILOGUE_DGELU = 192, CUBLASLT_EPILOGUE_DGELU_BGRAD = 208,
    CUBLASLT_EPILOGUE_BGRADA = 256, CUBLASLT_EPILOGUE_BGRADB = 512
};
enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLASLT_MATMUL_DESC_SCALE_TYPE,
    CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
    CUBLASLT_MATMUL_DESC_TRANSC, CUBLASLT_MATMUL_DESC_FILL_MODE, CUBLASLT_MATMUL_DESC_EPILOGUE,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER = 11,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE = 26,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE = 30
};
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_SEARCH_MODE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};
enum cublasLtReductionScheme_t {
    CUBLASLT_REDUCTION_SCHEME_NONE, CUBLASLT_REDUCTION_SCHEME_INPLACE,
    CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE = 4,
    CUBLASLT_REDUCTION_SCHEME_MASK = 7
};
// Those in which the parts of a sum are rounded to D's type.
const uint32_t EMU_LT_ROUNDING_SCHEMES =
    CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;

// ---- what a product is described by -------------------------------------------------------------
struct emu_lt_desc {
    cudaDataType scale;
    cublasOperation_t ta = CUBLAS_OP_N, tb = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
    emu::BlasMatrix bias = {-1, nullptr, 0}, aux = {-1, nullptr, 0};      // type -1: that of D
    bool unsupported = scale != CUDA_R_32F;
};
struct emu_lt_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};
struct emu_lt_preference { uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK; };
typedef emu_lt_desc* cublasLtMatmulDesc_t;
typedef emu_lt_layout* cublasLtMatrixLayout_t;
typedef emu_lt_preference* cublasLtMatmulPreference_t;
EMU_CREATE(cublasLt, emu_blas, (cublasLtHandle_t* object), {})
EMU_CREATE(cublasLtMatmulDesc, emu_lt_desc,
           (cublasLtMatmulDesc_t* object, cublasComputeType_t, cudaDataType scale), {scale})
EMU_CREATE(cublasLtMatrixLayout, emu_lt_layout,
           (cublasLtMatrixLayout_t* object, cudaDataType type, uint64_t rows, uint64_t cols,
            int64_t ld), {type, rows, cols, ld})
EMU_CREATE(cublasLtMatmulPreference, emu_lt_preference, (cublasLtMatmulPreference_t* object), {})
// One `case` of the functions below: the attribute's value goes into a member of the description.
#define EMU_SET_MEMBER(name, member) \
    case name: \
        if (bytes != sizeof(member)) return CUBLAS_STATUS_INVALID_VALUE; \
        memcpy(&member, value, bytes); \
        return CUBLAS_STATUS_SUCCESS;
inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                                     cublasLtMatmulDescAttributes_t attribute,
                                                     const void* value, size_t bytes) {
    switch (attribute) {
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_SCALE_TYPE, d->scale)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_POINTER_MODE, d->pointers)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_TRANSA, d->ta)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_TRANSB, d->tb)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE, d->epilogue)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_BIAS_POINTER, d->bias.p)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, d->bias.type)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, d->aux.p)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, d->aux.ld)
        EMU_SET_MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, d->aux.type)
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: break;
        default: d->unsupported = true;
    }
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t bytes) {
    switch (attribute) {
        EMU_SET_MEMBER(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, p->schemes)
        default: return CUBLAS_STATUS_SUCCESS;
    }
}

// ---- the product --------------------------------------------------------------------------------
#define EMU_LAYOUTS \
    cublasLtMatrixLayout_t la, cublasLtMatrixLayout_t lb, cublasLtMatrixLayout_t lc, \
    cublasLtMatrixLayout_t ld
namespace emu { cublasStatus_t lt_check(cublasLtMatmulDesc_t desc, EMU_LAYOUTS); }
inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t desc, EMU_LAYOUTS,
    cublasLtMatmulPreference_t preference, int requested, cublasLtMatmulHeuristicResult_t* results,
    int* found) {
    cublasStatus_t status = emu::lt_check(desc, la, lb, lc, ld);
    if (!status && requested < 1) status = CUBLAS_STATUS_INVALID_VALUE;
    *found = status ? 0 : requested > 1 ? 2 : 1;      // the second has no epilogues, but tells late
    for (uint64_t i = 0; i < (uint64_t)*found; i++)
        results[i] = {{{preference->schemes, i}}, 0, CUBLAS_STATUS_SUCCESS, 0, {}};
    return status;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t la, const void* b,
                              cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                              cublasLtMatrixLayout_t lc, void* d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream);
