// The arithmetic of one optimiser step on consecutive parameters; level_step.cpp cuts slots into blocks and calls it.
#pragma once
#include <cstdint>

namespace kpg {

enum class Rule { kAdam, kRmsProp, kSgd };

// What is the same for every parameter of a step. Unused numbers are 0.
template <typename T>
struct StepRule {
    Rule rule;
    bool keep_state;             // write the new state; a lookahead level needs theta_k alone
    bool has_momentum;           // RMSProp and SGD
    T step_size;                 // Adam: lr / (1 - beta1^t); else lr
    T decay1, gain1;             // Adam: beta1, 1 - beta1; RMSProp, SGD: momentum, unused
    T decay2, gain2;             // Adam: beta2, 1 - beta2; RMSProp: alpha, 1 - alpha
    T inv_sqrt_correction2;      // Adam: 1 / sqrt(1 - beta2^t)
    T eps;
};

// Slots of one step; `state` in the order of state_names() in kpg_fast/kernels/level_step.
template <typename T>
struct StepSlots {
    const T* theta;
    const T* grad;
    const T* state_in[2];
    T* theta_out;
    T* state_out[2];
};

template <typename T>
struct StepKernels {
    // sum of squares of size numbers, in an order fixed by size alone
    double (*square_sum)(const T* values, std::int64_t size);
    // the step on parameters [begin, end), the gradient multiplied by scale
    void (*step)(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin, std::int64_t end);
};

// The widest version this machine runs; every version gives the same bits. `baseline` asks for the narrowest.
template <typename T>
StepKernels<T> step_kernels(bool baseline);

}  // namespace kpg
