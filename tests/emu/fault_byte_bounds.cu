// expect: out-of-bounds read of 1 bytes: 0 bytes past the end of an allocation of 13 bytes
#include <cstdio>
__global__ void count(const char* text, int n, int* spaces) {
#ifdef FIXED
    for (int i = threadIdx.x; i < n; i += blockDim.x)
#else
    for (int i = threadIdx.x; i <= n; i += blockDim.x)
#endif
        if (text[i] == ' ') atomicAdd(spaces, 1);      // FAULT
}
int main() {
    char* p;
    int* spaces;
    cudaMalloc(&p, 13);
    cudaMalloc(&spaces, sizeof(int));
    cudaMemset(spaces, 0, sizeof(int));
    cudaMemcpy(p, "one two three", 13, cudaMemcpyHostToDevice);
    count<<<1, 4>>>(p, 13, spaces);
    cudaDeviceSynchronize();
    printf("done\n");
}
