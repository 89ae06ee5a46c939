// What a scenario looks like: sizes, options, unit types; and the units of a battle.
#pragma once
#include <cstdint>
#include <vector>

namespace kpg::smac {

// Names and meanings are those of smac and smacv2; `v2` says whose quirks apply.
struct Layout {
    bool v2;
    int n_agents, n_enemies, n_actions, n_no_attack, obs_size, state_size;
    int type_bits, shield_ally, shield_enemy, limit, step_mul;
    bool healers;  // a map with Medivacs: they heal, and a side with nobody else left has lost
    double move_amount;
    bool obs_all_health, obs_own_health, obs_last_action, obs_pathing_grid, obs_terrain_height, obs_timestep_number;
    bool obs_instead_of_state, state_last_action, state_timestep_number;
    bool reward_sparse, reward_only_positive, reward_scale;
    double reward_death_value, reward_win, reward_defeat, reward_negative_scale, reward_scale_rate;
    bool bootstrap_time_limit;
    bool obs_own_pos, fully_observable, action_mask, observe_types, blank_enemies;
    double prob_obs_enemy;
    int n_fov_actions;  // 0: agents see all around them

    bool conic() const { return n_fov_actions > 0; }
    int enemy_features() const { return 4 + (obs_all_health ? 1 + shield_enemy : 0) + type_bits; }
    int ally_features() const {
        return 4 + (obs_all_health ? 1 + shield_ally : 0) + type_bits + (obs_last_action ? n_actions : 0);
    }
};

struct TypeInfo {
    std::int64_t unit_type;  // an enemy's id in the game; an ally's offset from the first allied id
    int bit;                 // its place in the one-hot, -1 for none
    double max_shield, max_cooldown, sight_range, shoot_range;
    bool heals;
};

// The fields of an observed unit that are read.
struct Unit {
    std::uint64_t tag = 0;
    std::int64_t unit_type = 0;
    std::int64_t owner = 0;
    float x = 0, y = 0, health = 0, health_max = 0, shield = 0, shield_max = 0, energy = 0, cooldown = 0;
    const TypeInfo* type = nullptr;
};

// A map: [x][y], as the libraries index it.
struct Terrain {
    int width = 0, height = 0;
    double max_dx = 1, max_dy = 1;
    std::vector<std::uint8_t> open;
    std::vector<double> elevation;

    bool inside(std::int64_t x, std::int64_t y) const { return x >= 0 && x < width && y >= 0 && y < height; }
    std::size_t at(std::int64_t x, std::int64_t y) const { return static_cast<std::size_t>(x * height + y); }
};

// A row of the batch: where one environment's results go.
struct Row {
    float* obs;
    float* state;
    bool* avail_actions;
    bool* alive;
    float* reward;
    bool* terminated;
    bool* truncated;
    bool* won;
    float* last_obs;
    float* last_state;
};

}  // namespace kpg::smac
