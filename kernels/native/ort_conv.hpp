// mamba_vision::CausalConv for ONNX Runtime; its inputs are told in ort_op.cpp.

#pragma once

#include "ort_common.hpp"

#include <algorithm>

namespace mamba_vision {

class CausalConvKernel {
public:
    static constexpr const char* NAME = "CausalConv";
    static constexpr size_t INPUTS = 3, REQUIRED = 3;
    static constexpr bool IN_PLACE = false;
    static ONNXTensorElementDataType type_of(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

    CausalConvKernel(const OrtApi* api, const OrtKernelInfo*) : api_(api) {}

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[INPUTS];
        if (OrtStatus* status = read_inputs(api_, context, INPUTS, in)) return status;
        const Shape &x = in[0].shape, &weight = in[1].shape;
        if (x.size() != 3) return refuse(in, 0, "(batch, length, channels)");
        if (weight.size() != 2 || weight[0] != x[2]) return refuse(in, 1, "(channels, width)");
        if (in[2].shape != Shape{x[2]}) return refuse(in, 2, "(channels)");
        CausalConv conv{};
        conv.batch = x[0], conv.length = x[1], conv.channels = x[2], conv.width = weight[1];
        constexpr int64_t worth = 1 << 14;  // values: some microseconds
        const int64_t threads = std::thread::hardware_concurrency(), all = std::max<int64_t>(conv.batch, 1);
        conv.parts = std::max<int64_t>(1, std::min((threads + all - 1) / all, x[1] * x[2] / worth));
        conv.x = static_cast<const float*>(in[0].data), conv.weight = static_cast<const float*>(in[1].data);
        conv.bias = static_cast<const float*>(in[2].data);
        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, x, &data)) return status;
        conv.out = static_cast<float*>(data);
        return run_tasks(api_, context, conv, NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    OrtStatus* refuse(const Input* in, size_t index, const char* expected) const {
        static constexpr const char* NAMES[] = {"x", "weight", "bias"};
        return mamba_vision::refuse(api_, NAME, NAMES, in, index, expected);
    }

    const OrtApi* api_;
};

}  // namespace mamba_vision
