#include "worker/remote_attention.h"

#include <fmt/format.h>

#include <array>

#include "base/check.h"
#include "wire/slots.h"
#include "worker/packing.h"
#include "worker/plan_translation.h"

namespace lamina {

using wire::MessageKind;

namespace {

constexpr Duration kPollOthersInterval = std::chrono::milliseconds(2);

}  // namespace

RemoteAttention::RemoteAttention(const RemoteAttentionConfig& config,
                                 std::vector<AttentionPeer> peers)
    : config_(config), peers_(std::move(peers)), wire_stats_(peers_.size()) {
  int32_t next_head = 0;
  for (const AttentionPeer& peer : peers_) {
    LAMINA_CHECK_EQ(peer.kv_heads.begin, next_head);
    next_head = peer.kv_heads.end;
  }
  LAMINA_CHECK_EQ(next_head, config_.num_kv_heads);
}

Status RemoteAttention::begin_step(const StepPlan& plan) {
  to_attention_plan(plan, ++step_, plan_);
  num_tokens_ = plan_.num_tokens();
  encoded_plan_.resize(wire::encoded_bytes(plan_));
  wire::encode_plan(plan_, config_.epoch, encoded_plan_);
  const auto layers = static_cast<uint32_t>(config_.num_layers);
  for (size_t i = 0; i < peers_.size(); ++i) {
    wire_stats_[i].bytes_sent += encoded_plan_.size();
    const Status sent = peers_[i].endpoint->put(wire::slot_of(MessageKind::kPlan, 0),
                                                encoded_plan_,
                                                wire::sequence_number(step_, 0, layers));
    if (!sent.ok()) return about(i, sent);
  }
  return {};
}

Status RemoteAttention::send_q(int32_t attention_idx, TensorView q) {
  for (size_t i = 0; i < peers_.size(); ++i) {
    const HeadRange heads = query_heads(peers_[i]);
    const TensorView part = q.columns(heads.begin, heads.count());
    LAMINA_RETURN_IF_ERROR(send_tensors(i, MessageKind::kQ, attention_idx, std::span(&part, 1)));
  }
  return {};
}

Status RemoteAttention::send_kv(int32_t attention_idx, TensorView k, TensorView v) {
  for (size_t i = 0; i < peers_.size(); ++i) {
    const HeadRange heads = peers_[i].kv_heads;
    const std::array<TensorView, 2> parts = {k.columns(heads.begin, heads.count()),
                                             v.columns(heads.begin, heads.count())};
    LAMINA_RETURN_IF_ERROR(send_tensors(
        i, MessageKind::kKv, attention_idx, std::span(parts).first(config_.latent ? 1 : 2)));
  }
  return {};
}

Status RemoteAttention::receive(int32_t attention_idx, TensorView out) {
  for (size_t i = 0; i < peers_.size(); ++i) {
    const HeadRange heads = query_heads(peers_[i]);
    const Status received = receive_from(i, attention_idx, out.columns(heads.begin, heads.count()));
    if (!received.ok()) return about(i, received);
  }
  return {};
}

void RemoteAttention::abort() {
  for (AttentionPeer& peer : peers_) peer.endpoint->abort();
}

WireStats RemoteAttention::wire_stats_of(std::string_view peer_name) const {
  for (size_t i = 0; i < peers_.size(); ++i) {
    if (peers_[i].name == peer_name) return wire_stats_[i];
  }
  return {};
}

HeadRange RemoteAttention::query_heads(const AttentionPeer& peer) const {
  const int32_t group = config_.num_heads / config_.num_kv_heads;
  return {peer.kv_heads.begin * group, peer.kv_heads.end * group};
}

wire::MessageHeader RemoteAttention::header(MessageKind kind, int32_t layer, int64_t rows) const {
  wire::MessageHeader header;
  header.kind = static_cast<uint16_t>(kind);
  header.epoch = config_.epoch;
  header.step = step_;
  header.layer = static_cast<uint32_t>(layer);
  header.num_rows = static_cast<uint32_t>(rows);
  header.dtype = static_cast<uint16_t>(config_.dtype);
  return header;
}

Status RemoteAttention::send_tensors(size_t peer_idx,
                                     MessageKind kind,
                                     int32_t layer,
                                     std::span<const TensorView> parts) {
  wire::MessageHeader head = header(kind, layer, num_tokens_);
  for (const TensorView& part : parts) head.payload_bytes += part.size_bytes();
  const size_t message_bytes = sizeof(head) + head.payload_bytes;
  Endpoint& endpoint = *peers_[peer_idx].endpoint;
  const uint32_t slot = wire::slot_of(kind, head.layer);
  std::span<std::byte> message = endpoint.stage(slot, message_bytes);
  wire::encode_header(head, message);
  std::span<std::byte> payload = message.subspan(sizeof(head));
  for (const TensorView& part : parts) {
    pack_rows(part, payload);
    payload = payload.subspan(part.size_bytes());
  }
  wire_stats_[peer_idx].bytes_sent += message_bytes;
  const Status sent = endpoint.commit(
      slot,
      message_bytes,
      wire::sequence_number(step_, head.layer, static_cast<uint32_t>(config_.num_layers)));
  return sent.ok() ? sent : about(peer_idx, sent);
}

uint64_t RemoteAttention::expected_seq(uint32_t layer) const {
  return wire::sequence_number(step_, layer, static_cast<uint32_t>(config_.num_layers));
}

// What a socket has not taken yet is sent by polls: the other peers are polled too, so that none of
// them waits for its q until this one has answered.
Status RemoteAttention::wait_for(size_t peer_idx, SlotIdx slot, uint64_t seq) {
  const Deadline deadline = Deadline::after(config_.reply_timeout);
  while (true) {
    for (size_t other = 0; other < peers_.size(); ++other) {
      if (other != peer_idx) static_cast<void>(peers_[other].endpoint->poll(slot, seq));
    }
    const bool is_alone = peers_.size() == 1;
    const Status waited = peers_[peer_idx].endpoint->wait(
        slot, seq, is_alone ? deadline : Deadline::after(kPollOthersInterval), config_.wait);
    if (waited.code() != StatusCode::kDeadlineExceeded || deadline.has_passed()) return waited;
  }
}

Status RemoteAttention::receive_from(size_t peer_idx, int32_t layer, TensorView out) {
  Endpoint& endpoint = *peers_[peer_idx].endpoint;
  const auto layer_idx = static_cast<uint32_t>(layer);
  const uint32_t slot = wire::slot_of(MessageKind::kOut, layer_idx);
  LAMINA_RETURN_IF_ERROR(wait_for(peer_idx, slot, expected_seq(layer_idx)));
  const std::span<const std::byte> message = endpoint.payload(slot);
  LAMINA_ASSIGN_OR_RETURN(const wire::MessageHeader head,
                          wire::decode_header(message,
                                              {.kind = MessageKind::kOut,
                                               .epoch = config_.epoch,
                                               .step = step_,
                                               .layer = layer_idx,
                                               .micro_batch = 0}));
  wire_stats_[peer_idx].bytes_received += message.size();
  if (head.status != 0)
    return internal_error(fmt::format("refused step {} with status {}", step_, head.status));
  if (head.num_rows != num_tokens_ || head.dtype != static_cast<uint16_t>(out.dtype) ||
      head.payload_bytes != out.size_bytes()) {
    return data_loss(fmt::format("sent {} rows in {} bytes, expected {} in {}",
                                 head.num_rows,
                                 head.payload_bytes,
                                 num_tokens_,
                                 out.size_bytes()));
  }
  unpack_rows(message.subspan(sizeof(head)), out);
  return {};
}

Status RemoteAttention::about(size_t peer_idx, const Status& status) const {
  return {status.code(),
          fmt::format("attention worker {}: {}", peers_[peer_idx].name, status.message())};
}

}  // namespace lamina
