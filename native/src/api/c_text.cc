// c_api.h: tokenizers, stream decoders, text made safe for a terminal.
#include "api/c_support.h"

namespace {

using edge::capi::check_buffer;
using edge::capi::check_flags;
using edge::capi::guarded;
using edge::capi::input;
using edge::capi::required;
using edge::capi::text_input;
using edge::capi::write_out;
using edge::capi::write_text;

constexpr uint32_t kSpecial = EDGELLM_TEXT_SPECIAL;
constexpr uint32_t kBos = EDGELLM_TEXT_BOS;

}  // namespace

edgellm_status edgellm_tokenizer_create(const void* blob, size_t n_blob_bytes,
                                        edgellm_tokenizer** tokenizer) {
  return guarded([&] {
    required(tokenizer, "tokenizer");
    const std::string_view bytes = text_input(static_cast<const char*>(blob), n_blob_bytes, "blob");
    *tokenizer = new edgellm_tokenizer{edgellm::Tokenizer::from_blob(std::string(bytes))};
  });
}

edgellm_status edgellm_tokenizer_n_vocab(const edgellm_tokenizer* tokenizer, int32_t* n_vocab) {
  return guarded([&] {
    required(n_vocab, "n_vocab");
    *n_vocab = required(tokenizer, "tokenizer").tokenizer.n_vocab();
  });
}

edgellm_status edgellm_tokenizer_encode(const edgellm_tokenizer* tokenizer, const char* text,
                                        size_t n_text_bytes, uint32_t flags, int32_t* ids,
                                        size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(ids, capacity, n_needed);
    check_flags(flags, kSpecial | kBos);
    const std::vector<int32_t> found =
        required(tokenizer, "tokenizer")
            .tokenizer.encode(text_input(text, n_text_bytes, "text"), (flags & kSpecial) != 0,
                              (flags & kBos) != 0);
    write_out(std::span(found), ids, capacity, n_needed);
  });
}

edgellm_status edgellm_tokenizer_decode(const edgellm_tokenizer* tokenizer, const int32_t* ids,
                                        size_t n_ids, uint32_t flags, char* buffer, size_t capacity,
                                        size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    check_flags(flags, kSpecial);
    const std::string text =
        required(tokenizer, "tokenizer")
            .tokenizer.decode(input(ids, n_ids, "ids"), (flags & kSpecial) != 0);
    write_text(text, buffer, capacity, n_needed);
  });
}

edgellm_status edgellm_tokenizer_token_text(const edgellm_tokenizer* tokenizer, int32_t id,
                                            char* buffer, size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    const std::string text = required(tokenizer, "tokenizer").tokenizer.token_text(id);
    write_text(text, buffer, capacity, n_needed);
  });
}

edgellm_status edgellm_tokenizer_is_special(const edgellm_tokenizer* tokenizer, int32_t id,
                                            int32_t* is_special) {
  return guarded([&] {
    required(is_special, "is_special");
    const edgellm::Tokenizer& from = required(tokenizer, "tokenizer").tokenizer;
    if (id < 0 || id >= from.n_vocab()) {
      edge::api::raise(edge::Code::kTokenOutOfRange, "token " + std::to_string(id) +
                                                         " is not in the vocabulary of " +
                                                         std::to_string(from.n_vocab()));
    }
    *is_special = from.is_special(id) ? 1 : 0;
  });
}

void edgellm_tokenizer_free(edgellm_tokenizer* tokenizer) { delete tokenizer; }

edgellm_status edgellm_stream_decoder_create(const edgellm_tokenizer* tokenizer, uint32_t flags,
                                             edgellm_stream_decoder** decoder) {
  return guarded([&] {
    required(decoder, "decoder");
    check_flags(flags, kSpecial);
    edgellm::StreamDecoder made(required(tokenizer, "tokenizer").tokenizer,
                                (flags & kSpecial) != 0);
    *decoder = new edgellm_stream_decoder{.mutex = {}, .decoder = std::move(made), .text = {}};
  });
}

edgellm_status edgellm_stream_decoder_push(edgellm_stream_decoder* decoder, int32_t id) {
  return guarded([&] {
    edgellm_stream_decoder& to = required(decoder, "decoder");
    const std::lock_guard lock(to.mutex);
    to.text += to.decoder.push(id);
  });
}

edgellm_status edgellm_stream_decoder_flush(edgellm_stream_decoder* decoder) {
  return guarded([&] {
    edgellm_stream_decoder& to = required(decoder, "decoder");
    const std::lock_guard lock(to.mutex);
    to.text += to.decoder.flush();
  });
}

edgellm_status edgellm_stream_decoder_take(edgellm_stream_decoder* decoder, char* buffer,
                                           size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    edgellm_stream_decoder& from = required(decoder, "decoder");
    const std::lock_guard lock(from.mutex);
    if (write_text(from.text, buffer, capacity, n_needed)) from.text.clear();
  });
}

void edgellm_stream_decoder_free(edgellm_stream_decoder* decoder) { delete decoder; }

edgellm_status edgellm_sanitize(const char* text, size_t n_text_bytes, char* buffer,
                                size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    write_text(edgellm::sanitize(text_input(text, n_text_bytes, "text")), buffer, capacity,
               n_needed);
  });
}
