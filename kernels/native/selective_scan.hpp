// The selective scan on CPUs: what the PyTorch backend and the ONNX Runtime operator call.
//
//   s_t = softplus(delta_t + delta_bias);  h_t = exp(s_t A) h_{t-1} + s_t B_t u_t
//   y_t = C_t h_t + D u_t;                 out_t = y_t silu(z_t)              (arXiv 2312.00752)
//
// Work is cut into tasks, which may run in any order and on any thread: (batch, group, part of the group's channels).
// A task goes over tiles of TILE steps; within a tile over blocks of as many channels as a vector register has lanes.

#pragma once

#include <cstdint>

namespace mamba_vision {

constexpr int64_t TILE = 32;  // also the distance of the states that forward keeps for backward

// A tensor (batch, channels, length) with strides in elements.
struct Sequence {
    void* data;  // null where an optional tensor is absent
    int64_t batch, channel, step;
};

// B, C or their gradient, (batch, groups, state, length) with strides in elements. Of gradients there is one for each
// part of a group's channels, to be added up: `part` is their distance.
struct Matrix {
    void* data;  // null where constant
    int64_t part, batch, group, state, step;
};

// Everything is float, or everything is double. Sizes and strides in elements; all but sequences are contiguous.
struct Scan {
    int64_t batch, channels, length, state, groups;
    int64_t parts;           // tasks that share a group, from `parts_for`
    int64_t is_double, delta_softplus;
    Sequence u, delta, z;    // z may be absent
    Matrix B, C;
    const void *A;           // (channels, state)
    const void *constant_B, *constant_C;  // (channels, state), or null
    const void *D, *delta_bias;           // (channels), or null
    const void *initial;     // (batch, channels, state), or null for zeros
    void *saved;             // (tiles, batch, state, channels): states before the tiles; may be null in forward
    // forward writes
    Sequence out;
    void *last;              // (batch, channels, state), or null
    // backward reads
    Sequence grad_out;
    const void *grad_last;   // (batch, channels, state), or null for zeros
    // backward writes; dz is present if z is
    Sequence du, ddelta, dz;
    Matrix dB, dC;           // sums over channels
    void *dA;                // (batch, channels, state): a sum over steps
    void *dconstant_B, *dconstant_C;  // as dA, where B and C are constant
    void *dD, *dbias;        // (batch, channels), or null
    void *dinitial;          // (batch, channels, state), or null
};

// Selective scans of the same tokens along several orders, added: the step of token i along order k is
// softplus(dt_ik dt_weight_k + dt_bias_k), and its B and C are those of i and k. All contiguous and float.
struct OrderedScan {
    int64_t batch, tokens, channels, orders, state, rank;
    int64_t own_orders;       // whether each element of the batch has its own orders
    int64_t parts;            // tasks that share an element of the batch, from `parts_for`
    const float* x;           // (batch, tokens, channels)
    const int64_t* order;     // (1 or batch, orders, tokens), token numbers
    const float* dt;          // (batch, tokens, orders, rank)
    const float* dt_weight;   // (orders, channels, rank)
    const float* A;           // (orders, channels, state)
    const float *B, *C;       // (batch, tokens, orders, state)
    const float *D, *dt_bias; // (orders, channels)
    float* out;               // (batch, tokens, channels)
};

// Into how many tasks to cut a group's channels, for so many threads.
int64_t parts_for(int64_t batch, int64_t groups, int64_t channels, int64_t threads, bool is_double);

inline int64_t tasks(const Scan& scan) { return scan.batch * scan.groups * scan.parts; }

// One task each; memory for its own use is taken from the heap.
void forward_task(const Scan& scan, int64_t task);
void backward_task(const Scan& scan, int64_t task);

inline int64_t tasks(const OrderedScan& scan) { return scan.batch * scan.parts; }
void ordered_task(const OrderedScan& scan, int64_t task);

// ---- group norm ------------------------------------------------------------------------------------------------------
struct Moments {
    double count, mean, squares;  // the last: sum of squares about the mean
};

// Where groups are cut into parts, all moments must be known before anything is scaled: two rounds of tasks.
enum class NormStep { both, moments, scale };

// y = (x - mean) / sqrt(variance + epsilon) weight + bias, mean and variance over each group of channels (arXiv
// 1803.08494). All contiguous and float.
struct GroupNorm {
    int64_t batch, channels, size;  // size: values a channel
    int64_t groups, parts;          // parts: tasks that share a group; 1 where step is both
    NormStep step;
    double epsilon;
    const float *x, *weight, *bias;  // (batch, channels, size), (channels), (channels)
    float* out;                      // like x, and may be x
    Moments* moments;                // (batch, groups, parts), written and read
};

inline int64_t tasks(const GroupNorm& norm) { return norm.batch * norm.groups * norm.parts; }
void norm_task(const GroupNorm& norm, int64_t task);

// ---- rows of channels ------------------------------------------------------------------------------------------------
// What happens to each row of (rows, channels) alone: its norm (arXiv 1607.06450), or GELU (arXiv 1606.08415) of its sum
// with the bias. All contiguous and float.
struct Rows {
    int64_t rows, channels;
    int64_t parts;               // tasks
    int64_t is_norm;             // whether the norm, or GELU
    float epsilon;               // of the norm
    const float *x, *weight, *bias;  // (rows, channels), (channels), (channels); weight: of the norm
    float* out;                  // like x, and may be x
};

inline int64_t tasks(const Rows& rows) { return rows.parts; }
void rows_task(const Rows& rows, int64_t task);

// ---- causal convolution ----------------------------------------------------------------------------------------------
// out_t = silu(bias + sum over k of weight_k x_(t - width + 1 + k)), channel by channel. All contiguous and float.
struct CausalConv {
    int64_t batch, length, channels, width;
    int64_t parts;                   // tasks that share an element of the batch: ranges of steps
    const float *x, *weight, *bias;  // (batch, length, channels), (channels, width), (channels)
    float* out;                      // like x, and elsewhere
};

inline int64_t tasks(const CausalConv& conv) { return conv.batch * conv.parts; }
void conv_task(const CausalConv& conv, int64_t task);

}  // namespace mamba_vision
