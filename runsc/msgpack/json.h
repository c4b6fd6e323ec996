// JSON values as MessagePack and back. MessagePack and not text: arguments are bytes and need not be UTF-8.
#ifndef REDOUBT_RUNSC_MSGPACK_JSON_H_
#define REDOUBT_RUNSC_MSGPACK_JSON_H_

#include <cstdint>
#include <exception>
#include <expected>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include "runsc/msgpack/msgpack.h"

namespace redoubt::msgpack {

using Json = nlohmann::json;

std::string Pack(const Json& json);

// What `fill(json, value)` makes of the bytes, which a peer may have made up. It may throw, as the library's own
// accessors do. The error is for people.
template <typename T, typename F>
std::expected<T, std::string> Unpack(const std::string& bytes, F&& fill) {
  if (!IsShallow(bytes)) return std::unexpected(std::string("nested too deep"));
  try {
    T value;
    fill(Json::from_msgpack(bytes), value);
    return value;
  } catch (const std::exception& e) {
    return std::unexpected(std::string(e.what()));
  }
}

// One of an enumeration whose values are 0 to `last`; throws Json::out_of_range for another.
template <typename E>
E EnumFrom(const Json& json, E last) {
  const auto value = json.get<uint64_t>();
  if (value > static_cast<std::underlying_type_t<E>>(last)) {
    throw Json::out_of_range::create(401, std::to_string(value) + " is no value that there is", &json);
  }
  return static_cast<E>(value);
}

}  // namespace redoubt::msgpack

#endif  // REDOUBT_RUNSC_MSGPACK_JSON_H_
