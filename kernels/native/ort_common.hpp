// What ONNX Runtime's operators share: inputs with their shapes, work on the session's threads, the table of functions
// that makes a class an operator. It needs ONNX Runtime's C header alone.

#pragma once

#include "selective_scan.hpp"

#include <onnxruntime_c_api.h>

#include <atomic>
#include <exception>
#include <initializer_list>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace mamba_vision {

// The oldest version that has all that is used here, so that older runtimes than the header's load the library too
constexpr uint32_t API_VERSION = 18;

constexpr int DOMAIN_VERSION = 2;  // of mamba_vision, whose operators these are

using Shape = std::vector<int64_t>;

inline std::string text(const Shape& shape) {
    std::string made = "(";
    for (size_t i = 0; i < shape.size(); ++i) made += (i ? ", " : "") + std::to_string(shape[i]);
    return made + ")";
}

struct Input {
    void* data = nullptr;  // null if absent
    Shape shape;
};

inline OrtStatus* read_input(const OrtApi* api, OrtKernelContext* context, size_t index, Input* input) {
    const OrtValue* value = nullptr;
    if (OrtStatus* status = api->KernelContext_GetInput(context, index, &value)) return status;
    if (!value) return nullptr;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    if (OrtStatus* status = api->GetTensorTypeAndShape(value, &info)) return status;
    size_t rank = 0;
    OrtStatus* status = api->GetDimensionsCount(info, &rank);
    if (!status) {
        input->shape.resize(rank);
        status = api->GetDimensions(info, input->shape.data(), rank);
    }
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status) return status;
    return api->GetTensorMutableData(const_cast<OrtValue*>(value), &input->data);
}

// All inputs of an operator; `in` has room for `most`.
inline OrtStatus* read_inputs(const OrtApi* api, OrtKernelContext* context, size_t most, Input* in) {
    size_t count = 0;
    if (OrtStatus* status = api->KernelContext_GetInputCount(context, &count)) return status;
    for (size_t i = 0; i < count && i < most; ++i)
        if (OrtStatus* status = read_input(api, context, i, in + i)) return status;
    return nullptr;
}

inline OrtStatus* make_output(const OrtApi* api, OrtKernelContext* context, const Shape& shape, void** data) {
    OrtValue* out = nullptr;
    if (OrtStatus* status = api->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &out)) return status;
    return api->GetTensorMutableData(out, data);
}

// The size of the session's pool is not told; a part too many costs little.
inline int64_t parts_for_session(int64_t batch, int64_t groups, int64_t channels) {
    return parts_for(batch, groups, channels, std::thread::hardware_concurrency(), false);
}

inline void task_of(const Scan& scan, int64_t task) { forward_task(scan, task); }
inline void task_of(const OrderedScan& scan, int64_t task) { ordered_task(scan, task); }
inline void task_of(const GroupNorm& norm, int64_t task) { norm_task(norm, task); }
inline void task_of(const Rows& rows, int64_t task) { rows_task(rows, task); }
inline void task_of(const CausalConv& conv, int64_t task) { conv_task(conv, task); }

template <class AnyScan>
struct Work {
    const AnyScan* scan;
    std::atomic<bool> failed{false};

    static void task(void* work, size_t index) {
        Work* self = static_cast<Work*>(work);
        try {
            task_of(*self->scan, static_cast<int64_t>(index));
        } catch (...) {  // must not pass through the runtime's threads
            self->failed = true;
        }
    }
};

// All tasks of a scan, on the session's own threads
template <class AnyScan>
OrtStatus* run_tasks(const OrtApi* api, OrtKernelContext* context, const AnyScan& scan, const char* name) {
    const int64_t count = tasks(scan);
    Work<AnyScan> work{&scan};
    if (count == 1) {
        Work<AnyScan>::task(&work, 0);
    } else if (count > 1) {
        if (OrtStatus* status = api->KernelContext_ParallelFor(context, Work<AnyScan>::task, count, 0, &work)) return status;
    }
    return work.failed ? api->CreateStatus(ORT_FAIL, (std::string(name) + ": no memory for its states").c_str()) : nullptr;
}

// An exception must not leave a C function.
template <class Body>
OrtStatus* guarded(const OrtApi* api, Body body) {
    try {
        return body();
    } catch (const std::exception& error) {
        return api->CreateStatus(ORT_FAIL, error.what());
    }
}

// What is wrong with an input; `names` are the inputs', the first of which gives the others their shapes.
inline OrtStatus* refuse(const OrtApi* api, const char* name, const char* const* names, const Input* in, size_t index,
                         const std::string& expected) {
    const std::string message = std::string(name) + ": " + names[index] + " has shape " + text(in[index].shape) +
                                ", expected " + expected + "; " + names[0] + " has shape " + text(in[0].shape);
    return api->CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
}

// Raise if an attribute that a node must have was not found.
inline void expect(const OrtApi* api, const char* name, const char* attribute, OrtStatus* status) {
    if (!status) return;
    api->ReleaseStatus(status);
    throw std::invalid_argument(std::string(name) + ": the node has no attribute " + attribute);
}

// The output is of the first input's type and shape. Kernel has NAME, INPUTS, REQUIRED, IN_PLACE (whether the output may
// lie where the first input does), type_of(input), a constructor from (api, info), api() and compute(context).
template <class Kernel>
struct Operator : OrtCustomOp {
    const OrtApi* api;
    const char* provider;

    explicit Operator(const OrtApi* table, const char* whose = "CPUExecutionProvider")
        : OrtCustomOp{}, api(table), provider(whose) {
        version = API_VERSION;
        GetName = [](const OrtCustomOp*) { return Kernel::NAME; };
        GetExecutionProviderType = [](const OrtCustomOp* op) { return static_cast<const Operator*>(op)->provider; };
        GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::INPUTS; };
        GetInputType = [](const OrtCustomOp*, size_t index) { return Kernel::type_of(index); };
        GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
            return index < Kernel::REQUIRED ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
        };
        GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
        GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
        GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
        GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
        GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
        GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
        GetStartVersion = [](const OrtCustomOp*) { return DOMAIN_VERSION; };
        GetEndVersion = [](const OrtCustomOp*) { return DOMAIN_VERSION; };
        CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
            return guarded(api, [&]() -> OrtStatus* {
                *kernel = new Kernel(api, info);
                return nullptr;
            });
        };
        KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
            const Kernel* self = static_cast<Kernel*>(kernel);
            return guarded(self->api(), [&] { return self->compute(context); });
        };
        KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
        if constexpr (Kernel::IN_PLACE) {
            GetMayInplace = [](int** input, int** output) -> size_t {
                static int first = 0;
                *input = *output = &first;
                return 1;
            };
            ReleaseMayInplace = [](int*, int*) {};
        }
        InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) -> OrtStatus* {
            const OrtApi* api = static_cast<const Operator*>(op)->api;
            OrtTensorTypeAndShapeInfo* first = nullptr;  // belongs to the context
            if (OrtStatus* status = api->ShapeInferContext_GetInputTypeShape(context, 0, &first)) return status;
            size_t axes = 0;
            if (OrtStatus* status = api->GetDimensionsCount(first, &axes)) return status;
            // Sizes that are open come as -1, which the optimizer would take for a number and compute with.
            int64_t sizes[8];
            if (axes == 0 || axes > 8) return nullptr;
            if (OrtStatus* status = api->GetDimensions(first, sizes, axes)) return status;
            for (size_t i = 0; i < axes; ++i)
                if (sizes[i] < 0) return nullptr;
            return api->ShapeInferContext_SetOutputTypeShape(context, 0, first);
        };
    }
};

// What a library adds to the options of sessions; it lives as long as the library, as sessions go on using it.
class Domain {
public:
    OrtStatus* add_to(OrtSessionOptions* options, const OrtApi* api, std::initializer_list<const OrtCustomOp*> operators) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!made_) {
            OrtCustomOpDomain* made = nullptr;
            if (OrtStatus* status = api->CreateCustomOpDomain("mamba_vision", &made)) return status;
            for (const OrtCustomOp* one : operators)
                if (OrtStatus* status = api->CustomOpDomain_Add(made, one)) {
                    api->ReleaseCustomOpDomain(made);
                    return status;
                }
            made_ = made;
        }
        return api->AddCustomOpDomain(options, made_);
    }

private:
    std::mutex mutex_;
    OrtCustomOpDomain* made_ = nullptr;
};

}  // namespace mamba_vision

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
