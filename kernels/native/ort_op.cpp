// ONNX Runtime's operators of the domain mamba_vision, version 2, for the CPU.
//
// What a name takes never changes: ONNX Runtime hands a node to the operator of its name also where the file's version is
// above the operator's. An operator with other inputs gets another name, which older libraries leave to the function in
// the file. SelectiveScan, whose channels came before length, is such a name of version 1, not to be used again.
//
//   y = TokenScan(u, delta, A, B, C, D?, z?, delta_bias?; delta_softplus)
//
// u, delta, z, y (batch, length, channels); A (channels, state); D, delta_bias (channels); B and C each
// (batch, length, groups, state), (batch, length, state) or constant (channels, state). All float32.
//
//   y = CausalConv(x, weight, bias)            silu of the convolution of each channel with what came before
//
// x, y (batch, length, channels); weight (channels, width); bias (channels).
//
//   y = OrderedScan(x, order, dt, dt_weight, A, B, C, D, dt_bias)
//
// selective scans of the same tokens along several orders, each of which comes to every token once, added:
// x, y (batch, tokens, channels); order (1 or batch, orders, tokens), int64; dt (batch, tokens, orders, rank);
// dt_weight (orders, channels, rank); A (orders, channels, state); B, C (batch, tokens, orders, state);
// D, dt_bias (orders, channels). The step of token i along order k is softplus(dt_ik dt_weight_k + dt_bias_k).
//
//   y = GroupNorm(x, weight, bias; groups, epsilon)
//
// x, y (batch, channels, *sides) of four axes or more, as the function behind a model has it; weight, bias (channels).
//
//   y = LayerNorm(x, weight, bias; epsilon)
//   y = BiasGelu(x, bias)                      gelu(x + bias)
//
// x, y (..., channels); weight, bias (channels).

#include "ort_common.hpp"
#include "ort_conv.hpp"
#include "ort_norm.hpp"
#include "ort_rows.hpp"

#include <mutex>

namespace mamba_vision {
namespace {

class TokenScan {
public:
    static constexpr const char* NAME = "TokenScan";
    static constexpr size_t INPUTS = 8, REQUIRED = 5;
    static constexpr bool IN_PLACE = false;
    static ONNXTensorElementDataType type_of(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

    TokenScan(const OrtApi* api, const OrtKernelInfo* info) : api_(api) {
        int64_t value = 0;
        if (OrtStatus* status = api->KernelInfoGetAttribute_int64(info, "delta_softplus", &value))
            api->ReleaseStatus(status);  // not given: off
        delta_softplus_ = value != 0;
    }

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[INPUTS];
        if (OrtStatus* status = read_inputs(api_, context, INPUTS, in)) return status;

        const Shape& shape = in[0].shape;
        if (shape.size() != 3) return refuse(in, 0, "(batch, length, channels)");
        const int64_t batch = shape[0], length = shape[1], channels = shape[2];
        if (in[1].shape != shape) return refuse(in, 1, "the shape of u");
        if (in[2].shape.size() != 2 || in[2].shape[0] != channels) return refuse(in, 2, "(channels, state)");
        const int64_t state = in[2].shape[1];
        for (size_t i : {5, 7})
            if (in[i].data && in[i].shape != Shape{channels}) return refuse(in, i, "(channels)");
        if (in[6].data && in[6].shape != shape) return refuse(in, 6, "the shape of u");

        Scan scan{};
        scan.batch = batch, scan.channels = channels, scan.length = length, scan.state = state, scan.groups = 1;
        scan.delta_softplus = delta_softplus_;
        const auto sequence = [&](void* data) { return Sequence{data, length * channels, 1, channels}; };
        const void** constant[] = {&scan.constant_B, &scan.constant_C};
        Matrix* variable[] = {&scan.B, &scan.C};
        int64_t groups[2] = {0, 0};
        for (size_t i : {0, 1}) {
            const Shape& given = in[3 + i].shape;
            if (given == Shape{channels, state}) {
                *constant[i] = in[3 + i].data;
                continue;
            }
            groups[i] = given.size() == 4 ? given[2] : 1;
            const Shape expected = given.size() == 4 ? Shape{batch, length, groups[i], state} : Shape{batch, length, state};
            if (given != expected || groups[i] < 1 || channels % groups[i])
                return refuse(in, 3 + i, "(batch, length, groups, state), (batch, length, state) or the shape of A");
            *variable[i] = {in[3 + i].data, 0, length * groups[i] * state, state, 1, groups[i] * state};
        }
        if (groups[0] && groups[1] && groups[0] != groups[1]) return refuse(in, 4, "as many groups as B");
        if (groups[0] || groups[1]) scan.groups = groups[0] ? groups[0] : groups[1];
        scan.u = sequence(in[0].data), scan.delta = sequence(in[1].data);
        scan.A = in[2].data, scan.D = in[5].data, scan.delta_bias = in[7].data;
        if (in[6].data) scan.z = sequence(in[6].data);

        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, shape, &data)) return status;
        scan.out = sequence(data);
        scan.parts = parts_for_session(batch, scan.groups, channels);
        return run_tasks(api_, context, scan, NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    OrtStatus* refuse(const Input* in, size_t index, const char* expected) const {
        static constexpr const char* NAMES[] = {"u", "delta", "A", "B", "C", "D", "z", "delta_bias"};
        const std::string message = std::string(NAME) + ": " + NAMES[index] + " has shape " + text(in[index].shape) +
                                    ", expected " + expected + "; u has shape " + text(in[0].shape) + ", A " +
                                    text(in[2].shape);
        return api_->CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
    }

    const OrtApi* api_;
    bool delta_softplus_;
};

class OrderedScanKernel {
public:
    static constexpr const char* NAME = "OrderedScan";
    static constexpr size_t INPUTS = 9, REQUIRED = 9;
    static constexpr bool IN_PLACE = false;
    static ONNXTensorElementDataType type_of(size_t index) {
        return index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }

    OrderedScanKernel(const OrtApi* api, const OrtKernelInfo*) : api_(api) {}

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[INPUTS];
        if (OrtStatus* status = read_inputs(api_, context, INPUTS, in)) return status;
        const Shape &x = in[0].shape, &order = in[1].shape, &A = in[4].shape;
        if (x.size() != 3) return refuse(in, 0, "(batch, tokens, channels)");
        if (order.size() != 3 || (order[0] != 1 && order[0] != x[0]) || order[2] != x[1])
            return refuse(in, 1, "(1 or batch, orders, tokens)");
        if (A.size() != 3 || A[0] != order[1] || A[1] != x[2]) return refuse(in, 4, "(orders, channels, state)");
        if (in[3].shape.size() != 3) return refuse(in, 3, "(orders, channels, rank)");

        OrderedScan scan{};
        scan.batch = x[0], scan.tokens = x[1], scan.channels = x[2];
        scan.orders = order[1], scan.state = A[2], scan.rank = in[3].shape[2];
        scan.own_orders = order[0] != 1;
        const Shape expected[INPUTS] = {x, order, {x[0], x[1], order[1], scan.rank}, {order[1], x[2], scan.rank}, A,
                                        {x[0], x[1], order[1], A[2]}, {x[0], x[1], order[1], A[2]},
                                        {order[1], x[2]}, {order[1], x[2]}};
        for (size_t i = 0; i < INPUTS; ++i)
            if (in[i].shape != expected[i]) return refuse(in, i, text(expected[i]));
        scan.order = static_cast<const int64_t*>(in[1].data);
        for (int64_t i = 0; i < order[0] * order[1] * order[2]; ++i)
            if (scan.order[i] < 0 || scan.order[i] >= x[1])
                return api_->CreateStatus(ORT_INVALID_ARGUMENT, "OrderedScan: order has a number that is no token's");
        const auto floats = [&](size_t index) { return static_cast<const float*>(in[index].data); };
        scan.x = floats(0), scan.dt = floats(2), scan.dt_weight = floats(3), scan.A = floats(4);
        scan.B = floats(5), scan.C = floats(6), scan.D = floats(7), scan.dt_bias = floats(8);
        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, x, &data)) return status;
        scan.out = static_cast<float*>(data);
        scan.parts = parts_for_session(scan.batch, 1, scan.channels);
        return run_tasks(api_, context, scan, NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    OrtStatus* refuse(const Input* in, size_t index, const std::string& expected) const {
        static constexpr const char* NAMES[] = {"x", "order", "dt", "dt_weight", "A", "B", "C", "D", "dt_bias"};
        return mamba_vision::refuse(api_, NAME, NAMES, in, index, expected);
    }

    const OrtApi* api_;
};

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

}  // namespace
}  // namespace mamba_vision

extern "C" EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(mamba_vision::API_VERSION);
    if (!api) return nullptr;  // older than 1.18: nothing to tell it with; its sessions will name the operator they miss
    static const mamba_vision::Operator<mamba_vision::TokenScan> scan(api);
    static const mamba_vision::Operator<mamba_vision::OrderedScanKernel> ordered(api);
    static const mamba_vision::Operator<mamba_vision::CausalConvKernel> conv(api);
    static const mamba_vision::Operator<mamba_vision::GroupNormKernel> norm(api);
    static const mamba_vision::Operator<mamba_vision::LayerNormKernel> layer_norm(api);
    static const mamba_vision::Operator<mamba_vision::BiasGeluKernel> gelu(api);
    static std::mutex mutex;
    static OrtCustomOpDomain* domain = nullptr;  // lives as long as the library: sessions go on using it
    const std::lock_guard<std::mutex> lock(mutex);
    if (!domain) {
        OrtCustomOpDomain* made = nullptr;
        if (OrtStatus* status = api->CreateCustomOpDomain("mamba_vision", &made)) return status;
        const OrtCustomOp* const operators[] = {&scan, &ordered, &conv, &norm, &layer_norm, &gelu};
        for (const OrtCustomOp* one : operators)
            if (OrtStatus* status = api->CustomOpDomain_Add(made, one)) {
                api->ReleaseCustomOpDomain(made);
                return status;
            }
        domain = made;
    }
    return api->AddCustomOpDomain(options, domain);
}
