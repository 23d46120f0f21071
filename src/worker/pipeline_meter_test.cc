#include "worker/pipeline_meter.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

TEST(LineFit, FindsALine) {
  LineFit fit;
  for (const double x : {8.0, 16.0, 32.0, 33.0}) fit.add(x, 3.0 + 0.5 * x);
  EXPECT_NEAR(fit.slope(), 0.5, 1e-9);
  EXPECT_NEAR(fit.intercept(), 3.0, 1e-9);
}

TEST(LineFit, WithOneBatchSizeItIsAConstant) {
  LineFit fit;
  fit.add(16, 2.0);
  fit.add(16, 4.0);
  EXPECT_EQ(fit.slope(), 0.0);
  EXPECT_DOUBLE_EQ(fit.intercept(), 3.0);
}

TEST(LineFit, IsNeverNegative) {
  LineFit falling;
  falling.add(1, 10);
  falling.add(10, 1);
  EXPECT_EQ(falling.slope(), 0.0);
  LineFit steep;
  steep.add(10, 1);
  steep.add(20, 100);
  EXPECT_GE(steep.intercept(), 0.0);
}

TEST(LineFit, ForgetsWhatFades) {
  LineFit fit;
  for (int i = 0; i < 10; ++i) fit.add(8, 1.0);
  fit.fade(0.001);
  for (int i = 0; i < 10; ++i) fit.add(8, 2.0);
  EXPECT_NEAR(fit.mean(), 2.0, 0.01);
}

TEST(PipelineMeter, SumsAndStartsAnew) {
  PipelineMeter meter;
  using std::chrono::milliseconds;
  meter.add_slice(true, 4, milliseconds(10), milliseconds(7));
  meter.add_slice(true, 4, milliseconds(10), std::nullopt);
  meter.add_slice(false, 100, milliseconds(50), milliseconds(40));
  meter.add_attention(true, milliseconds(3), milliseconds(2), milliseconds(5));
  meter.add_attention(false, milliseconds(30), milliseconds(20), milliseconds(50));
  meter.add_wire(milliseconds(2));
  meter.add_wire(milliseconds(1));
  const PipelineSample sample = meter.take();
  EXPECT_DOUBLE_EQ(sample.slice_s, 0.07);
  EXPECT_DOUBLE_EQ(sample.lead_s, 0.007);
  EXPECT_EQ(sample.num_leads, 1U);
  EXPECT_DOUBLE_EQ(sample.decode_slices.mean(), 0.01);
  EXPECT_EQ(sample.num_layers, 1U);
  EXPECT_DOUBLE_EQ(sample.attention_s, 0.003);
  EXPECT_DOUBLE_EQ(sample.rest_s, 0.002);
  EXPECT_DOUBLE_EQ(sample.worker_busy_s, 0.055);
  EXPECT_DOUBLE_EQ(sample.wire_s, 0.001);
  EXPECT_EQ(meter.take().num_layers, 0U);
}

}  // namespace
}  // namespace lamina
