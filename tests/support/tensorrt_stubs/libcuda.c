/* Stands in for libcuda.so.1: one GPU whose memory is the host's. The environment changes what it
 * is: FAKE_CUDA_DEVICES (1), FAKE_CUDA_CAPABILITY (87 for 8.7), FAKE_CUDA_MEMORY (bytes). */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

static size_t used;

int cuInit(unsigned flags) { return setting("FAKE_CUDA_DEVICES", 1) < 0 ? 100 : 0; }
int cuGetErrorString(int status, const char **text)
{
    *text = status == 2 ? "out of memory" : status == 100 ? "no CUDA-capable device" : "failed";
    return 0;
}
int cuDeviceGetCount(int *count) { return *count = (int)setting("FAKE_CUDA_DEVICES", 1), 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    int capability = (int)setting("FAKE_CUDA_CAPABILITY", 87);
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return 0;
}
int cuDeviceGetName(char *name, int length, int device)
{
    strncpy(name, "Fake Orin", (size_t)length);
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &used, 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return context == &used ? 0 : 201; }
int cuMemAlloc_v2(uint64_t *address, size_t size)
{
    used += size;
    if (used > (size_t)setting("FAKE_CUDA_MEMORY", 1L << 30))
        return 2;
    *address = (uint64_t)(uintptr_t)malloc(size);
    return *address ? 0 : 2;
}
int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream)
{
    return memcpy((void *)(uintptr_t)to, from, size), 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream)
{
    return memcpy(to, (const void *)(uintptr_t)from, size), 0;
}
int cuStreamCreate(void **stream, unsigned flags) { return *stream = malloc(1), *stream ? 0 : 2; }
int cuStreamSynchronize(void *stream) { return stream ? 0 : 400; }
int cuStreamDestroy_v2(void *stream) { return free(stream), 0; }
