// SPDX-License-Identifier: MIT
// How the chat models that we know want a conversation to be written. Templates are chosen by name;
// Hugging Face's Jinja programs are not executed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace bitnet {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// "bitnet-2b4t", "llama3", "chatml", "falcon3".
std::vector<std::string> chat_template_names();

struct ChatPrompt {
  // document_start() where the template has it, the messages, and the beginning of the assistant's
  // answer. What a message contains is text: "<|eot_id|>" in it ends nothing.
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> end_tokens;  // of the answer; the tokenizer's own among them
};

// Throws UsageError for a template or a role that there is not, or where the tokenizer lacks a
// token of the template.
ChatPrompt make_chat_prompt(const Tokenizer& tokenizer, std::string_view template_name,
                            std::span<const ChatMessage> messages);

}  // namespace bitnet
