/* Stands in for libnvinfer, libnvinfer_plugin and libnvonnxparser: all that the vendor's Python
 * bindings link, so that they import where TensorRT is not to be had. Nothing can be built. */
#include <stddef.h>
#include <stdint.h>

void *createInferBuilder_INTERNAL(void *logger, int32_t version) { return NULL; }
void *createInferRuntime_INTERNAL(void *logger, int32_t version) { return NULL; }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t version) { return NULL; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int32_t version) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t version)
{
    return NULL;
}
void *getBuilderPluginRegistry(int32_t capability) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
int32_t getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *space) { return 1; }
