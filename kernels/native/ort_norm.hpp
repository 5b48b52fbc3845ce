// mamba_vision::GroupNorm for ONNX Runtime; its inputs are told in ort_op.cpp.

#pragma once

#include "ort_common.hpp"

#include <algorithm>

namespace mamba_vision {

class GroupNormKernel {
public:
    static constexpr const char* NAME = "GroupNorm";
    static constexpr size_t INPUTS = 3, REQUIRED = 3;
    static constexpr bool IN_PLACE = true;
    static ONNXTensorElementDataType type_of(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

    GroupNormKernel(const OrtApi* api, const OrtKernelInfo* info) : api_(api) {
        expect(api, NAME, "groups", api->KernelInfoGetAttribute_int64(info, "groups", &groups_));
        expect(api, NAME, "epsilon", api->KernelInfoGetAttribute_float(info, "epsilon", &epsilon_));
    }

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[INPUTS];
        if (OrtStatus* status = read_inputs(api_, context, INPUTS, in)) return status;
        const Shape& x = in[0].shape;
        if (x.size() < 4) return refuse(in, 0, "(batch, channels, *sides) of four axes or more");
        if (groups_ < 1 || x[1] % groups_) return refuse(in, 0, "channels that " + std::to_string(groups_) + " groups divide");
        for (size_t i : {1, 2})
            if (in[i].shape != Shape{x[1]}) return refuse(in, i, "(channels)");

        GroupNorm norm{};
        norm.batch = x[0], norm.channels = x[1], norm.size = 1, norm.groups = groups_, norm.epsilon = epsilon_;
        for (size_t i = 2; i < x.size(); ++i) norm.size *= x[i];
        norm.parts = parts_for_session(norm);
        std::vector<Moments> moments(static_cast<size_t>(tasks(norm)));
        norm.moments = moments.data();
        norm.x = static_cast<const float*>(in[0].data);
        norm.weight = static_cast<const float*>(in[1].data), norm.bias = static_cast<const float*>(in[2].data);
        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, x, &data)) return status;
        norm.out = static_cast<float*>(data);
        if (norm.parts == 1) return run_tasks(api_, context, norm, NAME);
        norm.step = NormStep::moments;
        if (OrtStatus* status = run_tasks(api_, context, norm, NAME)) return status;
        norm.step = NormStep::scale;
        return run_tasks(api_, context, norm, NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    // Work for every thread, in parts that are worth one
    static int64_t parts_for_session(const GroupNorm& norm) {
        const int64_t all = norm.batch * norm.groups, values = norm.channels / norm.groups * norm.size, worth = 1 << 14;
        const int64_t threads = std::thread::hardware_concurrency();
        const int64_t wanted = all ? (threads + all - 1) / all : 1, most = values / worth;
        return std::max<int64_t>(1, std::min(wanted, most));
    }

    OrtStatus* refuse(const Input* in, size_t index, const std::string& expected) const {
        static constexpr const char* NAMES[] = {"x", "weight", "bias"};
        return mamba_vision::refuse(api_, NAME, NAMES, in, index, expected);
    }

    const OrtApi* api_;
    int64_t groups_ = 0;
    float epsilon_ = 0;
};

}  // namespace mamba_vision
