// expect: race
#include <cstdio>
// The reduction of a warp in old style: no lockstep orders lanes since Volta.
__global__ void sum(float* p) {
    __shared__ volatile float s[32];
    int t = threadIdx.x;
    s[t] = p[t];
    __syncwarp();
    for (int half = 16; half > 0; half /= 2) {
        float v = t < half ? s[t + half] : 0;      // FAULT
#ifdef FIXED
        __syncwarp();
#endif
        if (t < half) s[t] = s[t] + v;      // FAULT2
#ifdef FIXED
        __syncwarp();
#endif
    }
    if (t == 0) p[0] = s[0];
}
int main() {
    float* p;
    cudaMalloc(&p, 128);
    cudaMemset(p, 1, 128);
    sum<<<1, 32>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
