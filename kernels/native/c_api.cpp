// The C functions that Python calls.

#include "selective_scan.hpp"

#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// Threads of this call's own, not a pool: a pool would live beside PyTorch's and be lost in a forked process.
template <class AnyScan>
void run_tasks(const AnyScan& scan, void (*run)(const AnyScan&, int64_t), int64_t threads) {
    const int64_t count = mamba_vision::tasks(scan);
    std::atomic<int64_t> next{0};
    std::exception_ptr error;
    std::atomic<bool> failed{false};
    const auto work = [&] {
        try {
            for (int64_t task; !failed && (task = next++) < count;) run(scan, task);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads && i < count; ++i) {
        try {
            others.emplace_back(work);
        } catch (const std::system_error&) {
            break;  // no more threads to be had: the others do the work
        }
    }
    work();
    for (std::thread& other : others) other.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace

extern "C" {

int64_t mamba_vision_scan_size() { return sizeof(mamba_vision::Scan); }

int64_t mamba_vision_scan_tile() { return mamba_vision::TILE; }

int64_t mamba_vision_scan_parts(int64_t batch, int64_t groups, int64_t channels, int64_t threads, int64_t is_double) {
    return mamba_vision::parts_for(batch, groups, channels, threads, is_double != 0);
}

int64_t mamba_vision_ordered_scan_size() { return sizeof(mamba_vision::OrderedScan); }

// Zero if all went well; memory may run out.
int64_t mamba_vision_ordered_scan_run(const mamba_vision::OrderedScan* scan, int64_t threads) {
    try {
        run_tasks(*scan, mamba_vision::ordered_task, threads);
        return 0;
    } catch (...) {
        return 1;
    }
}

int64_t mamba_vision_scan_run(const mamba_vision::Scan* scan, int64_t backward, int64_t threads) {
    try {
        run_tasks(*scan, backward ? mamba_vision::backward_task : mamba_vision::forward_task, threads);
        return 0;
    } catch (...) {
        return 1;
    }
}
}
