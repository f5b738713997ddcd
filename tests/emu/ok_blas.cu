// flags: -lcublas -lcublasLt
// cuBLAS and cuBLASLt against three loops.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cmath>
#include <cstdio>
#include <vector>

static_assert(sizeof(__half) + sizeof(__nv_bfloat16) == 4, "cublas_v2.h brings both types");
#define EXPECT(x) do { if (!(x)) { printf("line %d: %s\n", __LINE__, #x); return 1; } } while (0)
typedef std::vector<float> Floats;
static float* device(const Floats& x) {
    float* p;
    cudaMalloc(&p, x.size() * sizeof(float));
    cudaMemcpy(p, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice);
    return p;
}
static Floats host(const float* p, size_t n) {
    Floats x(n);
    cudaMemcpy(x.data(), p, n * sizeof(float), cudaMemcpyDeviceToHost);
    return x;
}
static bool close(const Floats& a, const Floats& b) {
    for (size_t i = 0; i < a.size(); i++)
        if (fabsf(a[i] - b[i]) > 1e-3f) return false;
    return true;
}
// By columns: c (m, n) = op(a) op(b)
static Floats loops(const Floats& a, bool ta, const Floats& b, bool tb, int m, int n, int k) {
    Floats c(m * n, 0);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++)
            for (int l = 0; l < k; l++)
                c[j * m + i] += (ta ? a[i * k + l] : a[l * m + i]) *
                                (tb ? b[l * n + j] : b[j * k + l]);
    return c;
}
static float gelu_of(float x) {
    return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

int main() {
    const int m = 37, n = 21, k = 50;
    Floats a(m * k), b(k * n), bias(m);
    for (int i = 0; i < m * k; i++) a[i] = (i * 37 % 101 - 50) / 50.0f;
    for (int i = 0; i < k * n; i++) b[i] = (i * 53 % 97 - 48) / 48.0f;
    for (int i = 0; i < m; i++) bias[i] = i * 0.1f - 2;
    float *da = device(a), *db = device(b), *dc, one = 1, zero = 0, *dbias = device(bias), *aux;
    cudaMalloc(&dc, m * n * sizeof(float));
    cudaMalloc(&aux, m * n * sizeof(float));
    cublasHandle_t h;
    EXPECT(cublasCreate(&h) == CUBLAS_STATUS_SUCCESS);
    for (int t = 0; t < 4; t++) {
        cublasOperation_t ta = t & 1 ? CUBLAS_OP_T : CUBLAS_OP_N;
        cublasOperation_t tb = t & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
        int lda = t & 1 ? k : m, ldb = t & 2 ? n : k;
        EXPECT(!cublasSgemm(h, ta, tb, m, n, k, &one, da, lda, db, ldb, &zero, dc, m));
        EXPECT(close(host(dc, m * n), loops(a, t & 1, b, t & 2, m, n, k)));
    }
    EXPECT(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, &one, da, 1, db, k, &zero, dc, m) ==
           CUBLAS_STATUS_INVALID_VALUE);
    float dot;
    EXPECT(!cublasSdot(h, k, da, 1, db, 1, &dot));
    EXPECT(!cublasSgemv(h, CUBLAS_OP_T, k, m, &one, da, k, db, 1, &zero, dc, 1));
    EXPECT(close(host(dc, m), loops(a, true, Floats(b.begin(), b.begin() + k), false, m, 1, k)));

    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, lc;
    EXPECT(!cublasLtCreate(&lt));
    EXPECT(!cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    cublasOperation_t transpose = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    auto multiply = [&] {
        return cublasLtMatmul(lt, desc, &one, da, la, db, lb, &zero, dc, lc, dc, lc,
                              NULL, NULL, 0, 0);
    };
    int64_t ld = m;
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dbias, sizeof dbias);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux,
                                   sizeof aux);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld);
    cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, k, m, k);
    cublasLtMatrixLayoutCreate(&lb, CUDA_R_32F, k, n, k);
    cublasLtMatrixLayoutCreate(&lc, CUDA_R_32F, m, n, m);
    EXPECT(!multiply());
    Floats pre = loops(a, true, b, false, m, n, k), out = pre;
    for (int i = 0; i < m * n; i++) pre[i] += bias[i % m], out[i] = gelu_of(pre[i]);
    EXPECT(close(host(aux, m * n), pre) && close(host(dc, m * n), out));
    epilogue = CUBLASLT_EPILOGUE_BGRADB;
    float* dgrad = device(Floats(n));
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dgrad, sizeof dgrad);
    EXPECT(!multiply());
    Floats sums(n, 0);
    for (int i = 0; i < n * k; i++) sums[i / k] += b[i];
    EXPECT(close(host(dgrad, n), sums));
    cublasDestroy(h);
    return 0;
}
