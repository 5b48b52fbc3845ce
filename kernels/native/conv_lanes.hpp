// Causal convolution with SiLU for one kind of vector registers: the end of scan_lanes.hpp, for float.

// `count` steps (a constant) of a block of `used` channels from step t on; where it is `inside`, nothing before the first
// step is asked for. `width` is a constant where it is the usual one.
INLINE void conv_steps(int count, int64_t width, bool inside, int64_t used, const float* x, int64_t row, int64_t t, const vec* weight,
                       vec bias, float* out) {
    vec y[4], open[4];
    EACH y[i] = bias;
    for (int64_t k = 0; k < width; ++k) {
        const int64_t first = t + k - (width - 1);
        EACH if (inside || first + i >= 0) y[i] += weight[k] * read_row(x + (first + i) * row, used);
    }
    sigmoid(count, y, open);
    EACH write_row(y[i] * open[i], out + (t + i) * row, used);
}

// A range of steps of one element of the batch, a few steps at a time, so that x is near when it is read again
static void conv_task(const CausalConv& conv, int64_t index, void* heap) {
    const int64_t L = conv.length, D = conv.channels, W = conv.width, b = index / conv.parts, part = index % conv.parts;
    const int64_t last = L * (part + 1) / conv.parts;
    const float* x = conv.x + b * L * D;
    float* out = conv.out + b * L * D;
    vec* weight = (vec*)heap;
    for (int64_t channel = 0; channel < D; channel += LANES)
        read_states(conv.weight + channel * W, W, D - channel < LANES ? D - channel : LANES, weight + channel / LANES * W);
    for (int64_t first = L * part / conv.parts; first < last; first += TILE) {
        const int64_t end = last - first < TILE ? last : first + TILE;
        for (int64_t channel = 0; channel < D; channel += LANES) {
            const int64_t used = D - channel < LANES ? D - channel : LANES;
            const vec* taps = weight + channel / LANES * W;
            const vec bias = read_row(conv.bias + channel, used);
            const float* from = x + channel;
            float* to = out + channel;
            int64_t t = first;
            for (; t < W - 1 && t < end; ++t) conv_steps(1, W, false, used, from, D, t, taps, bias, to);
            if (W == 4 && used == LANES) {
                for (; t + 4 <= end; t += 4) conv_steps(4, 4, true, LANES, from, D, t, taps, bias, to);
            } else {
                for (; t + 4 <= end; t += 4) conv_steps(4, W, true, used, from, D, t, taps, bias, to);
            }
            for (; t < end; ++t) conv_steps(1, W, true, used, from, D, t, taps, bias, to);
        }
    }
}

static int64_t conv_heap(const CausalConv& conv) {
    return (conv.channels + LANES - 1) / LANES * conv.width * sizeof(vec);
}
