// flags: -Xcompiler -pthread
// Several threads of the host, each with a stream, its own memory and managed memory, at once.
#include <cstdio>
#include <thread>
#include <vector>
__global__ void add(float* a, int n, float x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) a[i] += x;
}
static bool failed;
static void one(int number) {
    const int n = 1000;
    std::vector<float> h(n, 1);
    float *d, *m, *p;
    cudaStream_t stream;
    for (int round = 0; round < 20; round++) {
        failed |= cudaStreamCreate(&stream) || cudaMalloc(&d, n * 4) ||
                  cudaMallocManaged(&m, n * 4) || cudaMallocHost(&p, n * 4);
        for (int i = 0; i < n; i++) m[i] = h[i], p[i] = i;
        cudaMemcpyAsync(d, h.data(), n * 4, cudaMemcpyHostToDevice, stream);
        for (int k = 0; k < 3; k++) add<<<8, 128, 0, stream>>>(d, n, number);
        add<<<8, 128, 0, stream>>>(m, n, number);
        cudaMemcpyAsync(p, d, n * 4, cudaMemcpyDeviceToHost, stream);
        cudaStreamSynchronize(stream);
        for (int i = 0; i < n; i++) failed |= p[i] != 1 + 3 * number || m[i] != 1 + number;
        cudaFree(d), cudaFree(m), cudaFreeHost(p);
        cudaStreamDestroy(stream);
    }
}
int main() {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) threads.emplace_back(one, i);
    for (std::thread& t : threads) t.join();
#pragma omp parallel for num_threads(4)
    for (int i = 0; i < 4; i++) one(i);
    return failed;
}
