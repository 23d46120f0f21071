// AddedTokens: finds the tokens that stand outside the BPE vocabulary's merges ("<|im_end|>") in a
// text and cuts it there: leftmost first, of those the longest. Time is linear in the text: at
// most kMaxContentBytes steps a byte, in practice one. Immutable.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lamina {

struct AddedToken {
  std::string content;  // what is looked for, and what the token decodes to
  int32_t id = 0;
  bool special = false;     // plain text unless EncodeOptions::parse_special
  bool normalized = false;  // looked for in the normalised text
  bool lstrip = false;      // swallows white space before it
  bool rstrip = false;      // swallows white space behind it
};

class AddedTokens {
 public:
  static constexpr size_t kMaxContentBytes = 1024;
  static constexpr int32_t kNoToken = -1;

  // A piece of text: the token `id`, or plain text where it is kNoToken.
  struct Part {
    std::string_view text;
    int32_t id;
  };

  AddedTokens() : AddedTokens(std::vector<AddedToken>()) {}
  // Empty contents are ignored; of equal contents the first counts. Throws Error kInvalidArgument
  // for a content that is too long.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // No part of plain text is empty. `text` is valid UTF-8 and outlives the result.
  [[nodiscard]] std::vector<Part> split(std::string_view text, bool parse_special) const;

 private:
  void insert(size_t token_idx);
  // The longest token at the start of `text`, or null.
  [[nodiscard]] const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie: (node, byte) -> node, and the token that ends in a node.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> token_of_node_;
  std::array<bool, 256> first_byte_{};
};

}  // namespace lamina
