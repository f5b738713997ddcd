// expect: note: integer division by zero
#include <cstdio>
#include <climits>
template <class T> __global__ void divide(T* out, const T* a) {
    T zero = a[0];
#ifdef FIXED
    zero += 1;
#endif
    out[0] = a[2] / zero;      // FAULT
    out[1] = out[0] % zero;
    out[2] = 5 + a[2];         // what comes after goes on as it should
    T minus = a[3];
#ifdef FIXED
    minus -= 1;
#endif
    out[3] = a[1] / minus;
}
template <class T> void test(T lowest) {
    T h[4] = {0, lowest, 7, T(-1)}, *a, *out;
    cudaMalloc(&a, sizeof h);
    cudaMalloc(&out, sizeof h);
    cudaMemcpy(a, h, sizeof h, cudaMemcpyHostToDevice);
    divide<<<1, 1>>>(out, a);
    cudaMemcpy(h, out, sizeof h, cudaMemcpyDeviceToHost);
    if (h[2] != 12) printf("emu: went wrong\n");
    cudaFree(a);
    cudaFree(out);
}
int main() {
    test<int>(INT_MIN);
    test<unsigned>(0);
    test<long long>(LLONG_MIN);
    test<unsigned long long>(0);
    test<short>(SHRT_MIN);
    test<unsigned char>(0);
}
