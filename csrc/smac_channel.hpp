// A websocket (RFC 6455) on a non-blocking socket, from the client's side, after the handshake.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace kpg::smac {

struct ChannelError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Whoever opened the socket closes it.
class Channel {
  public:
    explicit Channel(int fd) : fd_(fd) {}

    int fd() const { return fd_; }
    // Queue a binary message; flush sends what the socket takes, and what is left waits for the next flush.
    void queue(const std::string& message) { frame(0x82, message); }
    void flush();
    bool unsent() const { return sent_ < out_.size(); }
    // Take what has arrived. Throws ChannelError where the other side is gone.
    void fill();
    // The next whole message, or false. Valid until the next call.
    bool next(std::string& message);

  private:
    void frame(std::uint8_t first, const std::string& payload);

    int fd_;
    std::string out_;
    std::size_t sent_ = 0;
    std::vector<std::uint8_t> in_;
    std::size_t begin_ = 0, end_ = 0;
    std::string fragments_;
};

}  // namespace kpg::smac
