// Which kernels run on this CPU, and the memory and threads they work with.
#include "gemm_prelude.hpp"

#include <omp.h>
#ifdef KPG_AMX_KERNELS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include <pybind11/stl.h>

#include "bindings.hpp"

namespace kpg {
namespace {

struct Candidate {
    const char* name;
    const Kernels* kernels;
    bool supported;
};

#ifdef KPG_AMX_KERNELS
// Whether CPU and kernel have AMX's products of bfloat16 and this process may use the tile registers: Linux gives them
// to whoever asks. See its Documentation/arch/x86/xstate.rst.
bool has_amx() {
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kOsSavesRegisters = 1u << 27, kTileState = 3u << 17;
    constexpr int kRequestState = 0x1023, kTileData = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kOsSavesRegisters)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTile)) return false;
    unsigned saved, high;
    asm("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    return (saved & kTileState) == kTileState && syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
}
#endif

// From the widest to the narrowest.
std::vector<Candidate> candidates() {
    std::vector<Candidate> all;
#ifdef KPG_X86_KERNELS
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#ifdef KPG_AMX_KERNELS
    all.push_back({"amx_bf16", &kernels_amx, avx512 && __builtin_cpu_supports("avx512bf16") && has_amx()});
#endif
    all.push_back({"avx512_bf16", &kernels_avx512_bf16, avx512 && __builtin_cpu_supports("avx512bf16")});
    all.push_back({"avx512", &kernels_avx512, avx512});
    all.push_back({"avx2", &kernels_avx2, avx2});
#endif
    all.push_back({"generic", &kernels_generic, true});
#ifdef KPG_X86_KERNELS
    all.push_back({"amx_emulated", &kernels_amx_emulated, avx512});  // behind what is there always: for tests only
#endif
    return all;
}

Candidate widest() {
    for (const Candidate& c : candidates()) {
        if (c.supported) return c;
    }
    throw std::logic_error("the generic kernels are always there");
}

Candidate chosen = widest();

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Candidate& c : candidates()) {
        if (c.supported) names.push_back(c.name);
    }
    return names;
}

void choose_kernels(const std::string& name) {
    for (const Candidate& c : candidates()) {
        if (name == c.name && c.supported) {
            chosen = c;
            return;
        }
    }
    throw std::invalid_argument("no kernels named " + name + " on this CPU");
}

constexpr double kSerialFlops = 2e6;  // about 20 us on one core, several times what starting a team costs

struct Workspace {
    struct Free {
        void operator()(float* p) const { std::free(p); }
    };
    std::unique_ptr<float, Free> data;
    std::int64_t floats = 0;
};

}  // namespace

const Kernels& kernels() { return *chosen.kernels; }

float* workspace(int slot, std::int64_t floats) {
    thread_local std::array<Workspace, 2> kept;
    Workspace& w = kept.at(slot);
    if (floats > w.floats) {
        w.data.reset();
        std::int64_t bytes = (floats * 4 + 4095) / 4096 * 4096;
        w.data.reset(static_cast<float*>(std::aligned_alloc(4096, bytes)));
        w.floats = w.data ? floats : 0;
        if (!w.data) throw std::bad_alloc();
    }
    return w.data.get();
}

int threads_for(double flops) { return flops < kSerialFlops || omp_in_parallel() ? 1 : omp_get_max_threads(); }

}  // namespace kpg

void bind_gemm(py::module_& m) {
    m.def("kernel_names", &kpg::kernel_names, "Instruction sets with kernels that this CPU supports, widest first; amx_emulated, behind them, is for tests.");
    m.def("chosen_kernels", [] { return std::string(kpg::chosen.name); }, "The instruction set whose kernels run.");
    m.def("choose_kernels", &kpg::choose_kernels, py::arg("name"), "Use the kernels of this instruction set from now on.");
}
