// Blocks that work together in the ways of real code: nothing of this is a race, or it is one that
// everybody writes and that is right.
#include <cooperative_groups.h>
#include <cstdio>
namespace cg = cooperative_groups;

#define CHECK(call) if (call) return printf("line %d\n", __LINE__)

__device__ unsigned done, ticket;
__device__ int mutex, arrived, largest;

// The last block to come adds up the others' sums, as in NVIDIA's threadFenceReduction.
__global__ void last_block(float* out, float* part, int n) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = blockIdx.x;
        __threadfence();
        last = atomicInc(&done, gridDim.x) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) atomicAdd(out, part[i]);
    if (threadIdx.x == 0) done = 0;
}

// Each tile waits for the sum of those before it. Tickets say who comes first: blockIdx does not.
__global__ void look_back(volatile int* flag, volatile int* sum) {
    if (threadIdx.x) return;
    int tile = atomicAdd(&ticket, 1);
    int before = 0;
    if (tile) {
        while (flag[tile - 1] == 0) {}
        __threadfence();
        before = sum[tile - 1];
    }
    sum[tile] = before + tile;
    __threadfence();
    flag[tile] = 1;
}

__global__ void critical_section(int* total, int* twice) {
    if (threadIdx.x == 0)
        while (atomicCAS(&mutex, 0, 1) != 0) {}
    __syncthreads();
    total[threadIdx.x] = total[threadIdx.x] + threadIdx.x;      // under the block's lock
    __syncthreads();
    if (threadIdx.x) return;
    *twice += 2;
    __threadfence();
    if (blockIdx.x % 2) atomicExch(&mutex, 0);
    else mutex = 0;
}

// A barrier of the whole grid, made by hand: all blocks must be there, as in a cooperative launch.
__global__ void by_hand(int* a, int* b) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    for (int round = 1; round < 4; round++) {
        a[i] = i * round;
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(&arrived, 1);
            while (atomicAdd(&arrived, 0) < (2 * round - 1) * gridDim.x) {}
        }
        __syncthreads();
        b[i] = a[n - 1 - i];
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(&arrived, 1);
            while (atomicAdd(&arrived, 0) < 2 * round * gridDim.x) {}
        }
        __syncthreads();
    }
}

__global__ void by_grid_sync(int* a, int* b) {
    cg::grid_group grid = cg::this_grid();
    int i = grid.thread_rank(), n = grid.size();
    for (int round = 1; round < 4; round++) {
        a[i] = i * round;
        grid.sync();
        b[i] = a[n - 1 - i];
        grid.sync();
    }
}

// Breadth-first search, level by level: all that store to one word store the same value.
__global__ void search(int* level, char* seen, int n, int depth, int* again) {
    int v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= n || level[v] != depth) return;
    seen[v] = 1;
    for (int k = 1; k <= 3; k++) {
        int next = (v * 2 + k * 37) % n;
        if (level[next] == -1) {
            level[next] = depth + 1;
            *again = 1;
        }
        seen[next] = 1;
    }
}

// Row k and column k are read by all, and stored with the value that they have.
__global__ void floyd(int* d, int n, int k) {
    int i = blockIdx.x, j = threadIdx.x;
    d[i * n + j] = min(d[i * n + j], d[i * n + k] + d[k * n + j]);
}

// A look before the atomic operation, which may save it.
__global__ void maximum(const int* x) {
    int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    if (v > largest) atomicMax(&largest, v);
    if (v > *(volatile int*)&largest) atomicMax(&largest, v);
}

__device__ int root(const int* parent, int v) {
    while (v != parent[v]) v = parent[v];
    return v;
}
__global__ void unite(int* parent, int n) {
    int a = blockIdx.x * blockDim.x + threadIdx.x, b = (a * 5 + 3) % n;
    for (;;) {
        a = root(parent, a), b = root(parent, b);
        if (a == b) break;
        int high = max(a, b), low = min(a, b);
        if (atomicCAS(&parent[high], high, low) == high) break;
    }
}

// Two warps hand values over by flags, without a barrier.
__global__ void hand_over(int* out) {
    __shared__ volatile int full;
    __shared__ int box;
    if (threadIdx.x == 0) full = 0;
    __syncthreads();
#ifdef EMU_CHECKED      // in the fast form a loop that waits never ends
    for (int i = 0; i < 8; i++) {
        if (threadIdx.x == 0) {
            while (full) {}
            __threadfence_block();
            box = i;
            __threadfence_block();
            full = 1;
        } else if (threadIdx.x == 32) {
            while (!full) {}
            __threadfence_block();
            out[i] = box;
            __threadfence_block();
            full = 0;
        }
    }
#endif
}

// The search is over when somebody has found it: those who see it late look on for nothing.
__global__ void find(const int* a, int n, int key, volatile int* found) {
    __shared__ volatile int here;
    if (threadIdx.x == 0) here = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n && !here && !*found; i += blockDim.x)
        if (a[i] % 100 == key) here = 1, *found = 1;
}

int main() {
    const int n = 1024;
    int *a, *b, host[n];
    CHECK(cudaMalloc(&a, n * 4));
    CHECK(cudaMalloc(&b, n * 4));
    for (int round = 0; round < 2; round++) {
        CHECK(cudaMemset(a, 0, n * 4));
        last_block<<<32, 32>>>((float*)a, (float*)b, n);
    }
    CHECK(cudaMemset(b, 0, n * 4));
    look_back<<<20, 32>>>(b, a);
    CHECK(cudaMemset(b, 0, n * 4));
    critical_section<<<20, 64>>>(b, b + 64);
    CHECK(cudaMemcpy(host, b, 65 * 4, cudaMemcpyDeviceToHost));
    if (host[64] != 40 || host[63] != 20 * 63) return 1;
    void* arguments[] = {&a, &b};
    CHECK(cudaLaunchCooperativeKernel((void*)by_hand, dim3(4), dim3(64), arguments));
    CHECK(cudaLaunchCooperativeKernel((void*)by_grid_sync, dim3(4), dim3(64), arguments));
    CHECK(cudaMemcpy(host, b, n, cudaMemcpyDeviceToHost));
    if (host[1] != 3 * 254) return 1;

    CHECK(cudaMemset(a, -1, n * 4));
    CHECK(cudaMemset(a, 0, 4));
    CHECK(cudaMemset(b, 0, n * 4));
    for (int depth = 0, again = 1; again; depth++) {
        CHECK(cudaMemset(b + 512, 0, 4));
        search<<<16, 64>>>(a, (char*)b, n, depth, b + 512);
        CHECK(cudaMemcpy(&again, b + 512, 4, cudaMemcpyDeviceToHost));
    }
    for (int i = 0; i < n; i++) host[i] = i * 7919 % 1000 + 1;
    for (int i = 0; i < 32; i++) host[i * 33] = 0;
    CHECK(cudaMemcpy(a, host, n * 4, cudaMemcpyHostToDevice));
    for (int k = 0; k < 32; k++) floyd<<<32, 32>>>(a, 32, k);
    maximum<<<4, 256>>>(a);
    for (int i = 0; i < n; i++) host[i] = i;
    CHECK(cudaMemcpy(a, host, n * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemset(b, 0, n * 4));
    find<<<2, 64>>>(a, n, 77, b);
    unite<<<4, 256>>>(a, n);
    hand_over<<<1, 64>>>(a);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    return 0;
}
