// The scan along orders for one kind of vector registers: the end of scan_lanes.hpp, for float.

// p[t] = sum over r of dt[rows[t]][r] W[r]: step sizes before bias and softplus. Four tokens at a time share a read of W.
static void project_steps(const float* const* rows, int64_t steps, int64_t rank, const vec* W, vec* p) {
    int64_t t = 0;
    for (; t + 4 <= steps; t += 4) {
        const float *a = rows[t], *b = rows[t + 1], *c = rows[t + 2], *d = rows[t + 3];
        vec pa = all(0), pb = pa, pc = pa, pd = pa;
        for (int64_t r = 0; r < rank; ++r) {
            const vec w = W[r];
            pa += w * a[r], pb += w * b[r], pc += w * c[r], pd += w * d[r];
        }
        p[t] = pa, p[t + 1] = pb, p[t + 2] = pc, p[t + 3] = pd;
    }
    for (; t < steps; ++t) {
        p[t] = all(0);
        for (int64_t r = 0; r < rank; ++r) p[t] += W[r] * rows[t][r];
    }
}

static int64_t ordered_heap(const OrderedScan& scan) {
    return (scan.rank + 2 * scan.state) * sizeof(vec) + 2 * TILE * scan.state * sizeof(float);
}

// A part of the channels of one element of the batch, along all orders.
static void ordered_task(const OrderedScan& scan, int64_t index, void* heap) {
    const int64_t T = scan.tokens, E = scan.channels, K = scan.orders, N = scan.state, R = scan.rank;
    const int64_t b = index / scan.parts, part = index % scan.parts, blocks = (E + LANES - 1) / LANES;
    vec *W = (vec*)heap, *A = W + R, *h = A + N;
    float *B = (float*)(h + N), *C = B + TILE * N;
    const float *x = scan.x + b * T * E, *dt = scan.dt + b * T * K * R;
    const float *all_B = scan.B + b * T * K * N, *all_C = scan.C + b * T * K * N;
    float* out = scan.out + b * T * E;
    const float* rows[TILE];
    Tile tile;

    for (int64_t block = blocks * part / scan.parts; block < blocks * (part + 1) / scan.parts; ++block) {
        const int64_t channel = block * LANES, used = E - channel < LANES ? E - channel : LANES;
        for (int64_t t = 0; t < T; ++t) write_row(all(0), out + t * E + channel, used);
        for (int64_t k = 0; k < K; ++k) {
            const int64_t row = k * E + channel;
            read_states(scan.dt_weight + row * R, R, used, W);
            read_states(scan.A + row * N, N, used, A);
            for (int64_t n = 0; n < N; ++n) A[n] *= all(LOG2E), h[n] = all(0);
            const vec bias = read_row(scan.dt_bias + row, used);
            tile.D = read_row(scan.D + row, used);
            const int64_t* order = scan.order + ((scan.own_orders ? b * K : 0) + k) * T;
            for (int64_t first = 0; first < T; first += TILE) {
                const int64_t steps = T - first < TILE ? T - first : TILE;
                for (int64_t t = 0; t < steps; ++t) {
                    const int64_t place = order[first + t] * K + k;
                    rows[t] = dt + place * R;
                    for (int64_t n = 0; n < N; ++n) B[t * N + n] = all_B[place * N + n], C[t * N + n] = all_C[place * N + n];
                }
                project_steps(rows, steps, R, W, tile.s);
                softplus_steps(steps, bias, tile.s, 0);
                for (int64_t t = 0; t < steps; ++t) tile.u[t] = read_row(x + order[first + t] * E + channel, used);
                int64_t n = 0;
                for (; n + 4 <= N; n += 4) scan_states(4, n, steps, &tile, A + n, h + n, B + n, N, 0, C + n, N, 0);
                for (; n < N; ++n) scan_states(1, n, steps, &tile, A + n, h + n, B + n, N, 0, C + n, N, 0);
                for (int64_t t = 0; t < steps; ++t) {
                    float* to = out + order[first + t] * E + channel;
                    write_row(tile.y[t] + read_row(to, used), to, used);
                }
            }
        }
    }
}
