// SPDX-License-Identifier: MIT
#include "core/tokenizer/chat_template.h"

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/tokenizer/small_bpe.h"

using namespace bitnet;

namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> chat_tokenizer() {
  BpeData data = test::small_bpe({"h e", "l l", "he ll", "hell o", "Ġ hello"},
                                 {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                  "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>",
                                  "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"});
  return make_bpe_tokenizer(data, "test");
}

const std::vector<ChatMessage> kTalk = {{"system", " Be brief. \n"},
                                        {"user", "hello <|eot_id|>"},
                                        {"assistant", "hello"},
                                        {"user", "\tWhy?"}};

std::string rendered(const char* name) {
  const auto tokenizer = chat_tokenizer();
  std::string text;
  for (const std::int32_t id : make_chat_prompt(*tokenizer, name, kTalk).tokens) {
    const bool special = tokenizer->token_bytes(id).empty();
    text += special ? fmt::format("[{}]", tokenizer->token_name(id)) : tokenizer->token_bytes(id);
  }
  return text;
}

}  // namespace

TEST_CASE("chat templates write what the models were trained on", "[tokenizer]") {
  CHECK(rendered("bitnet-2b4t") ==
        "[<|begin_of_text|>]System: Be brief.[<|eot_id|>]User: hello <|eot_id|>[<|eot_id|>]"
        "Assistant: hello[<|eot_id|>]User: Why?[<|eot_id|>]Assistant: ");
  CHECK(rendered("llama3") ==
        "[<|begin_of_text|>][<|start_header_id|>]system[<|end_header_id|>]\n\nBe brief.[<|eot_id|>]"
        "[<|start_header_id|>]user[<|end_header_id|>]\n\nhello <|eot_id|>[<|eot_id|>]"
        "[<|start_header_id|>]assistant[<|end_header_id|>]\n\nhello[<|eot_id|>]"
        "[<|start_header_id|>]user[<|end_header_id|>]\n\nWhy?[<|eot_id|>]"
        "[<|start_header_id|>]assistant[<|end_header_id|>]\n\n");
  CHECK(rendered("chatml") ==
        "[<|im_start|>]system\n Be brief. \n[<|im_end|>]\n[<|im_start|>]user\nhello <|eot_id|>"
        "[<|im_end|>]\n[<|im_start|>]assistant\nhello[<|im_end|>]\n[<|im_start|>]user\n\tWhy?"
        "[<|im_end|>]\n[<|im_start|>]assistant\n");
  CHECK(rendered("falcon3") ==
        "[<|system|>]\n Be brief. \n\n[<|user|>]\nhello <|eot_id|>\n[<|assistant|>]\nhello\n"
        "[<|user|>]\n\tWhy?\n[<|assistant|>]\n");
  CHECK(chat_template_names() ==
        std::vector<std::string>{"bitnet-2b4t", "llama3", "chatml", "falcon3"});
}

TEST_CASE("words reach from a template into a message, as they do in its text", "[tokenizer]") {
  const auto tokenizer = chat_tokenizer();
  const std::vector<ChatMessage> messages = {{"user", "hello"}};
  Ids expected = {*tokenizer->document_start()};
  for (const char* text : {"User: hello<|eot_id|>", "Assistant: "}) {
    const Ids ids = tokenizer->encode(text, Tokenizer::SpecialTokens::as_tokens);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  CHECK(make_chat_prompt(*tokenizer, "bitnet-2b4t", messages).tokens == expected);
  CHECK(std::count(expected.begin(), expected.end(), 260) == 1);  // " hello"
}

TEST_CASE("the tokens that end an answer are the template's and the tokenizer's", "[tokenizer]") {
  const auto tokenizer = chat_tokenizer();
  const std::int32_t eot = *tokenizer->find_token("<|eot_id|>");
  const std::int32_t end = *tokenizer->find_token("<|end_of_text|>");
  CHECK(make_chat_prompt(*tokenizer, "llama3", kTalk).end_tokens == Ids{eot, end});
  CHECK(make_chat_prompt(*tokenizer, "chatml", kTalk).end_tokens ==
        Ids{*tokenizer->find_token("<|im_end|>"), *tokenizer->find_token("<|endoftext|>"), end});
}

TEST_CASE("a template, a role or a token that there is not is named", "[tokenizer]") {
  const auto tokenizer = chat_tokenizer();
  CHECK_THROWS_WITH(make_chat_prompt(*tokenizer, "vicuna", kTalk), Catch::Contains("chatml"));
  CHECK_THROWS_WITH(make_chat_prompt(*tokenizer, "llama3", std::vector<ChatMessage>{{"tool", "x"}}),
                    Catch::Contains("'tool'"));
  CHECK_THROWS_WITH(make_chat_prompt(*byte_tokenizer(), "chatml", kTalk),
                    Catch::Contains("<|im_start|>"));
}
