// The conversation with one game, in the order of requests the libraries use.
#include "smac_game.hpp"

#include <algorithm>

namespace kpg::smac {
namespace {

// smacv2 gives units a thousand observations to appear or go; smac waits for ever
constexpr int kPatience = 1000;
constexpr std::uint32_t kStubLoop = 0xFFFFFFFFu;

std::string point(double x, double y) {
    Writer out;
    out.real(1, static_cast<float>(x));
    out.real(2, static_cast<float>(y));
    return out.bytes;
}

Unit decode_unit(Reader in) {
    Unit unit;
    while (in.next()) {
        switch (in.field) {
            case field::kTag: unit.tag = in.varint(); break;
            case field::kType: unit.unit_type = static_cast<std::int64_t>(in.varint()); break;
            case field::kOwner: unit.owner = static_cast<std::int64_t>(in.varint()); break;
            case field::kHealth: unit.health = in.fixed32(); break;
            case field::kHealthMax: unit.health_max = in.fixed32(); break;
            case field::kShield: unit.shield = in.fixed32(); break;
            case field::kShieldMax: unit.shield_max = in.fixed32(); break;
            case field::kEnergy: unit.energy = in.fixed32(); break;
            case field::kCooldown: unit.cooldown = in.fixed32(); break;
            case field::kPos: {
                Reader pos = in.message();
                while (pos.next()) {
                    if (pos.field == 1) unit.x = pos.fixed32();
                    else if (pos.field == 2) unit.y = pos.fixed32();
                    else pos.skip();
                }
                break;
            }
            default: in.skip();
        }
    }
    return unit;
}

}  // namespace

Game::Game(const Layout& layout, const std::vector<TypeInfo>& ally_types, const std::vector<TypeInfo>& enemy_types,
           const std::vector<double>& directions, Setup setup, Row row)
    : layout_(layout), ally_types_(ally_types), enemy_types_(enemy_types), directions_(directions), channel_(setup.fd),
      pipeline_(setup.pipeline), terrain_(std::move(setup.terrain)), shuffles_(setup.shuffles), draws_(setup.draws),
      row_(row), features_(layout_, terrain_), first_ally_type_(setup.first_ally_type), max_reward_(setup.max_reward) {
    battle_.last_action.assign(layout_.n_agents, -1);
}

void Game::request(const std::string& body, Kind kind) {
    Writer out;
    out.bytes = body;
    out.number(field::kId, next_id_);
    waiting_.push_back({next_id_++, kind, std::move(out.bytes)});
}

void Game::request_step(int count) {
    Writer step, body;
    step.number(1, static_cast<std::uint64_t>(count));
    body.message(field::kStep, step.bytes);
    request(body.bytes, Kind::kOther);
}

void Game::request_observation() {
    Writer body;
    body.message(field::kObservation, "");
    request(body.bytes, Kind::kObservation);
}

// With pipelining every request goes out at once ("keeping the request queue saturated is best for optimal performance",
// s2client-proto, docs/protocol.md); without, each waits for the answer to the one before.
void Game::send_next() {
    for (Waiting& entry : waiting_) {
        if (!entry.frame.empty()) {
            channel_.queue(entry.frame);
            entry.frame.clear();
        }
        if (!pipeline_) break;
    }
    channel_.flush();
}

void Game::answer(const std::string& message) {
    if (waiting_.empty()) throw GameError("the game answered what it was not asked");
    Waiting expected = std::move(waiting_.front());
    waiting_.pop_front();
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(message.data());
    Reader in(bytes, bytes + message.size());
    std::string errors;
    std::uint64_t status = 0;
    bool observed = false;
    while (in.next()) {
        if (in.field == field::kError) {
            errors += (errors.empty() ? "" : "; ") + in.text();
        } else if (in.field == field::kStatus) {
            status = in.varint();
        } else if (in.field == field::kId) {
            if (in.varint() != expected.id) throw GameError("the game answered another request");
        } else if (in.field == field::kObservation && expected.kind == Kind::kObservation) {
            decode_observation(in.message());
            observed = true;
        } else {
            in.skip();
        }
    }
    if (!errors.empty()) throw GameError("the game reports an error: " + errors);
    if (status == 0) throw GameError("the game's answer has no status");
    if (status != kStatusInGame) throw GameError("the game is over (status " + std::to_string(status) + ")");
    if (expected.kind == Kind::kObservation && !observed) throw GameError("the game sent no observation");
}

void Game::decode_observation(Reader message) {
    seen_.clear();
    while (message.next()) {
        if (message.field != field::kInner) {
            message.skip();
            continue;
        }
        Reader inner = message.message();
        while (inner.next()) {
            if (inner.field == field::kLoop) {
                if (inner.varint() == kStubLoop) throw GameError("the game sent an empty observation");
            } else if (inner.field == field::kRaw) {
                Reader raw = inner.message();
                while (raw.next()) {
                    if (raw.field == field::kUnits) seen_.push_back(decode_unit(raw.message()));
                    else raw.skip();
                }
            } else {
                inner.skip();
            }
        }
    }
}

Event Game::advance(bool readable) {
    if (channel_.unsent()) channel_.flush();
    if (!readable) return Event::kNone;
    channel_.fill();
    while (channel_.next(message_)) {
        answer(message_);
        if (!waiting_.empty()) {
            if (!pipeline_) send_next();
            continue;
        }
        Event event = proceed();
        if (event != Event::kNone) return event;
    }
    return Event::kNone;
}

Event Game::proceed() {
    switch (phase_) {
        case Phase::kStepping:
            finish_step();
            fought_ = true;
            if (*row_.terminated || *row_.truncated) {
                look(row_.last_obs, row_.last_state);
                if (hold_) {
                    phase_ = Phase::kIdle;
                    return Event::kEnded;
                }
                begin_episode(false);
                return phase_ == Phase::kNeedsSpawn ? Event::kSpawn : Event::kNone;
            }
            phase_ = Phase::kIdle;
            look(row_.obs, row_.state);
            return Event::kStepped;
        case Phase::kClearing:
            return clear();
        case Phase::kWaitingForUnits:
            if (!take_teams()) {
                if (--patience_ < 0) throw GameError("the units of a new episode did not appear");
                request_step(1);
                request_observation();
                send_next();
                return Event::kNone;
            }
            start_episode();
            phase_ = Phase::kIdle;
            return stepping_ ? Event::kStepped : Event::kReady;
        default:
            throw GameError("the game answered out of turn");
    }
}

void Game::reset() {
    stepping_ = fought_ = false;
    begin_episode(battle_.agents.empty());
}

// v1: killing everybody pulls the map's trigger, which brings both teams back. v2: kill, wait, create.
void Game::begin_episode(bool fresh) {
    patience_ = kPatience;
    std::vector<std::uint64_t> tags;
    if (layout_.v2) {
        for (const Unit& unit : seen_) tags.push_back(unit.tag);
    } else {
        for (const auto* team : {&battle_.agents, &battle_.enemies}) {
            for (const Unit& unit : *team) {
                if (unit.health > 0) tags.push_back(unit.tag);
            }
        }
    }
    if (!fresh) {
        Writer kill, command, body, out;
        for (std::uint64_t tag : tags) kill.number(1, tag);
        command.message(field::kKill, kill.bytes);
        body.message(1, command.bytes);
        out.message(field::kDebug, body.bytes);
        request(out.bytes, Kind::kOther);
        if (!layout_.v2 || !tags.empty()) request_step(2);
    }
    phase_ = layout_.v2 ? Phase::kClearing : Phase::kWaitingForUnits;
    request_observation();
    send_next();
}

Event Game::clear() {
    if (!seen_.empty()) {
        if (--patience_ < 0) throw GameError("the units of the last episode did not go");
        request_step(2);
        request_observation();
        send_next();
        return Event::kNone;
    }
    phase_ = Phase::kNeedsSpawn;
    return Event::kSpawn;
}

void Game::spawn(const Spawn& spawn, std::vector<std::uint8_t> hidden) {
    if (phase_ != Phase::kNeedsSpawn) throw GameError("no units are wanted now");
    battle_.hidden = std::move(hidden);
    for (int owner : {1, 2}) {
        Writer body;
        for (std::size_t i = 0; i < spawn.types.size(); ++i) {
            if (spawn.owners[i] != owner) continue;
            Writer create, command;
            create.number(1, static_cast<std::uint64_t>(spawn.types[i]));
            create.number(2, static_cast<std::uint64_t>(owner));
            create.message(3, point(spawn.positions[2 * i], spawn.positions[2 * i + 1]));
            create.number(4, 1);
            command.message(field::kCreate, create.bytes);
            body.message(1, command.bytes);
        }
        Writer out;
        out.message(field::kDebug, body.bytes);
        request(out.bytes, Kind::kOther);
    }
    request_step(1);
    request_observation();
    phase_ = Phase::kWaitingForUnits;
    patience_ = kPatience;
    send_next();
}

bool Game::take_teams() {
    battle_.agents.clear();
    battle_.enemies.clear();
    for (const Unit& unit : seen_) {
        if (unit.owner == 1) battle_.agents.push_back(unit);
        if (unit.owner == 2) battle_.enemies.push_back(unit);
    }
    return static_cast<int>(battle_.agents.size()) == layout_.n_agents &&
           static_cast<int>(battle_.enemies.size()) == layout_.n_enemies;
}

void Game::start_episode() {
    std::stable_sort(battle_.agents.begin(), battle_.agents.end(), [](const Unit& a, const Unit& b) {
        if (a.unit_type != b.unit_type) return a.unit_type < b.unit_type;
        return a.x != b.x ? a.x < b.x : a.y < b.y;
    });
    if (first_ally_type_ < 0) first_ally_type_ = battle_.agents.front().unit_type;
    for (Unit& unit : battle_.agents) {
        std::int64_t offset = unit.unit_type - first_ally_type_;
        if (offset < 0 || offset >= static_cast<std::int64_t>(ally_types_.size())) {
            throw GameError("an ally has the unknown unit type " + std::to_string(unit.unit_type));
        }
        unit.type = &ally_types_[static_cast<std::size_t>(offset)];
    }
    for (Unit& unit : battle_.enemies) {
        for (const TypeInfo& type : enemy_types_) {
            if (type.unit_type == unit.unit_type) unit.type = &type;
        }
        if (unit.type == nullptr) throw GameError("an enemy has the unknown unit type " + std::to_string(unit.unit_type));
    }
    // The libraries add this up anew whenever they look during a first episode; here a scale, once found, stays.
    if (max_reward_ < 0) {
        max_reward_ = layout_.n_enemies * layout_.reward_death_value + layout_.reward_win;
        for (const Unit& unit : battle_.enemies) max_reward_ += static_cast<double>(unit.health_max) + unit.shield_max;
    }
    int n = layout_.n_agents, m = layout_.n_enemies;
    battle_.last_action.assign(n, -1);
    battle_.episode_steps = 0;
    battle_.first_seen_by.assign(m, -1);
    battle_.may_see.assign(static_cast<std::size_t>(n) * m, 0);
    battle_.facing.assign(2 * static_cast<std::size_t>(n), 0.0);
    for (int i = 0; i < n; ++i) battle_.facing[2 * i] = 1.0;
    ally_counted_.assign(n, 0);
    enemy_counted_.assign(m, 0);
    look(row_.obs, row_.state);
    // smacv2 looks once in reset, and every published runner looks again before the first action; looking counts there
    if (layout_.v2) look(row_.obs, row_.state);
}

}  // namespace kpg::smac
