// The scan compiled for several kinds of processors in one binary, and the choice at run time.

#include "selective_scan.hpp"

#include <cstdlib>
#include <new>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// GCC and Clang each have their way to compile a part of a file for another processor. Chosen by features, not by the
// names of processors: a newer processor of another name has them too.
#if defined(__x86_64__) && defined(__clang__)
#define BEGIN_AVX2 _Pragma("clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)")
#define BEGIN_AVX512 _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512bw,avx512dq,avx512vl,avx2,fma\"))), apply_to = function)")
#define END_PROCESSOR _Pragma("clang attribute pop")
#elif defined(__x86_64__) && defined(__GNUC__)
#define BEGIN_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define BEGIN_AVX512 _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,avx2,fma\")")
#define END_PROCESSOR _Pragma("GCC pop_options")
#endif

namespace mamba_vision {

#define REAL float
#define SCAN_DOUBLE 0

namespace four_lanes {  // any processor: SSE, NEON, or what the compiler makes of it
#define LANES 4
#define GROUPED 2
#include "scan_lanes.hpp"
#undef LANES
#undef GROUPED
}  // namespace four_lanes

#ifdef BEGIN_AVX2
BEGIN_AVX2
namespace eight_lanes {
#define LANES 8
#define GROUPED 2
#include "scan_lanes.hpp"
#undef LANES
#undef GROUPED
}  // namespace eight_lanes
END_PROCESSOR

BEGIN_AVX512
namespace sixteen_lanes {
#define LANES 16
#define GROUPED 4
#include "scan_lanes.hpp"
#undef LANES
#undef GROUPED
}  // namespace sixteen_lanes
END_PROCESSOR
#endif

#undef REAL
#undef SCAN_DOUBLE

namespace double_lanes {  // for checks in high precision
#define REAL double
#define SCAN_DOUBLE 1
#define LANES 4
#define GROUPED 2
#include "scan_lanes.hpp"
#undef LANES
#undef GROUPED
#undef REAL
#undef SCAN_DOUBLE
}  // namespace double_lanes

namespace {

typedef void (*OrderedTask)(const OrderedScan&, int64_t, void*);
typedef int64_t (*OrderedHeap)(const OrderedScan&);

struct Kind {
    int64_t lanes;
    void (*forward)(const Scan&, int64_t, void*);
    int64_t (*forward_heap)(const Scan&, int64_t);
    void (*backward)(const Scan&, int64_t, void*);
    int64_t (*backward_heap)(const Scan&, int64_t);
    OrderedTask ordered;  // for float
    OrderedHeap ordered_heap;
    void (*norm)(const GroupNorm&, int64_t);
    void (*rows)(const Rows&, int64_t);
    void (*conv)(const CausalConv&, int64_t, void*);
    int64_t (*conv_heap)(const CausalConv&);
};

#define KIND(lanes, name, ...) \
    Kind { lanes, name::forward_task, name::forward_heap, name::backward_task, name::backward_heap, __VA_ARGS__ }
#define FLOAT_KIND(lanes, name) KIND(lanes, name, name::ordered_task, name::ordered_heap, name::norm_task, name::rows_task, name::conv_task, name::conv_heap)

Kind best_for_float() {
#ifdef BEGIN_AVX2
    // MAMBA_VISION_LANES narrows the choice, for tests of the other kinds
    const char* asked = std::getenv("MAMBA_VISION_LANES");
    const long most = asked ? std::strtol(asked, nullptr, 10) : 16;
    if (most >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return FLOAT_KIND(16, sixteen_lanes);
    if (most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return FLOAT_KIND(8, eight_lanes);
#endif
    return FLOAT_KIND(4, four_lanes);
}

const Kind& kind_for(bool is_double) {
    static const Kind of_float = best_for_float(), of_double = KIND(4, double_lanes, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
    return is_double ? of_double : of_float;
}

// States that fade away pass through numbers so small that processors slow down by ten times: flushed to zero
// while a task runs.
class FlushTiny {
public:
#if defined(__x86_64__)
    FlushTiny() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040); }
    ~FlushTiny() { __builtin_ia32_ldmxcsr(before_); }

private:
    unsigned before_;
#endif
};

class Heap {
public:
    explicit Heap(int64_t bytes) : memory_(::operator new(static_cast<std::size_t>(bytes), std::align_val_t(64))) {}
    ~Heap() { ::operator delete(memory_, std::align_val_t(64)); }
    Heap(const Heap&) = delete;
    Heap& operator=(const Heap&) = delete;
    void* get() const { return memory_; }

private:
    void* memory_;
};

}  // namespace

int64_t parts_for(int64_t batch, int64_t groups, int64_t channels, int64_t threads, bool is_double) {
    const int64_t lanes = kind_for(is_double).lanes, blocks = (channels / groups + lanes - 1) / lanes;
    const int64_t sequences = batch * groups > 0 ? batch * groups : 1;
    const int64_t wanted = (threads + sequences - 1) / sequences;
    return wanted < 1 ? 1 : wanted < blocks ? wanted : blocks;
}

void forward_task(const Scan& scan, int64_t task) {
    const Kind& kind = kind_for(scan.is_double != 0);
    Heap heap(kind.forward_heap(scan, task));
    [[maybe_unused]] const FlushTiny flush;
    kind.forward(scan, task, heap.get());
}

void ordered_task(const OrderedScan& scan, int64_t task) {
    const Kind& kind = kind_for(false);
    Heap heap(kind.ordered_heap(scan));
    [[maybe_unused]] const FlushTiny flush;
    kind.ordered(scan, task, heap.get());
}

void norm_task(const GroupNorm& norm, int64_t task) { kind_for(false).norm(norm, task); }
void rows_task(const Rows& rows, int64_t task) { kind_for(false).rows(rows, task); }

void conv_task(const CausalConv& conv, int64_t task) {
    const Kind& kind = kind_for(false);
    Heap heap(kind.conv_heap(conv));
    kind.conv(conv, task, heap.get());
}

void backward_task(const Scan& scan, int64_t task) {
    const Kind& kind = kind_for(scan.is_double != 0);
    Heap heap(kind.backward_heap(scan, task));
    [[maybe_unused]] const FlushTiny flush;
    kind.backward(scan, task, heap.get());
}

}  // namespace mamba_vision
