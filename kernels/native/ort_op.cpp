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
#include "ort_scan.hpp"

namespace mamba_vision {
namespace {

// Scans on the session's own threads
struct Cpu {
    static OrtStatus* run(const OrtApi* api, OrtKernelContext* context, Scan& scan, const char* name) {
        scan.parts = parts_for_session(scan.batch, scan.groups, scan.channels);
        return run_tasks(api, context, scan, name);
    }

    static OrtStatus* run(const OrtApi* api, OrtKernelContext* context, OrderedScan& scan, const char* name) {
        const int64_t count = (scan.own_orders ? scan.batch : 1) * scan.orders * scan.tokens;
        for (int64_t i = 0; i < count; ++i)
            if (scan.order[i] < 0 || scan.order[i] >= scan.tokens)
                return api->CreateStatus(ORT_INVALID_ARGUMENT, "OrderedScan: order has a number that is no token's");
        scan.parts = parts_for_session(scan.batch, 1, scan.channels);
        return run_tasks(api, context, scan, name);
    }
};

}  // namespace
}  // namespace mamba_vision

extern "C" EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(mamba_vision::API_VERSION);
    if (!api) return nullptr;  // older than 1.18: nothing to tell it with; its sessions will name the operator they miss
    static const mamba_vision::Operator<mamba_vision::TokenScan<mamba_vision::Cpu>> scan(api);
    static const mamba_vision::Operator<mamba_vision::OrderedScanKernel<mamba_vision::Cpu>> ordered(api);
    static const mamba_vision::Operator<mamba_vision::CausalConvKernel> conv(api);
    static const mamba_vision::Operator<mamba_vision::GroupNormKernel> norm(api);
    static const mamba_vision::Operator<mamba_vision::LayerNormKernel> layer_norm(api);
    static const mamba_vision::Operator<mamba_vision::BiasGeluKernel> gelu(api);
    static mamba_vision::Domain domain;
    return domain.add_to(options, api, {&scan, &ordered, &conv, &norm, &layer_norm, &gelu});
}
