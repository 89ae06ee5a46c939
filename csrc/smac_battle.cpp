// A step of one game: orders, what became of the units, the reward, the end.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "smac_game.hpp"

namespace kpg::smac {
namespace {

constexpr int kMove = 16, kAttack = 23, kStop = 4, kHeal = 386;
constexpr int kNoop = 0, kStopAction = 1, kFirstMove = 2, kFirstLook = 6;
constexpr int kLost = -1, kDraw = 0, kWon = 1, kGoesOn = 2;

}  // namespace

std::string Game::refuse(const int* actions) const {
    for (int i = 0; i < layout_.n_agents; ++i) {
        int action = actions[i];
        if (action < 0 || action >= layout_.n_actions || !row_.avail_actions[i * layout_.n_actions + action]) {
            return "agent " + std::to_string(i) + " cannot take action " + std::to_string(action);
        }
    }
    return "";
}

// An order as a RequestAction's `actions` entry; empty where nothing is to be sent.
std::string Game::command(int agent, int action) {
    const Unit& unit = battle_.agents[agent];
    Writer order;
    if (action == kNoop) return "";
    if (action == kStopAction) {
        order.number(field::kAbility, kStop);
    } else if (action < kFirstLook) {
        double x = unit.x, y = unit.y, m = layout_.move_amount;
        int direction = action - kFirstMove;  // north, south, east, west
        if (direction < 2) y += direction == 0 ? m : -m;
        else x += direction == 2 ? m : -m;
        Writer point;
        point.real(1, static_cast<float>(x));
        point.real(2, static_cast<float>(y));
        order.number(field::kAbility, kMove);
        order.message(field::kTargetPos, point.bytes);
    } else if (action < layout_.n_no_attack) {
        battle_.facing[2 * agent] = directions_[2 * (action - kFirstLook)];
        battle_.facing[2 * agent + 1] = directions_[2 * (action - kFirstLook) + 1];
        return "";
    } else {
        bool heals = layout_.healers && unit.type->heals;
        const Unit& target = (heals ? battle_.agents : battle_.enemies)[action - layout_.n_no_attack];
        if (!layout_.action_mask && !features_.can_shoot(battle_, agent, target)) return "";
        order.number(field::kAbility, heals ? kHeal : kAttack);
        order.number(field::kTargetTag, target.tag);
    }
    order.number(field::kUnitTags, unit.tag);
    Writer raw, action_message;
    raw.message(1, order.bytes);
    action_message.message(1, raw.bytes);
    return action_message.bytes;
}

void Game::step(const int* actions, bool hold) {
    stepping_ = true;
    hold_ = hold;
    fought_ = false;
    Writer list, body;
    for (int i = 0; i < layout_.n_agents; ++i) {
        std::string order = command(i, actions[i]);
        if (!order.empty()) list.message(1, order);
        battle_.last_action[i] = actions[i];
    }
    body.message(field::kAction, list.bytes);
    request(body.bytes, Kind::kOther);
    request_step(layout_.step_mul);
    request_observation();
    phase_ = Phase::kStepping;
    send_next();
}

void Game::update_units() {
    auto refresh = [&](std::vector<Unit>& team, std::vector<double>& before) {
        int alive = 0;
        std::size_t guess = 0;
        before.clear();
        for (Unit& unit : team) {
            before.push_back(static_cast<double>(unit.health) + unit.shield);
            std::size_t count = seen_.size(), tried = 0;
            // the game mostly keeps its order, so the next unit is mostly the one looked for
            while (tried < count && seen_[guess].tag != unit.tag) {
                guess = guess + 1 == count ? 0 : guess + 1;
                ++tried;
            }
            if (tried == count) {
                unit.health = 0;  // gone; the rest of what was known of it stays
                continue;
            }
            const TypeInfo* type = unit.type;
            unit = seen_[guess];
            unit.type = type;
            ++alive;
        }
        return alive;
    };
    n_ally_alive_ = refresh(battle_.agents, ally_before_);
    n_enemy_alive_ = refresh(battle_.enemies, enemy_before_);
}

int Game::verdict() const {
    auto fighters = [](const std::vector<Unit>& team, auto&& counts) {
        return std::count_if(team.begin(), team.end(), [&](const Unit& unit) { return unit.health > 0 && counts(unit); });
    };
    bool allies_only_heal = false, enemies_only_heal = false;
    if (layout_.healers) {
        allies_only_heal = fighters(battle_.agents, [](const Unit& unit) { return !unit.type->heals; }) == 0;
        auto fights = fighters(battle_.enemies, [](const Unit& unit) { return !unit.type->heals; });
        // smac wants exactly one Medivac to be left of the enemies, smacv2 nobody but Medivacs
        enemies_only_heal = fights == 0 && (layout_.v2 || n_enemy_alive_ == 1);
    }
    if ((n_ally_alive_ == 0 && n_enemy_alive_ > 0) || allies_only_heal) return kLost;
    if ((n_ally_alive_ > 0 && n_enemy_alive_ == 0) || enemies_only_heal) return kWon;
    return n_ally_alive_ == 0 && n_enemy_alive_ == 0 ? kDraw : kGoesOn;
}

// Damage dealt plus a bonus for each kill; with the other sign and half the weight for the own side unless
// `reward_only_positive`. Regenerated shields count as negative damage, which smac then takes the absolute value of.
double Game::battle_reward() {
    if (layout_.reward_sparse) return 0;
    double delta_ally = 0, delta_deaths = 0, delta_enemy = 0;
    for (int i = 0; i < layout_.n_agents; ++i) {
        if (ally_counted_[i]) continue;
        const Unit& unit = battle_.agents[i];
        if (unit.health == 0) {
            ally_counted_[i] = 1;
            if (!layout_.reward_only_positive) {
                delta_deaths -= layout_.reward_death_value * layout_.reward_negative_scale;
            }
            delta_ally += ally_before_[i] * layout_.reward_negative_scale;
        } else {
            delta_ally += layout_.reward_negative_scale * (ally_before_[i] - unit.health - unit.shield);
        }
    }
    for (int e = 0; e < layout_.n_enemies; ++e) {
        if (enemy_counted_[e]) continue;
        const Unit& unit = battle_.enemies[e];
        if (unit.health == 0) {
            enemy_counted_[e] = 1;
            delta_deaths += layout_.reward_death_value;
            delta_enemy += enemy_before_[e];
        } else {
            delta_enemy += enemy_before_[e] - unit.health - unit.shield;
        }
    }
    if (!layout_.reward_only_positive) return delta_enemy + delta_deaths - delta_ally;
    return layout_.v2 ? std::max(delta_enemy + delta_deaths, 0.0) : std::fabs(delta_enemy + delta_deaths);
}

// smacv2: with the death of an enemy, or of the ally that saw it first, its sighting is forgotten.
void Game::forget_the_dead() {
    int n = layout_.n_agents, m = layout_.n_enemies;
    for (int i = 0; i < n; ++i) {
        if (battle_.agents[i].health != 0) continue;
        for (int e = 0; e < m; ++e) {
            if (battle_.first_seen_by[e] != i) continue;
            battle_.first_seen_by[e] = -1;
            std::fill_n(battle_.may_see.begin() + e * n, n, 0);
            for (int other = 0; other < m; ++other) battle_.may_see[other * n + i] = 0;
        }
    }
    for (int e = 0; e < m; ++e) {
        if (battle_.enemies[e].health != 0) continue;
        battle_.first_seen_by[e] = -1;
        std::fill_n(battle_.may_see.begin() + e * n, n, 0);
    }
}

void Game::finish_step() {
    ++battle_.episode_steps;
    update_units();
    int end = verdict();
    double reward = battle_reward();
    if (layout_.v2) forget_the_dead();
    bool limit = end == kGoesOn && battle_.episode_steps >= layout_.limit;
    if (end == kWon) reward = layout_.reward_sparse ? 1 : reward + layout_.reward_win;
    if (end == kLost) reward = layout_.reward_sparse ? -1 : reward + layout_.reward_defeat;
    if (layout_.reward_scale) reward /= max_reward_ / layout_.reward_scale_rate;
    *row_.reward = static_cast<float>(reward);
    *row_.won = end == kWon;
    *row_.terminated = end != kGoesOn || (limit && !layout_.bootstrap_time_limit);
    *row_.truncated = limit && layout_.bootstrap_time_limit;
}

void Game::look(float* obs, float* state) {
    features_.masks(battle_, row_.avail_actions);
    std::vector<int> order(layout_.n_agents);
    std::iota(order.begin(), order.end(), 0);
    if (layout_.v2) order = shuffles_.permutation(layout_.n_agents);
    features_.observe(battle_, row_.avail_actions, order, draws_, obs);
    if (layout_.obs_instead_of_state) {
        std::copy(obs, obs + layout_.n_agents * layout_.obs_size, state);
    } else {
        features_.state(battle_, state);
    }
    for (int i = 0; i < layout_.n_agents; ++i) row_.alive[i] = battle_.agents[i].health > 0;
}

}  // namespace kpg::smac
