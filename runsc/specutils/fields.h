// Private to specutils: typed fields of a JSON document.
#ifndef REDOUBT_RUNSC_SPECUTILS_FIELDS_H_
#define REDOUBT_RUNSC_SPECUTILS_FIELDS_H_

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runsc/specutils/spec.h"

namespace redoubt::specutils {

// Not the one that keeps the order: it looks through all keys for each that is added.
using Json = nlohmann::json;

// Reads typed fields; the first error is kept, with the JSON path it was found at.
class Fields final {
 public:
  explicit Fields(std::string file) : file_(std::move(file)) {}
  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void Fail(const std::string& path, const std::string& what) {
    if (error_.empty()) error_ = OneLine(fmt::format("{}: {}: {}", file_, path, what));
  }

  const Json* Find(const Json& object, const std::string& path, const char* key, bool required, Json::value_t type,
                   const char* type_name) {
    auto it = object.find(key);
    std::string at = path.empty() ? key : path + "." + key;
    if (it == object.end() || it->is_null()) {
      if (required) Fail(at, "missing");
      return nullptr;
    }
    bool number = type == Json::value_t::number_unsigned && it->is_number_integer();
    if (number && it->is_number_integer() && !it->is_number_unsigned()) {
      Fail(at, "must not be negative");
      return nullptr;
    }
    if (it->type() != type && !number) {
      Fail(at, fmt::format("must be {}, is {}", type_name, it->type_name()));
      return nullptr;
    }
    return &*it;
  }
  const Json* Object(const Json& o, const std::string& path, const char* key, bool required) {
    return Find(o, path, key, required, Json::value_t::object, "an object");
  }
  const Json* Array(const Json& o, const std::string& path, const char* key, bool required) {
    return Find(o, path, key, required, Json::value_t::array, "an array");
  }
  void String(const Json& o, const std::string& path, const char* key, bool required, std::string* out) {
    const Json* v = Find(o, path, key, required, Json::value_t::string, "a string");
    if (v != nullptr) Text(*v, path.empty() ? key : path + "." + key, out);
  }
  void Bool(const Json& o, const std::string& path, const char* key, bool* out) {
    if (const Json* v = Find(o, path, key, false, Json::value_t::boolean, "a boolean")) *out = v->get<bool>();
  }
  template <typename T>
  void Number(const Json& o, const std::string& path, const char* key, bool required, T* out) {
    const Json* v = Find(o, path, key, required, Json::value_t::number_unsigned, "a number");
    if (v == nullptr) return;
    uint64_t n = v->get<uint64_t>();
    if (n > std::numeric_limits<T>::max()) {
      Fail(path.empty() ? key : path + "." + key, fmt::format("{} is too large", n));
      return;
    }
    *out = static_cast<T>(n);
  }
  template <typename T>
  void Optional(const Json& o, const std::string& path, const char* key, std::optional<T>* out) {
    auto it = o.find(key);
    if (it == o.end() || it->is_null()) return;
    Number(o, path, key, false, &out->emplace());
  }
  // Of a number or an optional one: the number's type.
  template <typename T>
  struct Plain {
    using Type = T;
  };
  template <typename T>
  struct Plain<std::optional<T>> {
    using Type = T;
  };
  template <typename T>
  using Value = typename Plain<T>::Type;
  template <typename T>
  void Signed(const Json& o, const std::string& path, const char* key, T* out) {
    auto it = o.find(key);
    if (it == o.end() || it->is_null()) return;
    if (!it->is_number_integer()) {
      Fail(path.empty() ? key : path + "." + key, fmt::format("must be a whole number, is {}", it->type_name()));
      return;
    }
    int64_t value = it->get<int64_t>();
    // Larger than any limit: none.
    if (it->is_number_unsigned() && it->get<uint64_t>() > INT64_MAX) value = INT64_MAX;
    if (!std::in_range<Value<T>>(value)) {
      Fail(path.empty() ? key : path + "." + key, fmt::format("{} is out of range", value));
      return;
    }
    *out = static_cast<Value<T>>(value);
  }
  void StringMap(const Json& o, const std::string& path, const char* key, std::map<std::string, std::string>* out) {
    const Json* map = Object(o, path, key, false);
    if (map == nullptr) return;
    std::string at = path.empty() ? key : path + "." + key;
    for (auto& [name, value] : map->items()) {
      if (name.find('\0') != std::string::npos) return Fail(at, "a name has a NUL byte");
      if (!Text(value, fmt::format("{}.{}", at, name), &(*out)[name])) return;
    }
  }
  void Strings(const Json& o, const std::string& path, const char* key, bool required, std::vector<std::string>* out) {
    const Json* a = Array(o, path, key, required);
    if (a == nullptr) return;
    for (size_t i = 0; i < a->size(); i++) {
      if (!Text((*a)[i], fmt::format("{}.{}[{}]", path, key, i), &out->emplace_back())) return;
    }
  }

 private:
  // Everything is C strings in the end.
  bool Text(const Json& value, const std::string& path, std::string* out) {
    if (!value.is_string()) {
      Fail(path, "must be a string");
      return false;
    }
    *out = value.get<std::string>();
    if (out->find('\0') == std::string::npos) return true;
    Fail(path, "has a NUL byte");
    return false;
  }

  const std::string file_;
  std::string error_;
};

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_FIELDS_H_
