// ONNX Runtime's operators TokenScan and OrderedScan for its CUDA provider; inputs and outputs as told in ort_op.cpp.
//
// The kernels are those of gpu_kernels.py, as PTX (gpu_build.py). They are launched through the driver alone, which is
// looked for when a scan first runs: the library can be built, loaded and moved where there is no GPU. Operators that
// are not here stay standard ones, which the provider has; on the provider for CPUs all of them do.

#include "ort_scan.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <map>

namespace mamba_vision {
namespace {

struct Kernel {
    const char* name;    // with its constants
    const char* entry;   // in the PTX
    int threads, shared;
    int parameters;      // more than the function's own: the compiler adds pointers to scratch memory, which go unused
    const char* ptx;
};

#include GPU_KERNELS  // KERNELS, made by gpu_build.py

// ---- driver ---------------------------------------------------------------------------------------------------------
using Code = void*;

struct Driver {
    int (*library_load)(void** library, const void* code, void*, void**, unsigned, void*, void**, unsigned) = nullptr;
    int (*library_kernel)(Code* kernel, void* library, const char* name) = nullptr;
    int (*launch)(Code, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void* stream,
                  void** parameters, void** extra) = nullptr;
    int (*set_words)(uint64_t address, unsigned value, size_t count, void* stream) = nullptr;
    int (*current_device)(int* device) = nullptr;
    int (*attribute)(int* value, int which, int device) = nullptr;
    int (*error_text)(int error, const char** text) = nullptr;

    Driver() {
        void* handle = dlopen("libcuda.so.1", RTLD_NOW);
        if (!handle) throw std::runtime_error("NVIDIA's driver, libcuda.so.1, cannot be loaded");
        find(handle, "cuLibraryLoadData", library_load);
        find(handle, "cuLibraryGetKernel", library_kernel);
        find(handle, "cuLaunchKernel", launch);
        find(handle, "cuMemsetD32Async", set_words);
        find(handle, "cuCtxGetDevice", current_device);
        find(handle, "cuDeviceGetAttribute", attribute);
        find(handle, "cuGetErrorString", error_text);
    }

    void check(int error, const char* what) const {
        const char* text = "unknown error";
        if (!error) return;
        error_text(error, &text);
        throw std::runtime_error(std::string(what) + ": " + text);
    }

private:
    template <class Function>
    static void find(void* handle, const char* name, Function& function) {
        function = reinterpret_cast<Function>(dlsym(handle, name));
        if (!function)
            throw std::runtime_error(std::string("NVIDIA's driver is older than CUDA 12: it has no ") + name);
    }
};

const Driver& driver() {
    static const Driver loaded;  // tried again at the next call if it throws
    return loaded;
}

struct Loaded {
    const Kernel* kernel;
    Code code;
};

// A kernel, compiled for the GPU when it is first asked for. It serves all GPUs of the process.
const Loaded& loaded(const std::string& name) {
    static std::mutex mutex;
    static std::map<std::string, Loaded> known;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = known.find(name);
    if (found != known.end()) return found->second;
    for (const Kernel& kernel : KERNELS) {
        if (name != kernel.name) continue;
        void* library = nullptr;
        Code code = nullptr;
        const Driver& cuda = driver();
        cuda.check(cuda.library_load(&library, kernel.ptx, nullptr, nullptr, 0, nullptr, nullptr, 0), kernel.name);
        cuda.check(cuda.library_kernel(&code, library, kernel.entry), kernel.name);
        return known[name] = {&kernel, code};
    }
    throw std::logic_error("no kernel " + name);
}

// ---- what a run of an operator has ----------------------------------------------------------------------------------
void accept(const OrtApi* api, OrtStatus* status) {
    if (!status) return;
    const std::string message = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw std::runtime_error(message);
}

// Memory for one run, from the provider's pool. It goes back when the launches are made: what the pool gives out again
// is used behind them in the same stream.
class Run {
public:
    Run(const OrtApi* api, OrtKernelContext* context) : api_(api) {
        accept(api, api->KernelContext_GetGPUComputeStream(context, &stream_));
        const OrtValue* first = nullptr;
        accept(api, api->KernelContext_GetInput(context, 0, &first));
        const OrtMemoryInfo* place = nullptr;
        accept(api, api->GetTensorMemoryInfo(first, &place));
        accept(api, api->KernelContext_GetAllocator(context, place, &allocator_));
    }
    Run(const Run&) = delete;

    ~Run() {
        for (void* one : taken_)
            if (OrtStatus* status = api_->AllocatorFree(allocator_, one)) api_->ReleaseStatus(status);
        api_->ReleaseAllocator(allocator_);
    }

    template <class Value>
    Value* take(int64_t count) {
        void* data = nullptr;
        const size_t bytes = static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(Value);
        accept(api_, api_->AllocatorAlloc(allocator_, bytes, &data));
        taken_.push_back(data);
        return static_cast<Value*>(data);
    }

    const float* zeros(int64_t count) {
        float* data = take<float>(count);
        const int error = driver().set_words(reinterpret_cast<uint64_t>(data), 0, static_cast<size_t>(count), stream_);
        driver().check(error, "zeros");
        return data;
    }

    // Arguments of the kernel's own types: pointers, int64_t and int32_t
    template <class... Arguments>
    void launch(const std::string& name, int64_t programs, Arguments... arguments) {
        const Loaded& found = loaded(name);
        void* const nothing = nullptr;
        std::vector<void*> all = {static_cast<void*>(&arguments)...};
        all.resize(static_cast<size_t>(found.kernel->parameters), const_cast<void**>(&nothing));
        if (programs > INT32_MAX) throw std::invalid_argument(name + ": the input is too large");
        const unsigned grid = static_cast<unsigned>(programs), threads = static_cast<unsigned>(found.kernel->threads);
        const unsigned shared = static_cast<unsigned>(found.kernel->shared);
        const int error = driver().launch(found.code, grid, 1, 1, threads, 1, 1, shared, stream_, all.data(), nullptr);
        driver().check(error, name.c_str());
    }

private:
    const OrtApi* api_;
    OrtAllocator* allocator_ = nullptr;
    void* stream_ = nullptr;
    std::vector<void*> taken_;
};

// ---- scans ----------------------------------------------------------------------------------------------------------
// of programs, as in gpu_kernels.py
constexpr int64_t CHANNELS = 32, PACKED_STEPS = 64, TILE_TOKENS = 64, VALUES = 1024;

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

int32_t narrow(int64_t value) {
    if (value > INT32_MAX) throw std::invalid_argument("a side of " + std::to_string(value) + " is too large");
    return static_cast<int32_t>(value);
}

int64_t multiprocessors() {
    constexpr int MULTIPROCESSOR_COUNT = 16;
    int device = 0, count = 0;
    driver().check(driver().current_device(&device), "device");
    driver().check(driver().attribute(&count, MULTIPROCESSOR_COUNT, device), "device");
    return count;
}

// Selective scans of `groups` groups of channels, each with its own B and C; along an order, rows are tokens.
struct GroupedScan {
    int64_t batch, groups, channels, length, state;  // channels: of a group
    const void *u, *delta, *z, *A, *B, *C, *D, *bias;
    float* y;
    const int32_t* order;   // null: rows are steps
    int64_t order_batch;    // strides, in elements; z lies like u, y like delta, C like B
    int64_t u_batch, u_group, y_batch, y_group, row, b_batch, b_group, b_row;
    bool softplus;
};

// Steps a chunk. Few programs, each with all steps, would leave most of a GPU idle: chunks run side by side, twice.
int64_t chunk_steps(int64_t programs, int64_t length, bool one_state) {
    const int64_t wanted = multiprocessors() * 12, least = one_state ? 64 : 128;
    if (programs * 2 > wanted || length < 2 * least) return length;
    return std::max(least, parts(parts(length, wanted / programs), 16) * 16);
}

void run_scan(Run& run, const GroupedScan& scan) {
    const int64_t bk = scan.batch * scan.groups, ctiles = parts(scan.channels, CHANNELS);
    if (!bk || !scan.length || !scan.channels) return;
    if (scan.state < 1 || scan.state > 64)
        throw std::invalid_argument("a state of " + std::to_string(scan.state) +
                                    ", expected 1 to 64: run this model without the library");
    const int NP = scan.state == 1 ? 1 : scan.state <= 16 ? 16 : 64;
    const int64_t chunk = chunk_steps(ctiles * bk, scan.length, NP == 1), chunks = parts(scan.length, chunk);
    const int64_t padded = parts(scan.length, 128) * 128, tiles = padded / PACKED_STEPS;
    const std::string size = std::to_string(NP), with_order = scan.order ? "1" : "0";
    const int32_t length = narrow(scan.length), channels = narrow(scan.channels), K = narrow(scan.groups);
    const int32_t N = narrow(scan.state), n_ctiles = narrow(ctiles), n_chunks = narrow(chunks), steps = narrow(chunk);
    const int32_t rows = narrow(padded);
    const void* bias = scan.bias ? scan.bias : run.zeros(scan.groups * scan.channels);
    const void* D = scan.D ? scan.D : run.zeros(scan.groups * scan.channels);

    float* At = run.take<float>(scan.groups * NP * scan.channels);
    float* packed = run.take<float>(bk * padded * 2 * NP);
    run.launch("pack " + size + " " + with_order, tiles * bk + scan.groups * parts(scan.channels, 128), scan.A, scan.B,
               scan.C, At, packed, scan.order, length, rows, channels, scan.order_batch, scan.b_batch, scan.b_group,
               scan.b_row, narrow(tiles), narrow(bk), K, N);
    float *ends = nullptr, *decays = nullptr, *entering = nullptr;
    const auto pass = [&](int phase) {
        const std::string z = scan.z && phase != 1 ? "1" : "0";
        const std::string name = "scan " + size + " " + std::to_string(phase) + " " + z;
        run.launch(name + (scan.softplus ? " 1 " : " 0 ") + with_order, ctiles * chunks * bk, scan.u, scan.delta,
                   scan.z, scan.y, D, bias, packed, At, ends, decays, entering, scan.order, length, rows, channels,
                   n_ctiles, n_chunks, steps, scan.order_batch, scan.u_batch, scan.u_group, scan.y_batch, scan.y_group,
                   scan.row, K, N);
    };
    if (chunks == 1) return pass(0);
    ends = run.take<float>(bk * chunks * NP * scan.channels);
    entering = run.take<float>(bk * chunks * NP * scan.channels);
    decays = run.take<float>(bk * chunks * scan.channels);
    pass(1);
    run.launch("carry " + size, ctiles * NP * bk, ends, decays, At, entering, channels, n_ctiles, n_chunks, K, N);
    pass(2);
}

struct Cuda {
    static OrtStatus* run(const OrtApi* api, OrtKernelContext* context, Scan& scan, const char*) {
        if (scan.constant_B || scan.constant_C)
            throw std::invalid_argument(
                "B or C is constant, expected one for each step: run this model without the library");
        Run run(api, context);
        GroupedScan grouped{};
        grouped.batch = scan.batch, grouped.groups = scan.groups, grouped.channels = scan.channels / scan.groups;
        grouped.length = scan.length, grouped.state = scan.state, grouped.softplus = scan.delta_softplus != 0;
        grouped.u = scan.u.data, grouped.delta = scan.delta.data, grouped.z = scan.z.data;
        grouped.A = scan.A, grouped.B = scan.B.data, grouped.C = scan.C.data;
        grouped.D = scan.D, grouped.bias = scan.delta_bias;
        grouped.y = static_cast<float*>(scan.out.data);
        grouped.u_batch = grouped.y_batch = scan.u.batch, grouped.u_group = grouped.y_group = grouped.channels;
        grouped.row = scan.u.step;
        grouped.b_batch = scan.B.batch, grouped.b_group = scan.B.group, grouped.b_row = scan.B.step;
        run_scan(run, grouped);
        return nullptr;
    }

    static OrtStatus* run(const OrtApi* api, OrtKernelContext* context, OrderedScan& scan, const char*) {
        Run run(api, context);
        const int64_t bk = scan.batch * scan.orders, size = scan.tokens * scan.channels;
        if (!bk || !size) return nullptr;
        const int64_t numbers = (scan.own_orders ? scan.batch : 1) * scan.orders * scan.tokens;
        const int32_t tokens = narrow(scan.tokens), channels = narrow(scan.channels), K = narrow(scan.orders);
        int32_t* order = run.take<int32_t>(numbers);
        run.launch("token_numbers", parts(numbers, VALUES), scan.order, order, numbers, tokens);
        float* delta = run.take<float>(bk * size);
        const int64_t ttiles = parts(scan.tokens, TILE_TOKENS), ctiles = parts(scan.channels, CHANNELS);
        run.launch("step_sizes", ctiles * ttiles * bk, scan.dt, scan.dt_weight, delta, tokens, channels,
                   narrow(scan.rank), narrow(ttiles), narrow(ctiles), K);

        GroupedScan grouped{};
        grouped.batch = scan.batch, grouped.groups = scan.orders, grouped.channels = scan.channels;
        grouped.length = scan.tokens, grouped.state = scan.state, grouped.softplus = true;
        grouped.u = scan.x, grouped.delta = delta, grouped.y = run.take<float>(bk * size);
        grouped.A = scan.A, grouped.B = scan.B, grouped.C = scan.C, grouped.D = scan.D, grouped.bias = scan.dt_bias;
        grouped.order = order, grouped.order_batch = scan.own_orders ? scan.orders * scan.tokens : 0;
        grouped.u_batch = size, grouped.u_group = 0;
        grouped.y_batch = scan.orders * size, grouped.y_group = size, grouped.row = scan.channels;
        grouped.b_row = scan.orders * scan.state, grouped.b_batch = scan.tokens * grouped.b_row;
        grouped.b_group = scan.state;
        run_scan(run, grouped);
        const int64_t tiles = parts(size, VALUES);
        run.launch("add_orders", tiles * scan.batch, grouped.y, scan.out, size, narrow(tiles), K);
        return nullptr;
    }
};

}  // namespace
}  // namespace mamba_vision

extern "C" EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(mamba_vision::API_VERSION);
    if (!api) return nullptr;  // older than 1.18: nothing to tell it with; its sessions will name the operator they miss
    constexpr const char* PROVIDER = "CUDAExecutionProvider";
    static const mamba_vision::Operator<mamba_vision::TokenScan<mamba_vision::Cuda>> scan(api, PROVIDER);
    static const mamba_vision::Operator<mamba_vision::OrderedScanKernel<mamba_vision::Cuda>> ordered(api, PROVIDER);
    static mamba_vision::Domain domain;
    return domain.add_to(options, api, {&scan, &ordered});
}
