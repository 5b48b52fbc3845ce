// mamba_vision::TokenScan and OrderedScan for ONNX Runtime, on any device; their inputs are told in ort_op.cpp.

#pragma once

#include "ort_common.hpp"

namespace mamba_vision {

// Device has run(api, context, scan, name) for both kinds of scan.
template <class Device>
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
        return Device::run(api_, context, scan, NAME);
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

template <class Device>
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
        const auto floats = [&](size_t index) { return static_cast<const float*>(in[index].data); };
        scan.x = floats(0), scan.dt = floats(2), scan.dt_weight = floats(3), scan.A = floats(4);
        scan.B = floats(5), scan.C = floats(6), scan.D = floats(7), scan.dt_bias = floats(8);
        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, x, &data)) return status;
        scan.out = static_cast<float*>(data);
        return Device::run(api_, context, scan, NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    OrtStatus* refuse(const Input* in, size_t index, const std::string& expected) const {
        static constexpr const char* NAMES[] = {"x", "order", "dt", "dt_weight", "A", "B", "C", "D", "dt_bias"};
        return mamba_vision::refuse(api_, NAME, NAMES, in, index, expected);
    }

    const OrtApi* api_;
};

}  // namespace mamba_vision
