// Group norm for one kind of vector registers: the end of scan_lanes.hpp, for float.

// Adds the sums over `count` neighbouring values of x - centre, and of its square.
INLINE void add_sums(const float* x, int64_t count, float centre, double* sum, double* squares) {
    vec sums[4] = {}, squared[4] = {};  // side by side: one addition waits for the one before
    int64_t at = 0;
    for (; at + 4 * LANES <= count; at += 4 * LANES)
        for (int i = 0; i < 4; ++i) {
            const vec d = load(x + at + i * LANES) - all(centre);
            sums[i] += d, squared[i] += d * d;
        }
    for (; at + LANES <= count; at += LANES) {
        const vec d = load(x + at) - all(centre);
        sums[0] += d, squared[0] += d * d;
    }
    const vec of_sums = (sums[0] + sums[1]) + (sums[2] + sums[3]), of_squares = (squared[0] + squared[1]) + (squared[2] + squared[3]);
    for (int i = 0; i < LANES; ++i) *sum += of_sums[i], *squares += of_squares[i];
    for (; at < count; ++at) {
        const float d = x[at] - centre;
        *sum += d, *squares += d * d;
    }
}

// What two sets of values have together
static void join(Moments* all_of, double count, double mean, double squares) {
    if (count == 0) return;
    const double both = all_of->count + count, apart = mean - all_of->mean;
    all_of->mean += apart * count / both;
    all_of->squares += squares + apart * apart * all_of->count * count / both;
    all_of->count = both;
}

// Blocks are added up in float, of which a lane has few, and what they have in double: exact for any number of values.
// Sums are about the mean of the block before. Where that is far away, the means of blocks differ by as much, so that
// rounding stays small beside the variance.
static Moments moments_of(const float* x, int64_t count) {
    const int64_t block = 1024;
    double sum = 0, squares = 0;
    if (count) add_sums(x, count < block ? count : block, 0, &sum, &squares);
    float centre = (float)(sum / (count < block ? count : block));
    Moments found = {0, 0, 0};
    for (int64_t first = 0; first < count; first += block) {
        const int64_t size = count - first < block ? count - first : block;
        sum = squares = 0;
        add_sums(x + first, size, centre, &sum, &squares);
        const double mean = centre + sum / size;
        join(&found, size, mean, squares - sum * sum / size);
        centre = (float)mean;
    }
    return found;
}

// out = (x - mean) factor + shift; x may be out
INLINE void scale_values(const float* x, int64_t count, float mean, float factor, float shift, float* out) {
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) store((load(x + at) - all(mean)) * all(factor) + all(shift), out + at);
    for (; at < count; ++at) out[at] = (x[at] - mean) * factor + shift;
}

// A part of a group: its moments, the norm by those of the whole group, or both where it is the whole.
static void norm_task(const GroupNorm& norm, int64_t index) {
    const int64_t group = index / norm.parts, part = index % norm.parts, channels = norm.channels / norm.groups;
    const int64_t values = channels * norm.size, begin = values * part / norm.parts, end = values * (part + 1) / norm.parts;
    const float* x = norm.x + group * values;
    float* out = norm.out + group * values;
    Moments* of_parts = norm.moments + group * norm.parts;
    if (norm.step != NormStep::scale) of_parts[part] = moments_of(x + begin, end - begin);
    if (norm.step == NormStep::moments) return;
    Moments whole = {0, 0, 0};
    for (int64_t i = 0; i < norm.parts; ++i) join(&whole, of_parts[i].count, of_parts[i].mean, of_parts[i].squares);
    const double deviation = __builtin_sqrt(whole.squares / whole.count + norm.epsilon);
    const float mean = (float)whole.mean;
    for (int64_t at = begin; at < end;) {
        const int64_t c = at / norm.size, behind = (c + 1) * norm.size, stop = behind < end ? behind : end;
        const int64_t channel = group % norm.groups * channels + c;
        const double factor = norm.weight[channel] / deviation;
        const double shift = norm.bias[channel] - (whole.mean - mean) * factor;  // with what a float leaves of the mean
        scale_values(x + at, stop - at, mean, (float)factor, (float)shift, out + at);
        at = stop;
    }
}
