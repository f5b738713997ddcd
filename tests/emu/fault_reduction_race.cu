// expect: race
#include <cstdio>
// The barrier stands outside of the loop: the first round is ordered, the second is not.
__global__ void sum(float* p) {
    __shared__ float s[128];
    int t = threadIdx.x;
    s[t] = p[t];
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half) s[t] += s[t + half];      // FAULT
#ifdef FIXED
        __syncthreads();
#endif
    }
    if (t == 0) p[0] = s[0];
}
int main() {
    float* p;
    cudaMalloc(&p, 512);
    cudaMemset(p, 0, 512);
    sum<<<1, 128>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
