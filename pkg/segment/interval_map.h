// A map from disjoint half-open intervals of uint64_t to values: VMAs, the pages behind them, free ranges, cached file
// pages.
#ifndef REDOUBT_PKG_SEGMENT_INTERVAL_MAP_H_
#define REDOUBT_PKG_SEGMENT_INTERVAL_MAP_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "pkg/log/log.h"

namespace redoubt::segment {

// V must be copyable and have
//   V After(uint64_t delta) const;    what the part of a segment from its start + delta on holds
//   bool Continues(const V& previous, uint64_t length) const;   whether this value, right behind a segment of
//   `previous` that
//                                                                is `length` long, may be merged with it
// Not thread-safe. Iterators stay valid except to segments that are erased, split off or merged.
template <typename V>
class IntervalMap final {
 public:
  struct Segment {
    uint64_t end;
    V value;
  };
  using Tree = std::map<uint64_t, Segment>;
  using iterator = typename Tree::iterator;
  using const_iterator = typename Tree::const_iterator;

  iterator begin() { return tree_.begin(); }
  iterator end() { return tree_.end(); }
  const_iterator begin() const { return tree_.begin(); }
  const_iterator end() const { return tree_.end(); }
  bool empty() const { return tree_.empty(); }
  size_t size() const { return tree_.size(); }  // segments

  static uint64_t Start(const_iterator it) { return it->first; }
  static uint64_t End(const_iterator it) { return it->second.end; }
  static uint64_t Length(const_iterator it) { return it->second.end - it->first; }

  // The segment that contains `key`, or end().
  iterator Find(uint64_t key) {
    iterator it = FirstEndingAfter(key);
    return it != end() && it->first <= key ? it : end();
  }
  // The first segment that contains or lies above `key`, or end().
  iterator FirstEndingAfter(uint64_t key) {
    iterator it = tree_.upper_bound(key);
    if (it != begin() && std::prev(it)->second.end > key) --it;
    return it;
  }
  bool Overlaps(uint64_t start, uint64_t stop) {
    iterator it = FirstEndingAfter(start);
    return it != end() && it->first < stop;
  }

  // Adds a segment where none is, and merges it with its neighbours. Returns the segment that contains it.
  iterator Insert(uint64_t start, uint64_t stop, V value) {
    iterator it = InsertAlone(start, stop, std::move(value));
    return MergeAround(it);
  }
  // Adds a segment without merging.
  iterator InsertAlone(uint64_t start, uint64_t stop, V value) {
    CHECK(start < stop && !Overlaps(start, stop), "bad segment");
    return tree_.emplace(start, Segment{stop, std::move(value)}).first;
  }
  // Insert for a segment above all others.
  iterator Append(uint64_t start, uint64_t stop, V value) {
    CHECK(start < stop && (tree_.empty() || std::prev(end())->second.end <= start), "bad segment");
    iterator it = tree_.emplace_hint(end(), start, Segment{stop, std::move(value)});
    if (it == begin()) return it;
    iterator before = std::prev(it);
    return TryMerge(before, it) ? before : it;
  }
  // Makes `key` a border: a segment that contains it becomes two.
  void SplitAt(uint64_t key) {
    iterator it = Find(key);
    if (it == end() || it->first == key) return;
    V upper = it->second.value.After(key - it->first);
    uint64_t stop = std::exchange(it->second.end, key);
    tree_.emplace_hint(std::next(it), key, Segment{stop, std::move(upper)});
  }
  // Makes `start` and `stop` borders; returns the first segment at or above `start`, for loops up to `stop`.
  iterator Isolate(uint64_t start, uint64_t stop) {
    SplitAt(start);
    SplitAt(stop);
    return tree_.lower_bound(start);
  }
  iterator Erase(iterator it) { return tree_.erase(it); }
  // Takes all of [start, stop) out, calling f(start, end, value) for each segment.
  template <typename F>
  void Remove(uint64_t start, uint64_t stop, F&& f) {
    iterator it = Isolate(start, stop);
    while (it != end() && it->first < stop) {
      f(it->first, it->second.end, it->second.value);
      it = tree_.erase(it);
    }
  }
  // Merges the segment with those that touch it, where they allow it.
  iterator MergeAround(iterator it) {
    if (it != begin()) {
      iterator before = std::prev(it);
      if (TryMerge(before, it)) it = before;
    }
    if (iterator after = std::next(it); after != end()) TryMerge(it, after);
    return it;
  }
  // Merges whatever can be within and at the borders of [start, stop): after a change to several segments.
  void MergeRange(uint64_t start, uint64_t stop) {
    iterator it = tree_.lower_bound(start);
    if (it != begin()) --it;
    while (it != end() && it->first < stop) {
      iterator next = std::next(it);
      if (next == end()) return;
      if (!TryMerge(it, next)) it = next;
    }
  }

 private:
  bool TryMerge(iterator a, iterator b) {
    if (a->second.end != b->first || !b->second.value.Continues(a->second.value, Length(a))) return false;
    a->second.end = b->second.end;
    tree_.erase(b);
    return true;
  }

  Tree tree_;
};

}  // namespace redoubt::segment

#endif  // REDOUBT_PKG_SEGMENT_INTERVAL_MAP_H_
