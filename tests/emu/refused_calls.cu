#include <cstdlib>
#include <vector>
struct Vector {
    float x, y;
    float length() const { return x * x + y * y; }
};
int twice(int x) { return 2 * x; }
template <class T> T third(T x) { return x / 3; }
#define DEVICE __device__ inline
DEVICE int square(int x) { return x * x; }
__global__ void k(int* p, int n) { *p = square(n); }
#ifdef HOST_FUNCTION
__global__ void host_function(int* p) { *p = 1 + twice(3); }      // refused: twice
#elif defined(HOST_TEMPLATE)
__device__ int inner(int x) {
    return third(x);      // refused: third
}
#elif defined(HOST_METHOD)
__global__ void host_method(Vector v, float* p) { *p = v.length(); }      // refused: length
#elif defined(LIBRARY)
__global__ void library(int* p) { *p = rand() % 6; }      // refused: rand
#elif defined(STL)
__global__ void stl(int* p) {
    std::vector<int> v;      // refused: vector
}
#elif defined(DEVICE_MALLOC)
__global__ void device_malloc() {
    int* list = (int*)malloc(8);      // refused: malloc
    free(list);
}
#elif defined(DEVICE_NEW)
__global__ void device_new(int n) { delete[] new int[n]; }      // refused: delete
#elif defined(DEVICE_FUNCTION)
int main() { return square(3); }      // refused: square
#elif defined(NO_KERNEL)
int main() {
    twice<<<1, 1>>>(3);      // refused: twice is launched
}
#elif defined(SHARED_SIZE)
__global__ void shared_size(int n) {
    __shared__ float s[n];      // refused: constant
    s[0] = 1;
}
#elif defined(LOCAL_SIZE)
__global__ void local_size(int n, int* p) {
    int list[n];      // refused: constant
    list[0] = 1;
    *p = list[0];
}
#elif defined(SHARED_VALUE)
__global__ void shared_value() {
    __shared__ int s = 0;      // refused: initialised
}
#elif defined(REFERENCE)
__global__ void reference(const int& n, int* p) { *p = n; }      // refused: reference
#endif
