// Many StarCraft II games from one process: `SmacGames` steps them and writes their rows into the caller's arrays.
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <tuple>

#include <pybind11/stl.h>

#include "bindings.hpp"
#include "smac_game.hpp"

namespace kpg::smac {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Occurrence = std::tuple<int, std::string, std::string>;  // row, what, why

Layout read_layout(const py::dict& options) {
    Layout layout{};
#define KPG_TAKE(name) layout.name = py::cast<decltype(layout.name)>(options[#name])
    KPG_TAKE(v2), KPG_TAKE(n_agents), KPG_TAKE(n_enemies), KPG_TAKE(n_actions), KPG_TAKE(n_no_attack);
    KPG_TAKE(obs_size), KPG_TAKE(state_size), KPG_TAKE(type_bits), KPG_TAKE(shield_ally), KPG_TAKE(shield_enemy);
    KPG_TAKE(limit), KPG_TAKE(step_mul), KPG_TAKE(healers), KPG_TAKE(move_amount), KPG_TAKE(obs_all_health);
    KPG_TAKE(obs_own_health), KPG_TAKE(obs_last_action), KPG_TAKE(obs_pathing_grid), KPG_TAKE(obs_terrain_height);
    KPG_TAKE(obs_timestep_number), KPG_TAKE(obs_instead_of_state), KPG_TAKE(state_last_action);
    KPG_TAKE(state_timestep_number), KPG_TAKE(reward_sparse), KPG_TAKE(reward_only_positive), KPG_TAKE(reward_scale);
    KPG_TAKE(reward_death_value), KPG_TAKE(reward_win), KPG_TAKE(reward_defeat), KPG_TAKE(reward_negative_scale);
    KPG_TAKE(reward_scale_rate), KPG_TAKE(bootstrap_time_limit), KPG_TAKE(obs_own_pos);
    KPG_TAKE(fully_observable), KPG_TAKE(action_mask), KPG_TAKE(observe_types), KPG_TAKE(blank_enemies);
    KPG_TAKE(prob_obs_enemy), KPG_TAKE(n_fov_actions);
#undef KPG_TAKE
    return layout;
}

std::vector<TypeInfo> read_types(const py::list& rows) {
    std::vector<TypeInfo> types;
    for (const py::handle& entry : rows) {
        auto row = py::cast<py::tuple>(entry);
        types.push_back({py::cast<std::int64_t>(row[0]), py::cast<int>(row[1]), py::cast<double>(row[2]),
                         py::cast<double>(row[3]), py::cast<double>(row[4]), py::cast<double>(row[5]),
                         py::cast<bool>(row[6])});
    }
    return types;
}

// The start of an array that must have this shape; the caller keeps the array alive.
template <typename T>
T* writable(const py::object& arrays, const char* name, std::vector<py::ssize_t> shape) {
    py::object value = arrays.attr(name);
    if (!py::isinstance<Array<T>>(value)) throw py::value_error(std::string(name) + " has another dtype or layout");
    auto array = py::reinterpret_borrow<Array<T>>(value);
    if (!std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) {
        throw py::value_error(std::string(name) + " has another shape");
    }
    return array.mutable_data();
}

template <typename T>
void need(const char* name, const Array<T>& array, std::vector<py::ssize_t> shape) {
    if (!std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) {
        throw py::value_error(std::string(name) + " has another shape");
    }
}

Twister read_twister(const char* name, const Array<std::uint32_t>& state) {
    need(name, state, {625});
    Twister twister;
    twister.load(state.data(), state.data()[624]);
    return twister;
}

class Games {
  public:
    Games(int num_envs, const py::dict& options, const py::list& allies, const py::list& enemies,
          std::vector<double> directions, py::object arrays)
        : layout_(read_layout(options)), ally_types_(read_types(allies)), enemy_types_(read_types(enemies)),
          directions_(std::move(directions)), arrays_(std::move(arrays)) {
        py::ssize_t e = num_envs, n = layout_.n_agents, a = layout_.n_actions, o = layout_.obs_size, s = layout_.state_size;
        Row first{writable<float>(arrays_, "obs", {e, n, o}),        writable<float>(arrays_, "state", {e, s}),
                  writable<bool>(arrays_, "avail_actions", {e, n, a}), writable<bool>(arrays_, "alive", {e, n}),
                  writable<float>(arrays_, "reward", {e}),           writable<bool>(arrays_, "terminated", {e}),
                  writable<bool>(arrays_, "truncated", {e}),         writable<bool>(arrays_, "won", {e}),
                  writable<float>(arrays_, "last_obs", {e, n, o}),   writable<float>(arrays_, "last_state", {e, s})};
        for (py::ssize_t i = 0; i < e; ++i) {
            rows_.push_back({first.obs + i * n * o, first.state + i * s, first.avail_actions + i * n * a,
                             first.alive + i * n, first.reward + i, first.terminated + i, first.truncated + i,
                             first.won + i, first.last_obs + i * n * o, first.last_state + i * s});
        }
        games_.resize(static_cast<std::size_t>(num_envs));
    }

    void attach(int row, int fd, std::int64_t first_ally_type, double max_reward, bool pipeline,
                const Array<std::uint8_t>& open, const Array<double>& elevation, double max_dx, double max_dy,
                const Array<std::uint32_t>& shuffles, const Array<std::uint32_t>& draws) {
        std::unique_ptr<Game>& place = slot(row);
        Terrain terrain;
        if (open.ndim() != 2) throw py::value_error("open has another shape");
        need("elevation", elevation, {open.shape(0), open.shape(1)});
        terrain.width = static_cast<int>(open.shape(0));
        terrain.height = static_cast<int>(open.shape(1));
        terrain.max_dx = max_dx;
        terrain.max_dy = max_dy;
        terrain.open.assign(open.data(), open.data() + open.size());
        terrain.elevation.assign(elevation.data(), elevation.data() + elevation.size());
        Setup setup{fd, first_ally_type, max_reward, pipeline, std::move(terrain), read_twister("shuffles", shuffles),
                    read_twister("draws", draws)};
        place = std::make_unique<Game>(layout_, ally_types_, enemy_types_, directions_, std::move(setup), rows_[row]);
    }

    void detach(int row) { slot(row).reset(); }
    double max_reward(int row) { return game(row).max_reward(); }
    bool fought(int row) { return game(row).fought(); }
    std::vector<int> permutation(int row, int n) { return game(row).permutation(n); }

    Occurrence reset(int row) {
        return guarded(row, [&](Game& game) { game.reset(); });
    }

    Occurrence spawn(int row, std::vector<std::int64_t> types, std::vector<float> positions, std::vector<int> owners,
                     std::vector<std::uint8_t> hidden) {
        std::size_t mask = static_cast<std::size_t>(layout_.n_agents) * layout_.n_enemies;
        if (positions.size() != 2 * types.size() || owners.size() != types.size() ||
            (!hidden.empty() && hidden.size() != mask)) {
            throw py::value_error("a spawn's lists do not fit together");
        }
        Spawn what{std::move(types), std::move(positions), std::move(owners)};
        return guarded(row, [&](Game& game) { game.spawn(what, std::move(hidden)); });
    }

    // Begin a step in each of `rows`; the answer lists the games whose connection failed at once.
    std::vector<Occurrence> step(const std::vector<int>& rows, const Array<std::int32_t>& action,
                                 const Array<bool>& hold) {
        py::ssize_t e = static_cast<py::ssize_t>(rows_.size());
        need("action", action, {e, layout_.n_agents});
        need("hold", hold, {e});
        for (int row : rows) {
            std::string why = game(row).refuse(action.data() + row * layout_.n_agents);
            if (!why.empty()) throw py::value_error("environment " + std::to_string(row) + ": " + why);
        }
        std::vector<Occurrence> failed;
        for (int row : rows) {
            Occurrence result = guarded(row, [&](Game& game) {
                game.step(action.data() + row * layout_.n_agents, hold.data()[row]);
            });
            if (std::get<1>(result) == "failed") failed.push_back(result);
        }
        return failed;
    }

    // What has happened in `rows`: waits up to `timeout` seconds for `minimum` rows to be stepped, or for anything else
    // to happen, or until `wake` can be read.
    std::vector<Occurrence> wait(std::vector<int> rows, int minimum, double timeout, int wake) {
        for (int row : rows) game(row);
        std::vector<Occurrence> happened;
        py::gil_scoped_release release;
        auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout);
        std::vector<pollfd> sockets;
        bool urgent = false;
        while (!urgent && static_cast<int>(happened.size()) < minimum) {
            sockets.clear();
            for (int row : rows) {
                short wanted = static_cast<short>(POLLIN | (games_[row]->unsent() ? POLLOUT : 0));
                sockets.push_back({games_[row]->fd(), wanted, 0});
            }
            sockets.push_back({wake, POLLIN, 0});
            auto left = std::chrono::duration<double, std::milli>(deadline - std::chrono::steady_clock::now()).count();
            int ready = ::poll(sockets.data(), sockets.size(), std::max(0, static_cast<int>(left + 0.999)));
            std::vector<int> open;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                std::size_t before = happened.size();
                if (ready > 0 && sockets[i].revents) advance(rows[i], sockets[i].revents & ~POLLOUT, happened);
                if (happened.size() == before) open.push_back(rows[i]);
                else urgent = urgent || std::get<1>(happened.back()) != "stepped";
            }
            rows.swap(open);
            if ((ready > 0 && sockets.back().revents) || left <= 0) break;
        }
        return happened;
    }

  private:
    void advance(int row, bool readable, std::vector<Occurrence>& happened) {
        static const char* const names[] = {"", "ready", "stepped", "ended", "spawn"};
        try {
            Event event = games_[row]->advance(readable);
            if (event != Event::kNone) happened.emplace_back(row, names[static_cast<int>(event)], "");
        } catch (const std::runtime_error& error) {
            happened.emplace_back(row, "failed", error.what());
        }
    }

    template <typename Action>
    Occurrence guarded(int row, Action&& action) {
        Game& chosen = game(row);
        py::gil_scoped_release release;
        try {
            action(chosen);
        } catch (const std::runtime_error& error) {
            return {row, "failed", error.what()};
        }
        return {row, "", ""};
    }

    std::unique_ptr<Game>& slot(int row) {
        if (row < 0 || row >= static_cast<int>(games_.size())) throw py::index_error("no such environment");
        return games_[row];
    }

    Game& game(int row) {
        if (!slot(row)) throw py::value_error("environment " + std::to_string(row) + " has no game");
        return *games_[row];
    }

    Layout layout_;
    std::vector<TypeInfo> ally_types_, enemy_types_;
    std::vector<double> directions_;
    py::object arrays_;
    std::vector<Row> rows_;
    std::vector<std::unique_ptr<Game>> games_;
};

}  // namespace
}  // namespace kpg::smac

void bind_smac(py::module_& m) {
    using kpg::smac::Games;
    py::class_<Games>(m, "SmacGames", "StarCraft II games played through their sockets (kpg_fast.envs.smac.native)")
        .def(py::init<int, const py::dict&, const py::list&, const py::list&, std::vector<double>, py::object>(),
             py::arg("num_envs"), py::arg("layout"), py::arg("ally_types"), py::arg("enemy_types"), py::arg("directions"),
             py::arg("arrays"))
        .def("attach", &Games::attach, py::arg("row"), py::arg("fd"), py::arg("first_ally_type"), py::arg("max_reward"),
             py::arg("pipeline"), py::arg("open").noconvert(), py::arg("elevation").noconvert(), py::arg("max_dx"),
             py::arg("max_dy"), py::arg("shuffles").noconvert(), py::arg("draws").noconvert())
        .def("detach", &Games::detach, py::arg("row"))
        .def("max_reward", &Games::max_reward, py::arg("row"))
        .def("fought", &Games::fought, py::arg("row"))
        .def("permutation", &Games::permutation, py::arg("row"), py::arg("n"))
        .def("reset", &Games::reset, py::arg("row"))
        .def("spawn", &Games::spawn, py::arg("row"), py::arg("types"), py::arg("positions"), py::arg("owners"),
             py::arg("hidden"))
        .def("step", &Games::step, py::arg("rows"), py::arg("action").noconvert(), py::arg("hold").noconvert())
        .def("wait", &Games::wait, py::arg("rows"), py::arg("minimum"), py::arg("timeout"),
             py::arg("wake"));
}
