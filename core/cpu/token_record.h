// SPDX-License-Identifier: MIT
// The operations of a decoded token, kept ready to run: arguments checked, work cut into tasks,
// nothing but pointers and numbers. Between two operations of a small model the weights that were
// read have driven tensors' views and parameters' fields out of the caches; of what is kept a few
// lines are read, which other threads need not fetch from the one that issues the operation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/backend/backend.h"
#include "core/cpu/read_ahead.h"

namespace bitnet::cpu {

class TokenRecord final : public RecordedOperations {
 public:
  explicit TokenRecord(int threads) : read_ahead_(threads) {}

  ReadAhead& read_ahead() { return read_ahead_; }

  // Backend::repeat(): by the record once there is one. The first time only tells what the products
  // read, on which the way that they read it depends; the second is recorded.
  void run(std::int64_t position, const std::function<void()>& operations) {
    read_ahead_.begin();
    if (state_ == State::complete) {
      for (const std::unique_ptr<Kept>& kept : kept_) kept->run(position);
      return;
    }
    if (state_ == State::seen) state_ = State::recording;
    operations();
    if (state_ == State::recording) state_ = State::complete;
    if (state_ == State::empty) state_ = State::seen;
  }
  // After an exception: what was not kept to its end is recorded another time.
  void abandon() { drop(State::seen); }

  bool recording() const { return state_ == State::recording; }
  // Keeps an operation, whose copy is called with the position of the token from the next time on.
  template <typename Operation>
  void keep(const Operation& operation) {
    kept_.push_back(std::make_unique<KeptOperation<Operation>>(operation));
  }
  // There is an operation that cannot be kept: the sequence is issued anew each time.
  void give_up() { drop(State::never); }

 private:
  enum class State { empty, seen, recording, complete, never };

  void drop(State next) {
    if (state_ != State::recording) return;
    kept_.clear();
    state_ = next;
  }

  struct Kept {
    virtual ~Kept() = default;
    virtual void run(std::int64_t position) = 0;
  };
  template <typename Operation>
  struct alignas(kApart) KeptOperation final : Kept {
    explicit KeptOperation(const Operation& o) : operation(o) {}
    void run(std::int64_t position) override { operation(position); }
    Operation operation;
  };

  ReadAhead read_ahead_;
  State state_ = State::empty;
  std::vector<std::unique_ptr<Kept>> kept_;
};

}  // namespace bitnet::cpu
