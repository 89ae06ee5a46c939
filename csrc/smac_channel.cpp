// Websocket frames in and out.
#include "smac_channel.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0  // not on every system; the game is for Linux anyway
#endif

namespace kpg::smac {
namespace {

constexpr std::size_t kChunk = 1 << 16;
// An observation of the largest map has some 20 kB; no answer that is waited for here comes near this.
constexpr std::uint64_t kLongestMessage = 1 << 26;
enum Opcode { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

}  // namespace

void Channel::frame(std::uint8_t first, const std::string& payload) {
    out_.push_back(static_cast<char>(first));
    std::uint64_t size = payload.size();
    int wide = size < 126 ? 0 : size < 65536 ? 2 : 8;
    out_.push_back(static_cast<char>(128 | (wide == 0 ? size : wide == 2 ? 126 : 127)));
    for (int i = wide - 1; i >= 0; --i) out_.push_back(static_cast<char>(size >> (8 * i)));
    // The mask keeps web proxies from being fooled by a page's bytes; between two local processes zero will do.
    out_.append(4, '\0');
    out_ += payload;
}

void Channel::flush() {
    while (unsent()) {
        ssize_t count = ::send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) return;
            throw ChannelError(std::string("the game takes no requests: ") + std::strerror(errno));
        }
        sent_ += static_cast<std::size_t>(count);
    }
    out_.clear();
    sent_ = 0;
}

void Channel::fill() {
    while (true) {
        if (begin_ > 0 && in_.size() - end_ < kChunk) {
            std::memmove(in_.data(), in_.data() + begin_, end_ - begin_);
            end_ -= begin_;
            begin_ = 0;
        }
        if (in_.size() - end_ < kChunk) in_.resize(end_ + kChunk);
        ssize_t count = ::recv(fd_, in_.data() + end_, in_.size() - end_, MSG_DONTWAIT);
        if (count == 0) throw ChannelError("the game has closed the connection");
        if (count < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) return;
            throw ChannelError(std::string("the connection broke: ") + std::strerror(errno));
        }
        bool full = static_cast<std::size_t>(count) == in_.size() - end_;
        end_ += static_cast<std::size_t>(count);
        if (!full) return;
    }
}

bool Channel::next(std::string& message) {
    while (true) {
        const std::uint8_t* at = in_.data() + begin_;
        std::size_t left = end_ - begin_;
        if (left < 2) return false;
        if (at[1] & 128) throw ChannelError("the game sent a masked frame");
        std::uint64_t size = at[1] & 127;
        std::size_t head = 2;
        if (size >= 126) {
            std::size_t wide = size == 126 ? 2 : 8;
            if (left < 2 + wide) return false;
            size = 0;
            for (std::size_t i = 0; i < wide; ++i) size = size << 8 | at[2 + i];
            head += wide;
        }
        if (size > kLongestMessage) throw ChannelError("the game announced an impossibly long message");
        if (left < head + size) return false;
        begin_ += head + size;
        int opcode = at[0] & 15;
        const char* payload = reinterpret_cast<const char*>(at + head);
        if (opcode == kClose) throw ChannelError("the game has closed the connection");
        if (opcode == kPing) {
            frame(0x80 | kPong, std::string(payload, size));
            flush();
        } else if (opcode <= kBinary) {
            fragments_.append(payload, size);
            if (fragments_.size() > kLongestMessage) throw ChannelError("the game sent an impossibly long message");
            if (at[0] & 128) {
                message.swap(fragments_);
                fragments_.clear();
                return true;
            }
        } else if (opcode != kPong) {
            throw ChannelError("the game sent an unknown frame");
        }
    }
}

}  // namespace kpg::smac
