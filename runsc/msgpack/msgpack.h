// MessagePack from a peer that is not trusted.
#ifndef REDOUBT_RUNSC_MSGPACK_MSGPACK_H_
#define REDOUBT_RUNSC_MSGPACK_MSGPACK_H_

#include <string>

namespace redoubt::msgpack {

// Arrays and maps in one another; what our messages have is 5.
inline constexpr int kMaxDepth = 16;

// Whether the library's parser may be let at `bytes`: it calls itself for each array in an array, so that a few
// thousand bytes of nothing but beginnings would use up a fiber's stack. Says nothing of whether they are well formed.
bool IsShallow(const std::string& bytes);

}  // namespace redoubt::msgpack

#endif  // REDOUBT_RUNSC_MSGPACK_MSGPACK_H_
