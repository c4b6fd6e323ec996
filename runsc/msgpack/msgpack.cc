#include "runsc/msgpack/msgpack.h"

#include <nlohmann/json.hpp>

namespace redoubt::msgpack {
namespace {

using Json = nlohmann::json;

// Follows a parse and ends it where it gets too deep.
class DepthMeter final : public nlohmann::json_sax<Json> {
 public:
  bool too_deep() const { return too_deep_; }

  bool start_object(size_t) override { return Enter(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool Enter() {
    if (++depth_ > kMaxDepth) too_deep_ = true;
    return !too_deep_;
  }
  bool Leave() {
    depth_--;
    return true;
  }

  int depth_ = 0;
  bool too_deep_ = false;
};

}  // namespace

bool IsShallow(const std::string& bytes) {
  DepthMeter meter;
  Json::sax_parse(bytes, &meter, nlohmann::json::input_format_t::msgpack);
  return !meter.too_deep();
}

}  // namespace redoubt::msgpack
