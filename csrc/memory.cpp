// Memory for results, kept when it is given back: the kernel hands out fresh pages one fault at a time, and writing to
// 40 MB of them takes as long as the GRU whose gates they hold.
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include <pybind11/stl.h>

#include "store_array.hpp"

namespace kpg {
namespace {

constexpr std::int64_t kUnit = 64 << 10;
constexpr std::int64_t kHugePage = 2 << 20;

class Pool {
  public:
    struct Block {
        std::uint8_t* data;
        std::int64_t nbytes;
    };

    // The smallest block that fits and wastes no more than an eighth, else a new one.
    Block take(std::int64_t nbytes) {
        const std::int64_t unit = nbytes >= kHugePage ? kHugePage : kUnit;
        if (nbytes > INT64_MAX - unit) throw std::bad_alloc();
        const std::int64_t rounded = (std::max<std::int64_t>(nbytes, 1) + unit - 1) / unit * unit;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            auto found = free_.lower_bound(rounded);
            if (found != free_.end() && found->first <= rounded + rounded / 8) {
                Block block{found->second, found->first};
                free_.erase(found);
                return block;
            }
        }
        auto* data = static_cast<std::uint8_t*>(std::aligned_alloc(unit, rounded));
        if (!data) throw std::bad_alloc();
        if (unit == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
        std::lock_guard<std::mutex> lock(mutex_);
        nbytes_ += rounded;
        return {data, rounded};
    }

    void give_back(Block block) {
        std::lock_guard<std::mutex> lock(mutex_);
        free_.emplace(block.nbytes, block.data);
    }

    void release() {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto& [nbytes, data] : free_) {
            std::free(data);
            nbytes_ -= nbytes;
        }
        free_.clear();
    }

    // Of all blocks, in use or kept.
    std::int64_t nbytes() {
        std::lock_guard<std::mutex> lock(mutex_);
        return nbytes_;
    }

  private:
    std::int64_t nbytes_ = 0;
    std::multimap<std::int64_t, std::uint8_t*> free_;
    std::mutex mutex_;
};

// Never destroyed: an array may outlive the interpreter's teardown of this module.
Pool& pool() {
    static Pool* const only = new Pool;
    return *only;
}

py::array_t<float> take(const std::vector<std::int64_t>& shape) {
    std::int64_t nbytes = sizeof(float);
    for (std::int64_t n : shape) nbytes *= n;
    auto* block = new Pool::Block(pool().take(nbytes));
    py::capsule owner(block, [](void* held) {
        auto* block = static_cast<Pool::Block*>(held);
        pool().give_back(*block);
        delete block;
    });
    return py::array_t<float>(shape, reinterpret_cast<float*>(block->data), owner);
}

}  // namespace
}  // namespace kpg

void bind_memory(py::module_& m) {
    m.def("take_memory", &kpg::take, py::arg("shape"),
          "Uninitialised float32 of this shape; its memory is kept for the next array when this one is gone.");
    m.def("memory_nbytes", [] { return kpg::pool().nbytes(); }, "Bytes that arrays use or that are kept for the next ones.");
    m.def("release_memory", [] { kpg::pool().release(); }, "Give memory that is kept and not in use back to the system.");
}
