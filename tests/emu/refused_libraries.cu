#include <nccl.h>                     // refused: nccl.h
#include <thrust/device_vector.h>     // refused: thrust/device_vector.h
#if 0
#include <cudnn.h>
#endif
__global__ void scale(float* p) {
    asm("tanh.approx.f32 %0, %0;" : "+f"(*p));      // refused: tanh.approx.f32
    asm volatile("cp.async.bulk.wait_group 0;");      // refused: cp.async.bulk.wait_group
    asm volatile("cp.async.wait_group %0;" ::);      // refused: no_operand_0
}
