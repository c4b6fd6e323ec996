#include "runsc/msgpack/json.h"

namespace redoubt::msgpack {

std::string Pack(const Json& json) {
  std::string bytes;
  Json::to_msgpack(json, bytes);
  return bytes;
}

}  // namespace redoubt::msgpack
