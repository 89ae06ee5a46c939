// The arithmetic is done in double precision on the game's float32 values and rounded once, as the libraries do it.
#include "smac_features.hpp"

#include <algorithm>
#include <cmath>

namespace kpg::smac {
namespace {

enum Direction { kNorth, kSouth, kEast, kWest };
constexpr int kMoves = 4;
constexpr int kFirstMove = 2;
constexpr double kTiny = 1e-7;  // smacv2's EPS

double away_from_zero(double value, bool positive) {
    return positive ? std::max(value, kTiny) : std::min(value, -kTiny);
}

}  // namespace

// The libraries use math.hypot, which is rounded correctly; so, but for one case in a thousand, is this.
double distance(const Unit& a, const Unit& b) {
    long double dx = static_cast<double>(b.x) - static_cast<double>(a.x);
    long double dy = static_cast<double>(b.y) - static_cast<double>(a.y);
    return static_cast<double>(std::sqrt(dx * dx + dy * dy));
}

bool Features::can_move(const Unit& unit, int direction) const {
    double m = layout_.move_amount / 2, x = unit.x, y = unit.y;
    if (direction == kNorth) y += m;
    if (direction == kSouth) y -= m;
    if (direction == kEast) x += m;
    if (direction == kWest) x -= m;
    auto column = static_cast<std::int64_t>(x), line = static_cast<std::int64_t>(y);
    return terrain_.inside(column, line) && terrain_.open[terrain_.at(column, line)];
}

bool Features::in_cone(const Battle& battle, int agent, const Unit& other, double range) const {
    const Unit& unit = battle.agents[agent];
    if (distance(unit, other) > range) return false;
    double dx = static_cast<double>(other.x) - static_cast<double>(unit.x);
    double dy = static_cast<double>(other.y) - static_cast<double>(unit.y);
    bool ahead = dx > 0;
    double towards = std::atan(dy / away_from_zero(dx, ahead));
    double facing = std::atan(battle.facing[2 * agent + 1] / away_from_zero(battle.facing[2 * agent], ahead));
    return std::fabs(towards - facing) < 2 * M_PI / layout_.n_fov_actions / 2;
}

bool Features::sees(const Battle& battle, int agent, const Unit& other, double d) const {
    double range = battle.agents[agent].type->sight_range;
    return layout_.conic() ? in_cone(battle, agent, other, range) : d < range;
}

bool Features::can_shoot(const Battle& battle, int agent, const Unit& target) const {
    double range = battle.agents[agent].type->shoot_range;
    return layout_.conic() ? in_cone(battle, agent, target, range) : distance(battle.agents[agent], target) <= range;
}

void Features::masks(const Battle& battle, bool* avail) {
    int n = layout_.n_agents, actions = layout_.n_actions, first = layout_.n_no_attack, targets = actions - first;
    shootable_.assign(static_cast<std::size_t>(n) * targets, 0);
    std::fill(avail, avail + n * actions, false);
    for (int i = 0; i < n; ++i, avail += actions) {
        const Unit& unit = battle.agents[i];
        if (unit.health <= 0) {
            avail[0] = true;
            continue;
        }
        avail[1] = true;
        for (int direction = 0; direction < kMoves; ++direction) avail[kFirstMove + direction] = can_move(unit, direction);
        std::fill(avail + kFirstMove + kMoves, avail + first, true);  // looking is always possible
        bool heals = layout_.healers && unit.type->heals;
        const std::vector<Unit>& others = heals ? battle.agents : battle.enemies;
        for (int k = 0; k < static_cast<int>(others.size()); ++k) {
            const Unit& target = others[k];
            if (target.health <= 0 || (heals && target.type->heals)) continue;
            bool reached = can_shoot(battle, i, target);
            shootable_[i * targets + k] = reached;
            avail[first + k] = reached || !layout_.action_mask;
        }
    }
}

float* Features::move_features(const Unit& unit, const bool* avail, float* out) const {
    for (int m = 0; m < kMoves; ++m) *out++ = avail[kFirstMove + m];
    auto x = static_cast<std::int64_t>(unit.x), y = static_cast<std::int64_t>(unit.y);
    auto a = static_cast<std::int64_t>(layout_.move_amount);
    const std::int64_t around[9][2] = {{x, y + 2 * a}, {x, y - 2 * a}, {x + 2 * a, y}, {x - 2 * a, y}, {x + a, y + a},
                                       {x - a, y - a}, {x + a, y - a}, {x - a, y + a}, {x, y}};
    if (layout_.obs_pathing_grid) {
        for (int k = 0; k < 8; ++k) {
            bool in = terrain_.inside(around[k][0], around[k][1]);
            *out++ = in ? terrain_.open[terrain_.at(around[k][0], around[k][1])] : 1;
        }
    }
    if (layout_.obs_terrain_height) {
        for (const auto& [px, py] : around) {
            *out++ = terrain_.inside(px, py) ? static_cast<float>(terrain_.elevation[terrain_.at(px, py)]) : 1;
        }
    }
    return out;
}

float* Features::health_features(const Unit& unit, int shield, float* out) const {
    *out++ = static_cast<float>(static_cast<double>(unit.health) / unit.health_max);
    if (shield) *out++ = static_cast<float>(unit.shield / unit.type->max_shield);
    return out;
}

// smacv2: the first agent to see an enemy sees it from then on, each other agent with probability prob_obs_enemy.
bool Features::note_sighting(Battle& battle, int agent, int enemy, bool seen, Twister& draws) const {
    int n = layout_.n_agents;
    if (seen && battle.first_seen_by[enemy] < 0) {
        battle.first_seen_by[enemy] = agent;
        battle.may_see[enemy * n + agent] = 1;
        for (int other = 0; other < n; ++other) {
            if (other != agent && draws.uniform() < layout_.prob_obs_enemy) battle.may_see[enemy * n + other] = 1;
        }
    }
    return battle.may_see[enemy * n + agent];
}

void Features::enemy_features(Battle& battle, int agent, const bool* avail, Twister& draws, float* out) {
    const Unit& unit = battle.agents[agent];
    int width = layout_.enemy_features(), targets = layout_.n_actions - layout_.n_no_attack;
    double range = unit.type->sight_range;
    for (int e = 0; e < layout_.n_enemies; ++e) {
        const Unit& enemy = battle.enemies[e];
        double d = distance(unit, enemy);
        bool visible = sees(battle, agent, enemy, d);
        bool may_see = !layout_.v2 || note_sighting(battle, agent, e, visible, draws);
        visible = visible && may_see;
        if (enemy.health > 0 && (visible || layout_.fully_observable)) {
            float* row = out + e * width;
            // a Medivac's targets are its allies; smac and smacv2 show whether the ally of this index can be healed
            *row++ = layout_.v2 ? shootable_[agent * targets + e] : avail[layout_.n_no_attack + e];
            *row++ = static_cast<float>(d / range);
            *row++ = static_cast<float>((static_cast<double>(enemy.x) - unit.x) / range);
            *row++ = static_cast<float>((static_cast<double>(enemy.y) - unit.y) / range);
            if (battle.hidden.empty() || !battle.hidden[agent * layout_.n_enemies + e]) {
                if (layout_.obs_all_health) row = health_features(enemy, layout_.shield_enemy, row);
                if (layout_.type_bits && enemy.type->bit >= 0) row[enemy.type->bit] = 1;
            }
        }
        // smacv2 wipes the rows of all enemies so far, not just this one's (its issue 50)
        if (!may_see) std::fill(layout_.blank_enemies ? out : out + e * width, out + layout_.n_enemies * width, 0.0f);
    }
}

void Features::ally_features(const Battle& battle, int agent, float* out) const {
    const Unit& unit = battle.agents[agent];
    double range = unit.type->sight_range;
    int width = layout_.ally_features();
    for (int other = 0; other < layout_.n_agents; ++other) {
        if (other == agent) continue;
        const Unit& ally = battle.agents[other];
        double d = distance(unit, ally);
        if (ally.health > 0 && (layout_.fully_observable || sees(battle, agent, ally, d))) {
            float* row = out;
            *row++ = 1;
            *row++ = static_cast<float>(d / range);
            *row++ = static_cast<float>((static_cast<double>(ally.x) - unit.x) / range);
            *row++ = static_cast<float>((static_cast<double>(ally.y) - unit.y) / range);
            if (layout_.obs_all_health) row = health_features(ally, layout_.shield_ally, row);
            if (layout_.type_bits && layout_.observe_types && ally.type->bit >= 0) row[ally.type->bit] = 1;
            row += layout_.type_bits;
            if (layout_.obs_last_action && battle.last_action[other] >= 0) row[battle.last_action[other]] = 1;
        }
        out += width;
    }
}

float* Features::own_features(const Battle& battle, int agent, float* out) const {
    const Unit& unit = battle.agents[agent];
    if (layout_.obs_own_health) out = health_features(unit, layout_.shield_ally, out);
    if (layout_.obs_own_pos) {
        *out++ = static_cast<float>(static_cast<double>(unit.x) / terrain_.width);
        *out++ = static_cast<float>(static_cast<double>(unit.y) / terrain_.height);
    }
    if (layout_.conic()) {
        *out++ = static_cast<float>(battle.facing[2 * agent]);
        *out++ = static_cast<float>(battle.facing[2 * agent + 1]);
    }
    if (layout_.type_bits && unit.type->bit >= 0) out[unit.type->bit] = 1;
    return out + layout_.type_bits;
}

void Features::observe(Battle& battle, const bool* avail, const std::vector<int>& order, Twister& draws, float* obs) {
    std::fill(obs, obs + layout_.n_agents * layout_.obs_size, 0.0f);
    int enemies = layout_.n_enemies * layout_.enemy_features(), allies = (layout_.n_agents - 1) * layout_.ally_features();
    for (int agent : order) {
        float* row = obs + agent * layout_.obs_size;
        if (battle.agents[agent].health > 0) {
            const bool* mask = avail + agent * layout_.n_actions;
            float* at = move_features(battle.agents[agent], mask, row);
            enemy_features(battle, agent, mask, draws, at);
            ally_features(battle, agent, at + enemies);
            own_features(battle, agent, at + enemies + allies);
        }
        if (layout_.obs_timestep_number) {
            row[layout_.obs_size - 1] = static_cast<float>(static_cast<double>(battle.episode_steps) / layout_.limit);
        }
    }
}

void Features::state(const Battle& battle, float* state) const {
    std::fill(state, state + layout_.state_size, 0.0f);
    double center_x = terrain_.width / 2.0, center_y = terrain_.height / 2.0;
    int facing = layout_.conic() ? 2 : 0;
    float* row = state;
    for (int i = 0; i < layout_.n_agents; ++i) {
        const Unit& unit = battle.agents[i];
        if (unit.health > 0) {
            bool heals = layout_.healers && unit.type->heals;
            row[0] = static_cast<float>(static_cast<double>(unit.health) / unit.health_max);
            row[1] = static_cast<float>((heals ? unit.energy : unit.cooldown) / unit.type->max_cooldown);
            row[2] = static_cast<float>((unit.x - center_x) / terrain_.max_dx);
            row[3] = static_cast<float>((unit.y - center_y) / terrain_.max_dy);
            if (layout_.shield_ally) row[4] = static_cast<float>(unit.shield / unit.type->max_shield);
            for (int k = 0; k < facing; ++k) row[4 + layout_.shield_ally + k] = static_cast<float>(battle.facing[2 * i + k]);
            if (layout_.type_bits && unit.type->bit >= 0) row[4 + layout_.shield_ally + facing + unit.type->bit] = 1;
        }
        row += 4 + layout_.shield_ally + facing + layout_.type_bits;
    }
    for (const Unit& enemy : battle.enemies) {
        if (enemy.health > 0) {
            row[0] = static_cast<float>(static_cast<double>(enemy.health) / enemy.health_max);
            row[1] = static_cast<float>((enemy.x - center_x) / terrain_.max_dx);
            row[2] = static_cast<float>((enemy.y - center_y) / terrain_.max_dy);
            if (layout_.shield_enemy) row[3] = static_cast<float>(enemy.shield / enemy.type->max_shield);
            if (layout_.type_bits && enemy.type->bit >= 0) row[3 + layout_.shield_enemy + enemy.type->bit] = 1;
        }
        row += 3 + layout_.shield_enemy + layout_.type_bits;
    }
    if (layout_.state_last_action) {
        for (int i = 0; i < layout_.n_agents; ++i, row += layout_.n_actions) {
            if (battle.last_action[i] >= 0) row[battle.last_action[i]] = 1;
        }
    }
    if (layout_.state_timestep_number) {
        *row = static_cast<float>(static_cast<double>(battle.episode_steps) / layout_.limit);
    }
}

}  // namespace kpg::smac
