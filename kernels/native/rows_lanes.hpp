// Layer norm and GELU of rows for one kind of vector registers: the end of scan_lanes.hpp, for float.

// x times the normal distribution's share below x, by the error function's approximation 7.1.26 of Abramowitz and Stegun
// (Handbook of Mathematical Functions), which is right to 1.5e-7. Of `count` vectors.
INLINE void gelu(int count, vec* x) {
    vec z[4], t[4], p[4], e[4];
    EACH z[i] = (x[i] > all(0) ? x[i] : -x[i]) * all(0.70710678f);
    EACH e[i] = z[i] * z[i] * all(-LOG2E);
    exp2_of(count, e);
    EACH t[i] = all(1) / (all(1) + z[i] * all(0.3275911f));
    EACH p[i] = t[i] * all(1.061405429f) + all(-1.453152027f);
    horner(count, p, t, 1.421413741f);
    horner(count, p, t, -0.284496736f);
    horner(count, p, t, 0.254829592f);
    EACH p[i] = p[i] * t[i] * e[i] * all(0.5f);  // the share beyond |x|
    EACH x[i] *= x[i] > all(0) ? all(1) - p[i] : p[i];
}

INLINE void gelu_row(const float* x, int64_t channels, const float* bias, float* out) {
    int64_t c = 0;
    vec values[4];
    for (; c + 4 * LANES <= channels; c += 4 * LANES) {
        for (int i = 0; i < 4; ++i) values[i] = load(x + c + i * LANES) + load(bias + c + i * LANES);
        gelu(4, values);
        for (int i = 0; i < 4; ++i) store(values[i], out + c + i * LANES);
    }
    for (; c < channels; c += LANES) {
        const int64_t used = channels - c < LANES ? channels - c : LANES;
        values[0] = read_row(x + c, used) + read_row(bias + c, used);
        gelu(1, values);
        write_row(values[0], out + c, used);
    }
}

// The sum of each row's lanes: as many as LANES rows, a lane of the result each
INLINE vec sums_of_rows(const vec* rows) {
    vec columns[LANES];
    transpose((const float*)rows, LANES, LANES, LANES, (float*)columns, LANES);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) columns[i] += columns[i + half];
    return columns[0];
}

// Up to LANES rows: what is one number a row is computed for all of them together.
INLINE void norm_rows(const float* x, int64_t count, int64_t channels, float epsilon, const float* weight, const float* bias, float* out) {
    const int64_t whole = channels / LANES * LANES, left = channels - whole;
    vec sums[LANES] = {}, squares[LANES] = {}, inside = all(0);
    for (int64_t i = 0; i < left; ++i) inside[i] = 1;
    for (int64_t r = 0; r < count; ++r) {
        const float* row = x + r * channels;
        for (int64_t c = 0; c < whole; c += LANES) sums[r] += load(row + c);
        if (left) sums[r] += read_row(row + whole, left);
    }
    const vec mean = sums_of_rows(sums) / all((float)channels);
    for (int64_t r = 0; r < count; ++r) {
        const float* row = x + r * channels;
        for (int64_t c = 0; c < whole; c += LANES) {
            const vec d = load(row + c) - all(mean[r]);
            squares[r] += d * d;
        }
        if (left) {
            const vec d = (read_row(row + whole, left) - all(mean[r])) * inside;
            squares[r] += d * d;
        }
    }
    vec factor = sums_of_rows(squares) / all((float)channels) + all(epsilon);
    for (int i = 0; i < LANES; ++i) factor[i] = 1 / __builtin_sqrtf(factor[i]);
    for (int64_t r = 0; r < count; ++r) {
        const float* row = x + r * channels;
        float* to = out + r * channels;
        for (int64_t c = 0; c < whole; c += LANES)
            store((load(row + c) - all(mean[r])) * all(factor[r]) * load(weight + c) + load(bias + c), to + c);
        for (int64_t c = whole; c < channels; ++c) to[c] = (row[c] - mean[r]) * factor[r] * weight[c] + bias[c];
    }
}

static void rows_task(const Rows& rows, int64_t index) {
    const int64_t C = rows.channels, end = rows.rows * (index + 1) / rows.parts;
    for (int64_t row = rows.rows * index / rows.parts; row < end; row += LANES) {
        const int64_t count = end - row < LANES ? end - row : LANES;
        const float* x = rows.x + row * C;
        float* out = rows.out + row * C;
        if (rows.is_norm)
            norm_rows(x, count, C, rows.epsilon, rows.weight, rows.bias, out);
        else
            for (int64_t r = 0; r < count; ++r) gelu_row(x + r * C, C, rows.bias, out + r * C);
    }
}
