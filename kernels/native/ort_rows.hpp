// mamba_vision::LayerNorm and BiasGelu for ONNX Runtime; their inputs are told in ort_op.cpp.

#pragma once

#include "ort_common.hpp"

#include <algorithm>

namespace mamba_vision {

// Kind has NAME, NAMES and INPUTS, the last of which is the bias.
template <class Kind>
class RowsKernel : public Kind {
public:
    static constexpr size_t REQUIRED = Kind::INPUTS;
    static constexpr bool IN_PLACE = true;
    static ONNXTensorElementDataType type_of(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

    RowsKernel(const OrtApi* api, const OrtKernelInfo* info) : api_(api) {
        if (Kind::IS_NORM) expect(api, Kind::NAME, "epsilon", api->KernelInfoGetAttribute_float(info, "epsilon", &epsilon_));
    }

    OrtStatus* compute(OrtKernelContext* context) const {
        Input in[Kind::INPUTS];
        if (OrtStatus* status = read_inputs(api_, context, Kind::INPUTS, in)) return status;
        const Shape& x = in[0].shape;
        if (x.empty()) return refuse(api_, Kind::NAME, Kind::NAMES, in, 0, "(..., channels)");
        for (size_t i = 1; i < Kind::INPUTS; ++i)
            if (in[i].shape != Shape{x.back()}) return refuse(api_, Kind::NAME, Kind::NAMES, in, i, "(channels)");
        Rows rows{};
        rows.rows = 1, rows.channels = x.back(), rows.is_norm = Kind::IS_NORM, rows.epsilon = epsilon_;
        for (size_t i = 0; i + 1 < x.size(); ++i) rows.rows *= x[i];
        constexpr int64_t worth = 1 << 14;  // values: some microseconds
        const int64_t threads = std::thread::hardware_concurrency();
        rows.parts = std::max<int64_t>(1, std::min({threads, rows.rows, rows.rows * rows.channels / worth}));
        rows.x = static_cast<const float*>(in[0].data), rows.weight = static_cast<const float*>(in[1].data);
        rows.bias = static_cast<const float*>(in[Kind::INPUTS - 1].data);
        void* data = nullptr;
        if (OrtStatus* status = make_output(api_, context, x, &data)) return status;
        rows.out = static_cast<float*>(data);
        return run_tasks(api_, context, rows, Kind::NAME);
    }

    const OrtApi* api() const { return api_; }

private:
    const OrtApi* api_;
    float epsilon_ = 0;
};

struct LayerNormKind {
    static constexpr const char* NAME = "LayerNorm";
    static constexpr const char* NAMES[] = {"x", "weight", "bias"};
    static constexpr size_t INPUTS = 3;
    static constexpr bool IS_NORM = true;
};

struct BiasGeluKind {
    static constexpr const char* NAME = "BiasGelu";
    static constexpr const char* NAMES[] = {"x", "bias"};
    static constexpr size_t INPUTS = 2;
    static constexpr bool IS_NORM = false;
};

using LayerNormKernel = RowsKernel<LayerNormKind>;
using BiasGeluKernel = RowsKernel<BiasGeluKind>;

}  // namespace mamba_vision
