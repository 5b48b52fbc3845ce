// The scan for one kind of vector registers. No include guard: selective_scan.cpp includes this file once for each,
// inside a namespace of its own, with
//   REAL     float or double
//   LANES    channels that are computed side by side, a power of two: one vector
// Nothing here is a template or a function of the standard library, so that all code is compiled for the processor that
// the including file has chosen.

typedef REAL vec __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL vec_unaligned __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec all(REAL value) { return value - (vec){}; }

INLINE vec load(const REAL* from) { return *(const vec_unaligned*)from; }
INLINE void store(vec value, REAL* to) { *(vec_unaligned*)to = value; }

// ---- elementary functions --------------------------------------------------------------------------------------------
#if SCAN_DOUBLE

INLINE vec exp2_of(vec x) {
    for (int i = 0; i < LANES; ++i) x[i] = __builtin_exp2(x[i]);
    return x;
}

INLINE vec log1p_of_unit(vec x) {
    for (int i = 0; i < LANES; ++i) x[i] = __builtin_log1p(x[i]);
    return x;
}

#else

typedef int32_t vec_int __attribute__((vector_size(LANES * sizeof(int32_t))));

// 2^x to 1e-7 of its value: 2^n by bits, 2^(x - n) by a polynomial fitted on [-1/2, 1/2]. Zero below -127.
INLINE vec exp2_of(vec x) {
#if LANES == 16  // AVX-512 scales by powers of two itself, and knows where their range ends
    const vec f = (vec)_mm512_reduce_ps((__m512)x, 0), n = x - f;
#else
    x = x < all(-127.f) ? all(-127.f) : x;  // written so that NaN stays
    x = x > all(128.f) ? all(128.f) : x;
    const vec magic = all(12582912.f + 127.f);  // 1.5 2^23: the sum has no fraction left
    const vec shifted = x + magic;
    const vec f = x - (shifted - magic);
#endif
    vec p = all(1.3264727e-3f);
    p = p * f + all(9.6715130e-3f);
    p = p * f + all(5.5507336e-2f);
    p = p * f + all(2.4022242e-1f);
    p = p * f + all(6.9314700e-1f);
    p = p * f + all(1.f);
#if LANES == 16
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vec)((vec_int)shifted << 23);
#endif
}

// log(1 + x) for 0 <= x <= 1, as twice the inverse hyperbolic tangent of x / (2 + x), its series fitted.
INLINE vec log1p_of_unit(vec x) {
    const vec r = x / (x + all(2.f)), w = r * r;
    vec p = all(1.4005994e-1f);
    p = p * w + all(1.4000903e-1f);
    p = p * w + all(2.0010764e-1f);
    p = p * w + all(3.3333208e-1f);
    p = p * w + all(1.f);
    return all(2.f) * r * p;
}

#endif

#define LOG2E ((REAL)1.4426950408889634)
#define LN2 ((REAL)0.6931471805599453)

// exp(-|x|), never more than one
INLINE vec exp_of_minus_abs(vec x) { return exp2_of((x > all(0) ? -x : x) * all(LOG2E)); }

INLINE vec sigmoid(vec x) {
    const vec e = exp_of_minus_abs(x);
    return (x > all(0) ? all(1) : e) / (all(1) + e);
}

INLINE vec softplus(vec x) { return (x > all(0) ? x : all(0)) + log1p_of_unit(exp_of_minus_abs(x)); }

INLINE REAL sum_of_lanes(vec value) {
    REAL part[LANES];
    store(value, part);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

// ---- tiles: [step][lane] ---------------------------------------------------------------------------------------------
#if !SCAN_DOUBLE
typedef float four __attribute__((vector_size(16)));
typedef float four_unaligned __attribute__((vector_size(16), aligned(4), may_alias));

// rows[i] = from[i * stride ...]; to[i * pitch ...] = column i
INLINE void transpose_four(const float* from, int64_t stride, float* to, int64_t pitch) {
    const four a = *(const four_unaligned*)from, b = *(const four_unaligned*)(from + stride);
    const four c = *(const four_unaligned*)(from + 2 * stride), d = *(const four_unaligned*)(from + 3 * stride);
    const four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four_unaligned*)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(four_unaligned*)(to + pitch) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(four_unaligned*)(to + 2 * pitch) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(four_unaligned*)(to + 3 * pitch) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// to[c * pitch + r] = from[r * stride + c]; four rows at a time are read to their end, so that each cache line of rows
// that lie a power of two apart is used up before another one takes its place
INLINE void transpose(const float* from, int64_t stride, int64_t rows, int64_t columns, float* to, int64_t pitch) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        int64_t c = 0;
        for (; c + 4 <= columns; c += 4) transpose_four(from + r * stride + c, stride, to + c * pitch + r, pitch);
        for (; c < columns; ++c)
            for (int64_t i = r; i < r + 4; ++i) to[c * pitch + i] = from[i * stride + c];
    }
    for (; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) to[c * pitch + r] = from[r * stride + c];
}
#else
INLINE void transpose(const double* from, int64_t stride, int64_t rows, int64_t columns, double* to, int64_t pitch) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) to[c * pitch + r] = from[r * stride + c];
}
#endif

// Steps [first, first + steps) of `used` channels from `channel`; zeros in the lanes behind.
static void read_tile(const Sequence& from, int64_t b, int64_t channel, int64_t used, int64_t first, int64_t steps,
                      vec* tile) {
    const REAL* data = (const REAL*)from.data + b * from.batch + channel * from.channel + first * from.step;
    if (used < LANES)
        for (int64_t t = 0; t < steps; ++t) tile[t] = all(0);
    if (from.channel == 1 && used == LANES) {
        for (int64_t t = 0; t < steps; ++t) tile[t] = load(data + t * from.step);
    } else if (from.step == 1) {
        transpose(data, from.channel, used, steps, (REAL*)tile, LANES);
    } else {
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t i = 0; i < used; ++i) tile[t][i] = data[t * from.step + i * from.channel];
    }
}

static void write_tile(const vec* tile, const Sequence& to, int64_t b, int64_t channel, int64_t used, int64_t first,
                       int64_t steps) {
    REAL* data = (REAL*)to.data + b * to.batch + channel * to.channel + first * to.step;
    if (to.channel == 1 && used == LANES) {
        for (int64_t t = 0; t < steps; ++t) store(tile[t], data + t * to.step);
    } else if (to.step == 1) {
        transpose((const REAL*)tile, LANES, steps, used, data, to.channel);
    } else {
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t i = 0; i < used; ++i) data[t * to.step + i * to.channel] = tile[t][i];
    }
}

// B or C of a tile as [step][state] with rows `pitch` apart: in place if the states of a step lie side by side.
static const REAL* read_matrix(const Sequence& from, int64_t b, int64_t row, int64_t state, int64_t first,
                               int64_t steps, REAL* room, int64_t* pitch) {
    const REAL* data = (const REAL*)from.data + b * from.batch + row * from.channel + first * from.step;
    if (from.channel == 1) {
        *pitch = from.step;
        return data;
    }
    *pitch = state;
    if (from.step == 1) {
        transpose(data, from.channel, state, steps, room, state);
    } else {
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t n = 0; n < state; ++n) room[t * state + n] = data[t * from.step + n * from.channel];
    }
    return room;
}

// A row of `used` channels of something (..., channels), and back
INLINE vec read_row(const REAL* row, int64_t used) {
    if (used == LANES) return load(row);
    vec value = all(0);
    for (int64_t i = 0; i < used; ++i) value[i] = row[i];
    return value;
}

INLINE void write_row(vec value, REAL* row, int64_t used) {
    if (used == LANES) return store(value, row);
    for (int64_t i = 0; i < used; ++i) row[i] = value[i];
}

// ---- a task ----------------------------------------------------------------------------------------------------------
struct Task {
    int64_t part, b, g, first, last;  // the channels [first, last) of group g
    int64_t blocks;
};

static Task task_at(const Scan& scan, int64_t index) {
    const int64_t per_group = scan.channels / scan.groups, blocks = (per_group + LANES - 1) / LANES;
    Task task;
    task.part = index % scan.parts;
    task.g = index / scan.parts % scan.groups;
    task.b = index / scan.parts / scan.groups;
    const int64_t from = blocks * task.part / scan.parts, to = blocks * (task.part + 1) / scan.parts;
    const int64_t begin = task.g * per_group, end = begin + per_group;
    task.first = begin + from * LANES;
    task.last = begin + to * LANES < end ? begin + to * LANES : end;
    task.blocks = to - from;
    return task;
}

// (channels, state) as [block][state] vectors, times `factor`; null gives nothing
static void read_parameter(const void* matrix, const Scan& scan, const Task& task, REAL factor, vec* to) {
    if (!matrix) return;
    for (int64_t block = 0; block < task.blocks; ++block)
        for (int64_t n = 0; n < scan.state; ++n) {
            vec value = all(0);
            for (int64_t i = 0; i < LANES && task.first + block * LANES + i < task.last; ++i)
                value[i] = ((const REAL*)matrix)[(task.first + block * LANES + i) * scan.state + n] * factor;
            to[block * scan.state + n] = value;
        }
}

// What a block needs of a tile besides B and C: u, the sum before softplus p, the step s, and x = s u.
struct Tile {
    vec u[TILE], p[TILE], s[TILE], x[TILE], y[TILE], z[TILE];
};

static void read_steps(const Scan& scan, int64_t b, int64_t channel, int64_t used, int64_t first, int64_t steps,
                       Tile* tile) {
    read_tile(scan.u, b, channel, used, first, steps, tile->u);
    read_tile(scan.delta, b, channel, used, first, steps, tile->p);
    const vec bias = scan.delta_bias ? read_row((const REAL*)scan.delta_bias + channel, used) : all(0);
    const vec D = scan.D ? read_row((const REAL*)scan.D + channel, used) : all(0);
    for (int64_t t = 0; t < steps; ++t) {
        tile->p[t] += bias;
        tile->s[t] = scan.delta_softplus ? softplus(tile->p[t]) : tile->p[t];
        tile->x[t] = tile->s[t] * tile->u[t];
        tile->y[t] = D * tile->u[t];
    }
}

// `count` states (a constant) of a block over a tile, forward. B and C point at the first of them.
INLINE void scan_states(int count, int64_t steps, Tile* tile, const vec* A, vec* h, const REAL* B, int64_t B_pitch,
                        const vec* B_rows, const REAL* C, int64_t C_pitch, const vec* C_rows) {
    vec rate[4], state[4];
    for (int i = 0; i < count; ++i) rate[i] = A[i], state[i] = h[i];
    for (int64_t t = 0; t < steps; ++t) {
        const vec s = tile->s[t], x = tile->x[t];
        vec y = tile->y[t];
        for (int i = 0; i < count; ++i) {
            const vec in = B_rows ? x * B_rows[i] : x * B[t * B_pitch + i];
            state[i] = exp2_of(s * rate[i]) * state[i] + in;
            y += C_rows ? state[i] * C_rows[i] : state[i] * C[t * C_pitch + i];
        }
        tile->y[t] = y;
    }
    for (int i = 0; i < count; ++i) h[i] = state[i];
}

static void forward_task(const Scan& scan, int64_t index, void* heap) {
    const Task task = task_at(scan, index);
    const int64_t N = scan.state, rows = task.blocks * N;
    vec *A = (vec*)heap, *h = A + rows, *B_rows = h + rows, *C_rows = B_rows + rows;
    REAL *B_room = (REAL*)(C_rows + rows), *C_room = B_room + TILE * N;
    read_parameter(scan.A, scan, task, LOG2E, A);
    read_parameter(scan.constant_B, scan, task, 1, B_rows);
    read_parameter(scan.constant_C, scan, task, 1, C_rows);
    const REAL *B = 0, *C = 0;
    int64_t B_pitch = 0, C_pitch = 0;
    const bool variable = scan.B.data && scan.C.data;
    Tile tile;

    for (int64_t first = 0; first < scan.length; first += TILE) {
        const int64_t steps = scan.length - first < TILE ? scan.length - first : TILE;
        if (scan.B.data) B = read_matrix(scan.B, task.b, task.g * N, N, first, steps, B_room, &B_pitch);
        if (scan.C.data) C = read_matrix(scan.C, task.b, task.g * N, N, first, steps, C_room, &C_pitch);
        for (int64_t block = 0; block < task.blocks; ++block) {
            const int64_t channel = task.first + block * LANES;
            const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
            vec* state = h + block * N;
            if (first == 0)
                for (int64_t n = 0; n < N; ++n)
                    state[n] = scan.initial ? read_row((const REAL*)scan.initial + (task.b * N + n) * scan.channels + channel, used)
                                            : all(0);
            if (scan.saved) {
                REAL* to = (REAL*)scan.saved + (first / TILE * scan.batch + task.b) * N * scan.channels + channel;
                for (int64_t n = 0; n < N; ++n) write_row(state[n], to + n * scan.channels, used);
            }
            read_steps(scan, task.b, channel, used, first, steps, &tile);
            const vec* rate = A + block * N;
            int64_t n = 0;
            if (variable) {
                for (; n + 4 <= N; n += 4)
                    scan_states(4, steps, &tile, rate + n, state + n, B + n, B_pitch, 0, C + n, C_pitch, 0);
                for (; n < N; ++n)
                    scan_states(1, steps, &tile, rate + n, state + n, B + n, B_pitch, 0, C + n, C_pitch, 0);
            } else {
                for (; n < N; ++n)
                    scan_states(1, steps, &tile, rate + n, state + n, B ? B + n : 0, B_pitch,
                                B ? 0 : B_rows + block * N + n, C ? C + n : 0, C_pitch, C ? 0 : C_rows + block * N + n);
            }
            if (scan.z.data) {
                read_tile(scan.z, task.b, channel, used, first, steps, tile.z);
                for (int64_t t = 0; t < steps; ++t) tile.y[t] *= tile.z[t] * sigmoid(tile.z[t]);
            }
            write_tile(tile.y, scan.out, task.b, channel, used, first, steps);
            if (scan.last && first + steps == scan.length)
                for (int64_t n = 0; n < N; ++n)
                    write_row(state[n], (REAL*)scan.last + (task.b * N + n) * scan.channels + channel, used);
        }
    }
}

static int64_t forward_heap(const Scan& scan, int64_t index) {
    return 4 * task_at(scan, index).blocks * scan.state * sizeof(vec) + 2 * TILE * scan.state * sizeof(REAL);
}

// The gradients of a block's tile: of x = s u, and of s through the decays; dy is the gradient of y.
struct Gradients {
    vec dy[TILE], dx[TILE], ds[TILE];
};

// `count` states (a constant) of a block over a tile: rebuilt forward from `before`, then the adjoint in reverse.
// `later` is a g of the step behind the tile, the gradient that comes from there; B_sum, C_sum collect x g and dy h.
INLINE void adjoint_states(int count, int64_t steps, Tile* tile, Gradients* grad, const vec* A, const vec* before,
                           vec* later, vec* dA, const REAL* B, int64_t B_pitch, const vec* B_rows, vec* B_sum,
                           const REAL* C, int64_t C_pitch, const vec* C_rows, vec* C_sum, bool need_y) {
    vec a[TILE][4], h[TILE + 1][4], rate[4];
    for (int i = 0; i < count; ++i) rate[i] = A[i], h[0][i] = before[i];
    for (int64_t t = 0; t < steps; ++t) {
        const vec s = tile->s[t], x = tile->x[t], dy = grad->dy[t];
        vec y = need_y ? tile->y[t] : all(0);
        for (int i = 0; i < count; ++i) {
            const vec in = B_rows ? x * B_rows[i] : x * B[t * B_pitch + i];
            a[t][i] = exp2_of(s * rate[i]);
            const vec state = a[t][i] * h[t][i] + in;
            h[t + 1][i] = state;
            if (need_y) y += C_rows ? state * C_rows[i] : state * C[t * C_pitch + i];
            C_sum[C_rows ? i : i * TILE + t] += dy * state;
        }
        if (need_y) tile->y[t] = y;
    }
    vec from_later[4], sum[4];
    for (int i = 0; i < count; ++i) from_later[i] = later[i], sum[i] = dA[i];
    for (int64_t t = steps - 1; t >= 0; --t) {
        const vec s = tile->s[t], x = tile->x[t], dy = grad->dy[t];
        vec dx = grad->dx[t], ds = grad->ds[t];
        for (int i = 0; i < count; ++i) {
            const vec g = from_later[i] + (C_rows ? dy * C_rows[i] : dy * C[t * C_pitch + i]);
            dx += B_rows ? g * B_rows[i] : g * B[t * B_pitch + i];
            B_sum[B_rows ? i : i * TILE + t] += x * g;
            from_later[i] = a[t][i] * g;
            const vec q = from_later[i] * h[t][i];  // the gradient of s A
            ds += q * rate[i];
            sum[i] += q * s;
        }
        grad->dx[t] = dx;
        grad->ds[t] = ds;
    }
    for (int i = 0; i < count; ++i) later[i] = from_later[i], dA[i] = sum[i];
}

static void backward_task(const Scan& scan, int64_t index, void* heap) {
    const Task task = task_at(scan, index);
    const int64_t N = scan.state, rows = task.blocks * N, tiles = (scan.length + TILE - 1) / TILE;
    vec *A = (vec*)heap, *later = A + rows, *dA = later + rows, *B_rows = dA + rows, *C_rows = B_rows + rows;
    vec *dB_rows = C_rows + rows, *dC_rows = dB_rows + rows, *D_sum = dC_rows + rows, *bias_sum = D_sum + task.blocks;
    vec *before = bias_sum + task.blocks, *dB_tile = before + N, *dC_tile = dB_tile + N * TILE;
    REAL *B_room = (REAL*)(dC_tile + N * TILE), *C_room = B_room + TILE * N;
    read_parameter(scan.A, scan, task, LOG2E, A);
    read_parameter(scan.constant_B, scan, task, 1, B_rows);
    read_parameter(scan.constant_C, scan, task, 1, C_rows);
    for (int64_t i = 0; i < rows; ++i) dA[i] = dB_rows[i] = dC_rows[i] = all(0);
    for (int64_t i = 0; i < task.blocks; ++i) D_sum[i] = bias_sum[i] = all(0);
    const REAL *B = 0, *C = 0;
    int64_t B_pitch = 0, C_pitch = 0;
    const bool variable = scan.B.data && scan.C.data, gated = scan.z.data != 0;
    Tile tile;
    Gradients grad;

    for (int64_t k = tiles - 1; k >= 0; --k) {
        const int64_t first = k * TILE, steps = scan.length - first < TILE ? scan.length - first : TILE;
        if (scan.B.data) B = read_matrix(scan.B, task.b, task.g * N, N, first, steps, B_room, &B_pitch);
        if (scan.C.data) C = read_matrix(scan.C, task.b, task.g * N, N, first, steps, C_room, &C_pitch);
        for (int64_t i = 0; i < N * TILE; ++i) dB_tile[i] = dC_tile[i] = all(0);
        for (int64_t block = 0; block < task.blocks; ++block) {
            const int64_t channel = task.first + block * LANES, offset = block * N;
            const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
            for (int64_t n = 0; n < N; ++n) {
                const int64_t row = (task.b * N + n) * scan.channels + channel;
                if (k == tiles - 1)
                    later[offset + n] = scan.grad_last ? read_row((const REAL*)scan.grad_last + row, used) : all(0);
                before[n] = read_row((const REAL*)scan.saved + k * scan.batch * N * scan.channels + row, used);
            }
            read_steps(scan, task.b, channel, used, first, steps, &tile);
            read_tile(scan.grad_out, task.b, channel, used, first, steps, grad.dy);
            vec gate_slope[TILE];  // of the gradient of z: behind the gate times silu'
            if (gated) {
                read_tile(scan.z, task.b, channel, used, first, steps, tile.z);
                for (int64_t t = 0; t < steps; ++t) {
                    const vec z = tile.z[t], sigma = sigmoid(z);
                    gate_slope[t] = grad.dy[t] * sigma * (all(1) + z * (all(1) - sigma));
                    grad.dy[t] *= z * sigma;
                }
            }
            for (int64_t t = 0; t < steps; ++t) grad.dx[t] = grad.ds[t] = all(0);
            vec *rate = A + offset, *next = later + offset, *sum = dA + offset;
            int64_t n = 0;
            if (variable && gated) {
                for (; n + GROUPED <= N; n += GROUPED)
                    adjoint_states(GROUPED, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B + n, B_pitch, 0,
                                   dB_tile + n * TILE, C + n, C_pitch, 0, dC_tile + n * TILE, true);
            } else if (variable) {
                for (; n + GROUPED <= N; n += GROUPED)
                    adjoint_states(GROUPED, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B + n, B_pitch, 0,
                                   dB_tile + n * TILE, C + n, C_pitch, 0, dC_tile + n * TILE, false);
            }
            for (; n < N; ++n)
                adjoint_states(1, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B ? B + n : 0, B_pitch,
                               B ? 0 : B_rows + offset + n, B ? dB_tile + n * TILE : dB_rows + offset + n,
                               C ? C + n : 0, C_pitch, C ? 0 : C_rows + offset + n,
                               C ? dC_tile + n * TILE : dC_rows + offset + n, gated);
            if (gated) {
                for (int64_t t = 0; t < steps; ++t) tile.y[t] *= gate_slope[t];
                write_tile(tile.y, scan.dz, task.b, channel, used, first, steps);
            }
            const vec D = scan.D ? read_row((const REAL*)scan.D + channel, used) : all(0);
            for (int64_t t = 0; t < steps; ++t) {
                vec ds = grad.ds[t] * all(LN2) + grad.dx[t] * tile.u[t];
                if (scan.delta_softplus) ds *= sigmoid(tile.p[t]);
                grad.ds[t] = ds;
                bias_sum[block] += ds;
                D_sum[block] += grad.dy[t] * tile.u[t];
                grad.dx[t] = grad.dx[t] * tile.s[t] + D * grad.dy[t];
            }
            write_tile(grad.ds, scan.ddelta, task.b, channel, used, first, steps);
            write_tile(grad.dx, scan.du, task.b, channel, used, first, steps);
        }
        const int64_t row = ((task.part * scan.batch + task.b) * scan.groups + task.g) * scan.length + first;
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t n = 0; n < N; ++n) {
                if (B) ((REAL*)scan.dB)[(row + t) * N + n] = sum_of_lanes(dB_tile[n * TILE + t]);
                if (C) ((REAL*)scan.dC)[(row + t) * N + n] = sum_of_lanes(dC_tile[n * TILE + t]);
            }
    }

    for (int64_t block = 0; block < task.blocks; ++block) {
        const int64_t channel = task.first + block * LANES;
        const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
        for (int64_t n = 0; n < N; ++n) {
            const int64_t row = (task.b * N + n) * scan.channels + channel, i = block * N + n;
            write_row(dA[i], (REAL*)scan.dA + row, used);
            write_row(later[i], (REAL*)scan.dinitial + row, used);
            if (!B) write_row(dB_rows[i], (REAL*)scan.dB + row, used);
            if (!C) write_row(dC_rows[i], (REAL*)scan.dC + row, used);
        }
        if (scan.dD) write_row(D_sum[block], (REAL*)scan.dD + task.b * scan.channels + channel, used);
        if (scan.dbias) write_row(bias_sum[block], (REAL*)scan.dbias + task.b * scan.channels + channel, used);
    }
}

static int64_t backward_heap(const Scan& scan, int64_t index) {
    const int64_t blocks = task_at(scan, index).blocks, N = scan.state;
    return (7 * blocks * N + 2 * blocks + N + 2 * N * TILE) * sizeof(vec) + 2 * TILE * N * sizeof(REAL);
}

#if !SCAN_DOUBLE
#include "ordered_lanes.hpp"
#endif

#undef INLINE
#undef LOG2E
#undef LN2
