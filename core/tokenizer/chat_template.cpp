// SPDX-License-Identifier: MIT
#include "core/tokenizer/chat_template.h"

#include <algorithm>

#include "core/base/error.h"

namespace bitnet {
namespace {

// A prompt while it is written. Text between two special tokens is encoded as a whole: its words
// may reach from the template into a message.
class PromptWriter {
 public:
  PromptWriter(const Tokenizer& tokenizer, std::string_view template_name)
      : tokenizer_(tokenizer), template_name_(template_name) {}

  PromptWriter& text(std::string_view text) {
    text_ += text;
    return *this;
  }

  PromptWriter& special(std::string_view name) {
    end_text();
    tokens_.push_back(id_of(name));
    return *this;
  }

  PromptWriter& document_start() {
    if (const auto start = tokenizer_.document_start()) tokens_.push_back(*start);
    return *this;
  }

  // Ends an answer. `optional` ones may be missing in a vocabulary.
  PromptWriter& ends_with(std::string_view name, bool optional = false) {
    if (!optional || tokenizer_.find_token(name)) add_end(id_of(name));
    return *this;
  }

  ChatPrompt finish() {
    end_text();
    for (const std::int32_t id : tokenizer_.end_tokens()) add_end(id);
    return {std::move(tokens_), std::move(end_tokens_)};
  }

 private:
  void end_text() {
    const std::vector<std::int32_t> ids = tokenizer_.encode(text_);
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    text_.clear();
  }

  void add_end(std::int32_t id) {
    if (std::find(end_tokens_.begin(), end_tokens_.end(), id) == end_tokens_.end())
      end_tokens_.push_back(id);
  }

  std::int32_t id_of(std::string_view name) const {
    if (const auto id = tokenizer_.find_token(name)) return *id;
    throw UsageError(
        fmt::format("chat template {} needs the token {}, which this model's tokenizer "
                    "({}) does not have",
                    template_name_, name, tokenizer_.description()));
  }

  const Tokenizer& tokenizer_;
  std::string_view template_name_;
  std::string text_;
  std::vector<std::int32_t> tokens_, end_tokens_;
};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kWhiteSpace = " \t\n\r\v\f";
  const std::size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

using Messages = std::span<const ChatMessage>;

// "User: …<|eot_id|>Assistant: ", as in the model's tokenizer_config.json. (The official GGUF file
// says "Human: …\n\nBITNETAssistant: ", a mistake of its converter.)
void write_bitnet_2b4t(PromptWriter& prompt, Messages messages) {
  prompt.document_start();
  for (const ChatMessage& message : messages) {
    std::string role = message.role;
    role[0] = static_cast<char>(role[0] - 'a' + 'A');
    prompt.text(role).text(": ").text(trimmed(message.content)).special("<|eot_id|>");
  }
  prompt.text("Assistant: ").ends_with("<|eot_id|>").ends_with("<|end_of_text|>");
}

void write_llama3(PromptWriter& prompt, Messages messages) {
  const auto header = [&](std::string_view role) {
    prompt.special("<|start_header_id|>").text(role).special("<|end_header_id|>").text("\n\n");
  };
  prompt.document_start();
  for (const ChatMessage& message : messages) {
    header(message.role);
    prompt.text(trimmed(message.content)).special("<|eot_id|>");
  }
  header("assistant");
  prompt.ends_with("<|eot_id|>").ends_with("<|end_of_text|>").ends_with("<|eom_id|>", true);
}

void write_chatml(PromptWriter& prompt, Messages messages) {
  for (const ChatMessage& message : messages)
    prompt.special("<|im_start|>")
        .text(message.role)
        .text("\n")
        .text(message.content)
        .special("<|im_end|>")
        .text("\n");
  prompt.special("<|im_start|>").text("assistant\n");
  prompt.ends_with("<|im_end|>").ends_with("<|endoftext|>", true);
}

// As llama.cpp writes it (src/llama-chat.cpp, "falcon3").
void write_falcon3(PromptWriter& prompt, Messages messages) {
  for (const ChatMessage& message : messages)
    prompt.special(fmt::format("<|{}|>", message.role)).text("\n").text(message.content).text("\n");
  prompt.special("<|assistant|>").text("\n").ends_with("<|endoftext|>", true);
}

struct ChatTemplate {
  std::string_view name;
  void (*write)(PromptWriter&, Messages);
};

constexpr ChatTemplate kTemplates[] = {{"bitnet-2b4t", write_bitnet_2b4t},
                                       {"llama3", write_llama3},
                                       {"chatml", write_chatml},
                                       {"falcon3", write_falcon3}};

void check_roles(Messages messages) {
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant")
      throw UsageError(fmt::format(
          "there is no role '{}'; the roles are system, user and assistant", message.role));
  }
}

}  // namespace

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const ChatTemplate& known : kTemplates) names.emplace_back(known.name);
  return names;
}

ChatPrompt make_chat_prompt(const Tokenizer& tokenizer, std::string_view template_name,
                            Messages messages) {
  check_roles(messages);
  for (const ChatTemplate& known : kTemplates) {
    if (known.name != template_name) continue;
    PromptWriter prompt(tokenizer, template_name);
    known.write(prompt, messages);
    return prompt.finish();
  }
  throw UsageError(fmt::format("there is no chat template '{}'; there are {}", template_name,
                               fmt::join(chat_template_names(), ", ")));
}

}  // namespace bitnet
