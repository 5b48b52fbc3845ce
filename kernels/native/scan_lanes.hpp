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
// Of `count` vectors, a constant, at a time and operation by operation: one vector's operations wait for each other,
// and a processor looks too few of them ahead to find the next vector's.
#define EACH for (int i = 0; i < count; ++i)

#if SCAN_DOUBLE

INLINE void exp2_of(int count, vec* x) {
    EACH for (int j = 0; j < LANES; ++j) x[i][j] = __builtin_exp2(x[i][j]);
}

INLINE void log1p_of_unit(int count, vec* x) {
    EACH for (int j = 0; j < LANES; ++j) x[i][j] = __builtin_log1p(x[i][j]);
}

#else

typedef int32_t vec_int __attribute__((vector_size(LANES * sizeof(int32_t))));

// p = p f + c
INLINE void horner(int count, vec* p, const vec* f, float c) {
    EACH p[i] = p[i] * f[i] + all(c);
}

// 2^x to 1e-7 of its value: 2^n by bits, 2^(x - n) by a polynomial fitted on [-1/2, 1/2]. Zero below -127.
INLINE void exp2_of(int count, vec* x) {
    vec f[4], n[4], p[4];
#if LANES == 16  // AVX-512 scales by powers of two itself, and knows where their range ends
    EACH f[i] = (vec)_mm512_reduce_ps((__m512)x[i], 0);
    EACH n[i] = x[i] - f[i];
#else
    const vec magic = all(12582912.f + 127.f);  // 1.5 2^23: the sum has no fraction left
    EACH x[i] = x[i] < all(-127.f) ? all(-127.f) : x[i];  // written so that NaN stays
    EACH x[i] = x[i] > all(128.f) ? all(128.f) : x[i];
    EACH n[i] = x[i] + magic;
    EACH f[i] = x[i] - (n[i] - magic);
#endif
    EACH p[i] = f[i] * all(1.3264727e-3f) + all(9.6715130e-3f);
    horner(count, p, f, 5.5507336e-2f);
    horner(count, p, f, 2.4022242e-1f);
    horner(count, p, f, 6.9314700e-1f);
    horner(count, p, f, 1.f);
#if LANES == 16
    EACH x[i] = (vec)_mm512_scalef_ps((__m512)p[i], (__m512)n[i]);
#else
    EACH x[i] = p[i] * (vec)((vec_int)n[i] << 23);
#endif
}

// log(1 + x) for 0 <= x <= 1, as twice the inverse hyperbolic tangent of x / (2 + x), its series fitted.
INLINE void log1p_of_unit(int count, vec* x) {
    vec r[4], w[4], p[4];
    EACH r[i] = x[i] / (x[i] + all(2.f));
    EACH w[i] = r[i] * r[i];
    EACH p[i] = w[i] * all(1.4005994e-1f) + all(1.4000903e-1f);
    horner(count, p, w, 2.0010764e-1f);
    horner(count, p, w, 3.3333208e-1f);
    horner(count, p, w, 1.f);
    EACH x[i] = all(2.f) * r[i] * p[i];
}

#endif

#define LOG2E ((REAL)1.4426950408889634)
#define LN2 ((REAL)0.6931471805599453)

// exp(-|x|), never more than one
INLINE void exp_of_minus_abs(int count, const vec* x, vec* e) {
    EACH e[i] = (x[i] > all(0) ? -x[i] : x[i]) * all(LOG2E);
    exp2_of(count, e);
}

// 1 / (1 + exp(-x)), from x and exp(-|x|)
INLINE void sigmoid_with(int count, const vec* x, const vec* e, vec* y) {
    EACH y[i] = (x[i] > all(0) ? all(1) : e[i]) / (all(1) + e[i]);
}

INLINE void sigmoid(int count, const vec* x, vec* y) {
    vec e[4];
    exp_of_minus_abs(count, x, e);
    sigmoid_with(count, x, e, y);
}

// log(1 + exp(x)), and if asked for its slope
INLINE void softplus(int count, const vec* x, vec* y, vec* slope) {
    vec e[4];
    exp_of_minus_abs(count, x, e);
    if (slope) sigmoid_with(count, x, e, slope);
    log1p_of_unit(count, e);
    EACH y[i] = (x[i] > all(0) ? x[i] : all(0)) + e[i];
}

// ---- tiles: [step][lane] ---------------------------------------------------------------------------------------------
#if !SCAN_DOUBLE
typedef float four __attribute__((vector_size(16), may_alias));
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

// B or C of a tile as [step][state] with rows `pitch` apart: in place if the states of a step lie side by side.
static const REAL* read_matrix(const Matrix& from, const Task& task, int64_t state, int64_t first, int64_t steps,
                               REAL* room, int64_t* pitch) {
    const REAL* data = (const REAL*)from.data + task.b * from.batch + task.g * from.group + first * from.step;
    if (from.state == 1 || state == 1) {
        *pitch = from.step;
        return data;
    }
    *pitch = state;
    if (from.step == 1) {
        transpose(data, from.state, state, steps, room, state);
    } else {
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t n = 0; n < state; ++n) room[t * state + n] = data[t * from.step + n * from.state];
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

// A block's rows of something (..., channels, state) as [state] vectors, and back; null gives zeros.
static void read_states(const REAL* rows, int64_t state, int64_t used, vec* to) {
    if (!rows || used < LANES)
        for (int64_t n = 0; n < state; ++n) to[n] = all(0);
    if (rows) transpose(rows, state, used, state, (REAL*)to, LANES);
}

static void write_states(const vec* from, int64_t state, int64_t used, REAL* rows) {
    if (rows) transpose((const REAL*)from, LANES, state, used, rows, state);
}

// (channels, state) as [block][state] vectors, times `factor`; null gives nothing
static void read_parameter(const void* matrix, const Scan& scan, const Task& task, REAL factor, vec* to) {
    if (!matrix) return;
    for (int64_t block = 0; block < task.blocks; ++block) {
        const int64_t channel = task.first + block * LANES, used = task.last - channel < LANES ? task.last - channel : LANES;
        read_states((const REAL*)matrix + channel * scan.state, scan.state, used, to + block * scan.state);
    }
    for (int64_t i = 0; i < task.blocks * scan.state; ++i) to[i] *= all(factor);
}

// Where a block's rows of something (batch, channels, state) begin; null if there is none
INLINE REAL* rows_of(const void* states, const Scan& scan, int64_t b, int64_t channel) {
    return states ? (REAL*)states + (b * scan.channels + channel) * scan.state : 0;
}

// What a block needs of a tile besides B and C: u, and the step s with its slope over delta. The state's input is s u,
// and y begins as D u.
struct Tile {
    vec u[TILE], s[TILE], slope[TILE], y[TILE], z[TILE], D;
};

// Softplus of sums with the bias, in place; what lies behind the last step, up to a multiple of four, gets numbers.
INLINE void softplus_steps(int64_t steps, vec bias, vec* s, vec* slope) {
    const int count = 4;
    for (int64_t t = steps; t % 4; ++t) s[t] = all(0);
    for (int64_t t = 0; t < steps; t += 4) {
        vec p[4];
        EACH p[i] = s[t + i] + bias;
        softplus(4, p, s + t, slope ? slope + t : 0);
    }
}

static void read_steps(const Scan& scan, int64_t b, int64_t channel, int64_t used, int64_t first, int64_t steps,
                       bool with_slope, Tile* tile) {
    read_tile(scan.u, b, channel, used, first, steps, tile->u);
    read_tile(scan.delta, b, channel, used, first, steps, tile->s);
    const vec bias = scan.delta_bias ? read_row((const REAL*)scan.delta_bias + channel, used) : all(0);
    tile->D = scan.D ? read_row((const REAL*)scan.D + channel, used) : all(0);
    if (!scan.delta_softplus)
        for (int64_t t = 0; t < steps; ++t) tile->s[t] += bias;
    else if (with_slope)
        softplus_steps(steps, bias, tile->s, tile->slope);
    else
        softplus_steps(steps, bias, tile->s, 0);
}

// y = sigmoid(z), four at a time; y has room for as many
INLINE void sigmoid_steps(int64_t steps, vec* z, vec* y) {
    for (int64_t t = steps; t % 4; ++t) z[t] = all(0);
    for (int64_t t = 0; t < steps; t += 4) sigmoid(4, z + t, y + t);
}

// Ask for the cache lines of a tile that is read, or written, next.
static void prefetch_tile(const Sequence& next, int64_t b, int64_t channel, int64_t used, int64_t first, int64_t steps) {
    if (!next.data) return;
    const REAL* data = (const REAL*)next.data + b * next.batch + channel * next.channel + first * next.step;
    if (next.channel == 1) {
        for (int64_t t = 0; t < steps; ++t) __builtin_prefetch(data + t * next.step);
    } else if (next.step == 1) {
        for (int64_t i = 0; i < used; ++i)
            for (int64_t t = 0; t < steps; t += 64 / (int64_t)sizeof(REAL)) __builtin_prefetch(data + i * next.channel + t);
    }
}

// `count` states (a constant) of a block over a tile, forward, from number `n` on. B and C point at that one.
INLINE void scan_states(int count, int64_t n, int64_t steps, Tile* tile, const vec* A, vec* h, const REAL* B, int64_t B_pitch,
                        const vec* B_rows, const REAL* C, int64_t C_pitch, const vec* C_rows) {
    vec rate[4], state[4];
    for (int i = 0; i < count; ++i) rate[i] = A[i], state[i] = h[i];
    for (int64_t t = 0; t < steps; ++t) {
        const vec s = tile->s[t], u = tile->u[t], x = s * u;
        vec y = n ? tile->y[t] : tile->D * u;
        vec decay[4];
        EACH decay[i] = s * rate[i];
        exp2_of(count, decay);
        EACH state[i] = decay[i] * state[i] + (B_rows ? x * B_rows[i] : x * B[t * B_pitch + i]);
        EACH y += C_rows ? state[i] * C_rows[i] : state[i] * C[t * C_pitch + i];
        tile->y[t] = y;
    }
    for (int i = 0; i < count; ++i) h[i] = state[i];
}

// The sequences of the block behind this one, or of the first block of the tile that is `on` steps away
INLINE void prefetch_next(const Scan& scan, const Task& task, int64_t block, int64_t first, int64_t on) {
    int64_t channel = task.first + (block + 1) * LANES;
    if (block + 1 == task.blocks) channel = task.first, first += on;
    if (first < 0 || first >= scan.length) return;
    const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
    const int64_t steps = scan.length - first < TILE ? scan.length - first : TILE;
    const Sequence* const sequences[] = {&scan.u, &scan.delta, &scan.z, &scan.grad_out};
    for (int i = 0; i < 4; ++i) prefetch_tile(*sequences[i], task.b, channel, used, first, steps);
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
        if (scan.B.data) B = read_matrix(scan.B, task, N, first, steps, B_room, &B_pitch);
        if (scan.C.data) C = read_matrix(scan.C, task, N, first, steps, C_room, &C_pitch);
        for (int64_t block = 0; block < task.blocks; ++block) {
            const int64_t channel = task.first + block * LANES;
            const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
            vec* state = h + block * N;
            if (first == 0) read_states(rows_of(scan.initial, scan, task.b, channel), N, used, state);
            if (scan.saved) {
                REAL* to = (REAL*)scan.saved + (first / TILE * scan.batch + task.b) * N * scan.channels + channel;
                for (int64_t n = 0; n < N; ++n) write_row(state[n], to + n * scan.channels, used);
            }
            read_steps(scan, task.b, channel, used, first, steps, false, &tile);
            prefetch_next(scan, task, block, first, TILE);
            const vec* rate = A + block * N;
            int64_t n = 0;
            if (variable) {
                for (; n + 4 <= N; n += 4)
                    scan_states(4, n, steps, &tile, rate + n, state + n, B + n, B_pitch, 0, C + n, C_pitch, 0);
                for (; n < N; ++n)
                    scan_states(1, n, steps, &tile, rate + n, state + n, B + n, B_pitch, 0, C + n, C_pitch, 0);
            } else {
                for (; n < N; ++n)
                    scan_states(1, n, steps, &tile, rate + n, state + n, B ? B + n : 0, B_pitch,
                                B ? 0 : B_rows + block * N + n, C ? C + n : 0, C_pitch, C ? 0 : C_rows + block * N + n);
            }
            if (scan.z.data) {
                read_tile(scan.z, task.b, channel, used, first, steps, tile.z);
                sigmoid_steps(steps, tile.z, tile.s);
                for (int64_t t = 0; t < steps; ++t) tile.y[t] *= tile.z[t] * tile.s[t];
            }
            write_tile(tile.y, scan.out, task.b, channel, used, first, steps);
            if (first + steps == scan.length) write_states(state, N, used, rows_of(scan.last, scan, task.b, channel));
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
INLINE void adjoint_states(int count, int64_t number, int64_t steps, Tile* tile, Gradients* grad, const vec* A, const vec* before,
                           vec* later, vec* dA, const REAL* B, int64_t B_pitch, const vec* B_rows, vec* B_sum,
                           const REAL* C, int64_t C_pitch, const vec* C_rows, vec* C_sum, bool need_y) {
    vec a[TILE][4], h[TILE + 1][4], rate[4];
    for (int i = 0; i < count; ++i) rate[i] = A[i], h[0][i] = before[i];
    for (int64_t t = 0; t < steps; ++t) {
        const vec s = tile->s[t], u = tile->u[t], x = s * u, dy = grad->dy[t];
        vec y = number ? tile->y[t] : tile->D * u;
        EACH a[t][i] = s * rate[i];
        exp2_of(count, a[t]);
        EACH {
            const vec in = B_rows ? x * B_rows[i] : x * B[t * B_pitch + i];
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
        const vec s = tile->s[t], x = s * tile->u[t], dy = grad->dy[t];
        vec dx = number ? grad->dx[t] : all(0), ds = number ? grad->ds[t] : all(0);
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

// Sums over the lanes of four vectors
#if SCAN_DOUBLE
INLINE void sums_of_lanes(const vec* values, REAL* sums) {
    for (int i = 0; i < 4; ++i) sums[i] = (values[i][0] + values[i][1]) + (values[i][2] + values[i][3]);
}
#else
INLINE void sums_of_lanes(const vec* values, REAL* sums) {
    float rows[16], columns[16];  // four sums of every fourth lane each
    for (int i = 0; i < 4; ++i) {
        const four* part = (const four*)(values + i);
        four sum = part[0];
        for (int j = 1; j < LANES / 4; ++j) sum += part[j];
        *(four_unaligned*)(rows + 4 * i) = sum;
    }
    transpose_four(rows, 4, columns, 4);
    const four_unaligned* column = (const four_unaligned*)columns;
    *(four_unaligned*)sums = (column[0] + column[1]) + (column[2] + column[3]);
}
#endif

// Sums over the lanes of [state][step] vectors, to where they belong; behind the last step there must be numbers
static void write_sums(const vec* tile, const Matrix& to, const Task& task, int64_t state, int64_t first, int64_t steps) {
    REAL* data = (REAL*)to.data + task.part * to.part + task.b * to.batch + task.g * to.group + first * to.step;
    for (int64_t n = 0; n < state; ++n) {
        REAL sums[TILE];
        for (int64_t t = 0; t < steps; t += 4) sums_of_lanes(tile + n * TILE + t, sums + t);
        for (int64_t t = 0; t < steps; ++t) data[n * to.state + t * to.step] = sums[t];
    }
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
        if (scan.B.data) B = read_matrix(scan.B, task, N, first, steps, B_room, &B_pitch);
        if (scan.C.data) C = read_matrix(scan.C, task, N, first, steps, C_room, &C_pitch);
        for (int64_t i = 0; i < N * TILE; ++i) dB_tile[i] = dC_tile[i] = all(0);
        for (int64_t block = 0; block < task.blocks; ++block) {
            const int64_t channel = task.first + block * LANES, offset = block * N;
            const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
            if (k == tiles - 1) read_states(rows_of(scan.grad_last, scan, task.b, channel), N, used, later + offset);
            for (int64_t n = 0; n < N; ++n)
                before[n] = read_row((const REAL*)scan.saved + ((k * scan.batch + task.b) * N + n) * scan.channels + channel, used);
            read_steps(scan, task.b, channel, used, first, steps, true, &tile);
            read_tile(scan.grad_out, task.b, channel, used, first, steps, grad.dy);
            vec gate_slope[TILE];  // of the gradient of z: behind the gate times silu'
            if (gated) {
                read_tile(scan.z, task.b, channel, used, first, steps, tile.z);
                sigmoid_steps(steps, tile.z, gate_slope);
                for (int64_t t = 0; t < steps; ++t) {
                    const vec z = tile.z[t], sigma = gate_slope[t];
                    gate_slope[t] = grad.dy[t] * sigma * (all(1) + z * (all(1) - sigma));
                    grad.dy[t] *= z * sigma;
                }
            }
            prefetch_next(scan, task, block, first, -TILE);
            vec *rate = A + offset, *next = later + offset, *sum = dA + offset;
            int64_t n = 0;
            if (variable && gated) {
                for (; n + GROUPED <= N; n += GROUPED)
                    adjoint_states(GROUPED, n, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B + n, B_pitch, 0,
                                   dB_tile + n * TILE, C + n, C_pitch, 0, dC_tile + n * TILE, true);
            } else if (variable) {
                for (; n + GROUPED <= N; n += GROUPED)
                    adjoint_states(GROUPED, n, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B + n, B_pitch, 0,
                                   dB_tile + n * TILE, C + n, C_pitch, 0, dC_tile + n * TILE, false);
            }
            for (; n < N; ++n)
                adjoint_states(1, n, steps, &tile, &grad, rate + n, before + n, next + n, sum + n, B ? B + n : 0, B_pitch,
                               B ? 0 : B_rows + offset + n, B ? dB_tile + n * TILE : dB_rows + offset + n,
                               C ? C + n : 0, C_pitch, C ? 0 : C_rows + offset + n,
                               C ? dC_tile + n * TILE : dC_rows + offset + n, gated);
            if (gated) {
                for (int64_t t = 0; t < steps; ++t) tile.y[t] *= gate_slope[t];
                write_tile(tile.y, scan.dz, task.b, channel, used, first, steps);
            }
            for (int64_t t = 0; t < steps; ++t) {
                vec ds = grad.ds[t] * all(LN2) + grad.dx[t] * tile.u[t];
                if (scan.delta_softplus) ds *= tile.slope[t];
                grad.ds[t] = ds;
                bias_sum[block] += ds;
                D_sum[block] += grad.dy[t] * tile.u[t];
                grad.dx[t] = grad.dx[t] * tile.s[t] + tile.D * grad.dy[t];
            }
            write_tile(grad.ds, scan.ddelta, task.b, channel, used, first, steps);
            write_tile(grad.dx, scan.du, task.b, channel, used, first, steps);
        }
        if (B) write_sums(dB_tile, scan.dB, task, N, first, steps);
        if (C) write_sums(dC_tile, scan.dC, task, N, first, steps);
    }

    for (int64_t block = 0; block < task.blocks; ++block) {
        const int64_t channel = task.first + block * LANES;
        const int64_t used = task.last - channel < LANES ? task.last - channel : LANES;
        write_states(dA + block * N, N, used, rows_of(scan.dA, scan, task.b, channel));
        write_states(later + block * N, N, used, rows_of(scan.dinitial, scan, task.b, channel));
        write_states(dB_rows + block * N, N, used, rows_of(scan.dconstant_B, scan, task.b, channel));
        write_states(dC_rows + block * N, N, used, rows_of(scan.dconstant_C, scan, task.b, channel));
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
#include "norm_lanes.hpp"
#include "rows_lanes.hpp"
#include "conv_lanes.hpp"
#endif

#undef INLINE
#undef EACH
#undef LOG2E
#undef LN2
