// ONNX Runtime's operator mamba_vision::SelectiveScan, version 1, for the CPU:
//
//   y = SelectiveScan(u, delta, A, B, C, D?, z?, delta_bias?; delta_softplus)
//
// u, delta, z, y (batch, channels, length); A (channels, state); D, delta_bias (channels); B and C each
// (batch, groups, state, length), (batch, state, length) or constant (channels, state). All float32.
// It needs ONNX Runtime's C header alone: the functions come with the call of RegisterCustomOps.

#include "selective_scan.hpp"

#include <onnxruntime_c_api.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

// The oldest version that has all that is used here, so that older runtimes than the header's load the library too
constexpr uint32_t API_VERSION = 18;
constexpr size_t INPUTS = 8, REQUIRED = 5;
constexpr const char* NAMES[INPUTS] = {"u", "delta", "A", "B", "C", "D", "z", "delta_bias"};

using Shape = std::vector<int64_t>;

std::string text(const Shape& shape) {
    std::string made = "(";
    for (size_t i = 0; i < shape.size(); ++i) made += (i ? ", " : "") + std::to_string(shape[i]);
    return made + ")";
}

struct Input {
    void* data = nullptr;  // null if absent
    Shape shape;
};

class Kernel {
public:
    Kernel(const OrtApi* api, const OrtKernelInfo* info) : api_(api) {
        int64_t value = 0;
        if (OrtStatus* status = api->KernelInfoGetAttribute_int64(info, "delta_softplus", &value))
            api->ReleaseStatus(status);  // not given: off
        delta_softplus_ = value != 0;
    }

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[INPUTS];
        size_t count = 0;
        if (OrtStatus* status = api_->KernelContext_GetInputCount(context, &count)) return status;
        for (size_t i = 0; i < count && i < INPUTS; ++i)
            if (OrtStatus* status = read(context, i, &in[i])) return status;

        const Shape& shape = in[0].shape;
        if (shape.size() != 3) return refuse(in, 0, "(batch, channels, length)");
        const int64_t batch = shape[0], channels = shape[1], length = shape[2];
        if (in[1].shape != shape) return refuse(in, 1, "the shape of u");
        if (in[2].shape.size() != 2 || in[2].shape[0] != channels) return refuse(in, 2, "(channels, state)");
        const int64_t state = in[2].shape[1];
        for (size_t i : {5, 7})
            if (in[i].data && in[i].shape != Shape{channels}) return refuse(in, i, "(channels)");
        if (in[6].data && in[6].shape != shape) return refuse(in, 6, "the shape of u");

        mamba_vision::Scan scan{};
        scan.batch = batch, scan.channels = channels, scan.length = length, scan.state = state, scan.groups = 1;
        scan.delta_softplus = delta_softplus_;
        const auto sequence = [&](void* data, int64_t rows) {
            return mamba_vision::Sequence{data, rows * length, length, 1};
        };
        const void** constant[] = {&scan.constant_B, &scan.constant_C};
        mamba_vision::Sequence* variable[] = {&scan.B, &scan.C};
        int64_t groups[2] = {0, 0};
        for (size_t i : {0, 1}) {
            const Shape& given = in[3 + i].shape;
            if (given == Shape{channels, state}) {
                *constant[i] = in[3 + i].data;
                continue;
            }
            groups[i] = given.size() == 4 ? given[1] : 1;
            const Shape expected = given.size() == 4 ? Shape{batch, groups[i], state, length} : Shape{batch, state, length};
            if (given != expected || groups[i] < 1 || channels % groups[i])
                return refuse(in, 3 + i, "(batch, groups, state, length), (batch, state, length) or the shape of A");
            *variable[i] = sequence(in[3 + i].data, groups[i] * state);
        }
        if (groups[0] && groups[1] && groups[0] != groups[1]) return refuse(in, 4, "as many groups as B");
        if (groups[0] || groups[1]) scan.groups = groups[0] ? groups[0] : groups[1];
        scan.u = sequence(in[0].data, channels), scan.delta = sequence(in[1].data, channels);
        scan.A = in[2].data, scan.D = in[5].data, scan.delta_bias = in[7].data;
        if (in[6].data) scan.z = sequence(in[6].data, channels);

        OrtValue* out = nullptr;
        void* data = nullptr;
        if (OrtStatus* status = api_->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &out)) return status;
        if (OrtStatus* status = api_->GetTensorMutableData(out, &data)) return status;
        scan.out = sequence(data, channels);
        // the size of the session's pool is not told; a part too many costs little
        scan.parts = mamba_vision::parts_for(batch, scan.groups, channels, std::thread::hardware_concurrency(), false);
        return run(context, scan);
    }

    const OrtApi* api() const { return api_; }

private:
    struct Work {
        const mamba_vision::Scan* scan;
        std::atomic<bool> failed{false};

        static void task(void* work, size_t index) {
            Work* self = static_cast<Work*>(work);
            try {
                mamba_vision::forward_task(*self->scan, static_cast<int64_t>(index));
            } catch (...) {  // must not pass through the runtime's threads
                self->failed = true;
            }
        }
    };

    OrtStatus* run(OrtKernelContext* context, const mamba_vision::Scan& scan) const {
        const int64_t count = mamba_vision::tasks(scan);
        Work work{&scan};
        if (count == 1) {
            Work::task(&work, 0);
        } else if (count > 1) {
            // the session's own threads
            if (OrtStatus* status = api_->KernelContext_ParallelFor(context, Work::task, count, 0, &work)) return status;
        }
        return work.failed ? api_->CreateStatus(ORT_FAIL, "SelectiveScan: no memory for its states") : nullptr;
    }

    OrtStatus* read(OrtKernelContext* context, size_t index, Input* input) const {
        const OrtValue* value = nullptr;
        if (OrtStatus* status = api_->KernelContext_GetInput(context, index, &value)) return status;
        if (!value) return nullptr;
        OrtTensorTypeAndShapeInfo* info = nullptr;
        if (OrtStatus* status = api_->GetTensorTypeAndShape(value, &info)) return status;
        size_t rank = 0;
        OrtStatus* status = api_->GetDimensionsCount(info, &rank);
        if (!status) {
            input->shape.resize(rank);
            status = api_->GetDimensions(info, input->shape.data(), rank);
        }
        api_->ReleaseTensorTypeAndShapeInfo(info);
        if (status) return status;
        return api_->GetTensorMutableData(const_cast<OrtValue*>(value), &input->data);
    }

    OrtStatus* refuse(const Input* in, size_t index, const char* expected) const {
        const std::string message = std::string("SelectiveScan: ") + NAMES[index] + " has shape " + text(in[index].shape) +
                                    ", expected " + expected + "; u has shape " + text(in[0].shape) + ", A " +
                                    text(in[2].shape);
        return api_->CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
    }

    const OrtApi* api_;
    bool delta_softplus_;
};

// An exception must not leave a C function.
template <class Body>
OrtStatus* guarded(const OrtApi* api, Body body) {
    try {
        return body();
    } catch (const std::exception& error) {
        return api->CreateStatus(ORT_FAIL, error.what());
    }
}

struct Operator : OrtCustomOp {
    const OrtApi* api;

    explicit Operator(const OrtApi* table) : OrtCustomOp{}, api(table) {
        version = API_VERSION;
        GetName = [](const OrtCustomOp*) { return "SelectiveScan"; };
        GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return "CPUExecutionProvider"; };
        GetInputTypeCount = [](const OrtCustomOp*) { return INPUTS; };
        GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
        GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
            return index < REQUIRED ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
        };
        GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
        GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
        GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
        GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
        GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
        GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
        GetStartVersion = [](const OrtCustomOp*) { return 1; };
        GetEndVersion = [](const OrtCustomOp*) { return 1; };
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
        InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) -> OrtStatus* {
            const OrtApi* api = static_cast<const Operator*>(op)->api;
            OrtTensorTypeAndShapeInfo* u = nullptr;  // belongs to the context
            if (OrtStatus* status = api->ShapeInferContext_GetInputTypeShape(context, 0, &u)) return status;
            // Sizes that are open come as -1, which the optimizer would take for a number and compute with.
            int64_t sizes[3];
            size_t axes = 0;
            if (OrtStatus* status = api->GetDimensionsCount(u, &axes)) return status;
            if (axes != 3) return nullptr;
            if (OrtStatus* status = api->GetDimensions(u, sizes, axes)) return status;
            for (const int64_t size : sizes)
                if (size < 0) return nullptr;
            return api->ShapeInferContext_SetOutputTypeShape(context, 0, u);
        };
    }
};

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

}  // namespace

extern "C" EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(API_VERSION);
    if (!api) return nullptr;  // older than 1.18: nothing to tell it with; its sessions will name the operator they miss
    static const Operator scan(api);
    static std::mutex mutex;
    static OrtCustomOpDomain* domain = nullptr;  // lives as long as the library: sessions go on using it
    const std::lock_guard<std::mutex> lock(mutex);
    if (!domain) {
        OrtCustomOpDomain* made = nullptr;
        if (OrtStatus* status = api->CreateCustomOpDomain("mamba_vision", &made)) return status;
        if (OrtStatus* status = api->CustomOpDomain_Add(made, &scan)) {
            api->ReleaseCustomOpDomain(made);
            return status;
        }
        domain = made;
    }
    return api->AddCustomOpDomain(options, domain);
}
