// One StarCraft II process played through its socket: requests out, answers in, episodes restarted.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "smac_channel.hpp"
#include "smac_features.hpp"
#include "smac_wire.hpp"

namespace kpg::smac {

struct GameError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Event { kNone, kReady, kStepped, kEnded, kSpawn };

// What smacv2 puts on the map at the start of an episode; types are those of the game.
struct Spawn {
    std::vector<std::int64_t> types;
    std::vector<float> positions;  // x, y
    std::vector<int> owners;
};

struct Setup {
    int fd;
    std::int64_t first_ally_type;  // -1: the lowest type among the first episode's allies (v1)
    double max_reward;             // of earlier games of this environment; negative: to be found out
    bool pipeline;
    Terrain terrain;
    Twister shuffles, draws;
};

class Game {
  public:
    Game(const Layout& layout, const std::vector<TypeInfo>& ally_types, const std::vector<TypeInfo>& enemy_types,
         const std::vector<double>& directions, Setup setup, Row row);
    Game(const Game&) = delete;
    Game& operator=(const Game&) = delete;

    int fd() const { return channel_.fd(); }
    bool unsent() const { return channel_.unsent(); }
    double max_reward() const { return max_reward_; }
    bool fought() const { return fought_; }  // the step under way has its results; a new episode is being set up
    std::vector<int> permutation(int n) { return shuffles_.permutation(n); }

    // Begin an episode; ends with kReady (or kSpawn on the way).
    void reset();
    void spawn(const Spawn& spawn, std::vector<std::uint8_t> hidden);
    // Why these actions cannot be taken, or "".
    std::string refuse(const int* actions) const;
    // Begin a step; ends with kStepped, or kEnded where the episode is over and `hold` forbids a new one.
    void step(const int* actions, bool hold);
    // Deal with what the socket has; kNone while there is nothing to report.
    Event advance(bool readable);

  private:
    enum class Phase { kIdle, kStepping, kWaitingForUnits, kClearing, kNeedsSpawn };
    enum class Kind { kOther, kObservation };

    void request(const std::string& body, Kind kind);
    void request_step(int count);
    void request_observation();
    void send_next();
    void answer(const std::string& message);
    void decode_observation(Reader message);
    Event proceed();
    void begin_episode(bool fresh);
    Event clear();
    bool take_teams();
    void start_episode();
    std::string command(int agent, int action);
    void update_units();
    void forget_the_dead();
    void finish_step();
    double battle_reward();
    int verdict() const;
    void look(float* obs, float* state);

    const Layout& layout_;
    const std::vector<TypeInfo>& ally_types_;
    const std::vector<TypeInfo>& enemy_types_;
    const std::vector<double>& directions_;
    Channel channel_;
    bool pipeline_;
    Terrain terrain_;
    Twister shuffles_, draws_;
    Row row_;
    Features features_;

    struct Waiting {
        std::uint32_t id;
        Kind kind;
        std::string frame;  // empty once sent
    };
    std::deque<Waiting> waiting_;
    std::uint32_t next_id_ = 1;
    std::string message_;

    Phase phase_ = Phase::kIdle;
    bool hold_ = false, fought_ = false, stepping_ = false;
    int patience_ = 0;
    std::int64_t first_ally_type_;
    double max_reward_;
    std::vector<Unit> seen_;
    Battle battle_;
    std::vector<double> ally_before_, enemy_before_;  // health + shield before the step
    std::vector<std::uint8_t> ally_counted_, enemy_counted_;
    int n_ally_alive_ = 0, n_enemy_alive_ = 0;
};

}  // namespace kpg::smac
