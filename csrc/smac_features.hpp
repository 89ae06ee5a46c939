// Observations, states and action masks of one battle, as smac and smacv2 define them.
#pragma once
#include <vector>

#include "smac_layout.hpp"
#include "smac_random.hpp"

namespace kpg::smac {

// A battle as its agents see it. Allies are in the order they were spawned in: by type, then x, then y.
struct Battle {
    std::vector<Unit> agents, enemies;
    std::vector<int> last_action;       // -1 before the first action
    int episode_steps = 0;
    // smacv2: which agent first saw an enemy, and who may see it from then on
    std::vector<int> first_seen_by;           // [n_enemies], -1: nobody
    std::vector<std::uint8_t> may_see;        // [n_enemies, n_agents]
    std::vector<std::uint8_t> hidden;         // [n_agents, n_enemies], a team's enemy mask; empty: none
    std::vector<double> facing;               // [n_agents, 2], a conic field of view
};

// What is computed from a battle on the way; reused from step to step.
class Features {
  public:
    Features(const Layout& layout, const Terrain& terrain) : layout_(layout), terrain_(terrain) {}

    // Action masks [n_agents, n_actions]; observations need them first.
    void masks(const Battle& battle, bool* avail);
    bool can_shoot(const Battle& battle, int agent, const Unit& target) const;
    // Observations [n_agents, obs_size] for agents in `order`. In smacv2 looking changes what others may see.
    void observe(Battle& battle, const bool* avail, const std::vector<int>& order, Twister& draws, float* obs);
    void state(const Battle& battle, float* state) const;

  private:
    bool can_move(const Unit& unit, int direction) const;
    bool sees(const Battle& battle, int agent, const Unit& other, double distance) const;
    bool in_cone(const Battle& battle, int agent, const Unit& other, double range) const;
    float* move_features(const Unit& unit, const bool* avail, float* out) const;
    void enemy_features(Battle& battle, int agent, const bool* avail, Twister& draws, float* out);
    void ally_features(const Battle& battle, int agent, float* out) const;
    float* own_features(const Battle& battle, int agent, float* out) const;
    float* health_features(const Unit& unit, int shield, float* out) const;
    bool note_sighting(Battle& battle, int agent, int enemy, bool seen, Twister& draws) const;

    const Layout& layout_;
    const Terrain& terrain_;
    std::vector<std::uint8_t> shootable_;  // [n_agents, n_actions - n_no_attack], whatever the action mask says
};

double distance(const Unit& a, const Unit& b);

}  // namespace kpg::smac
