#include "cuda/select_steps.h"
#include "pydec/topk.h"

namespace pydec::cuda {
namespace {

SelectTask topk_task(std::size_t n, std::size_t k, void* start, std::size_t& zeroed, std::size_t& bytes) {
  const TopkPlan plan = plan_topk(n, k);
  SelectTask task = {};
  task.n = n;
  task.sample_lines = plan.sample_lines;
  task.samples = plan.sample_lines * kLine;
  task.sample_rank = plan.sample_rank;
  task.capacity = plan.capacity;
  task.least = k;
  task.most = k;
  bytes = layout(start, n, task.samples, plan.capacity, task.work, zeroed);
  return task;
}

SelectTask threshold_task(std::size_t n, const ThresholdPlan& plan, void* start, std::size_t& zeroed,
                          std::size_t& bytes) {
  SelectTask task = {};
  task.n = n;
  task.sample_lines = plan.sample_lines;
  task.sample_all = plan.sample_lines == 0;
  task.samples = task.sample_all ? n : plan.sample_lines * kLine;
  task.sample_rank = plan.sample_rank;
  task.capacity = plan.most;
  task.least = plan.least;
  task.most = plan.most;
  task.keep_candidates = true;
  bytes = layout(start, n, task.sample_all ? 0 : task.samples, 0, task.work, zeroed);
  return task;
}

}  // namespace

std::size_t topk_work(std::size_t n, std::size_t k) noexcept {
  std::size_t zeroed = 0;
  std::size_t bytes = 0;
  topk_task(n, k, nullptr, zeroed, bytes);
  return bytes;
}

std::size_t threshold_work(std::size_t n, const ThresholdPlan& plan) noexcept {
  std::size_t zeroed = 0;
  std::size_t bytes = 0;
  threshold_task(n, plan, nullptr, zeroed, bytes);
  return bytes;
}

cudaError_t topk_select_f32(const float* x, float* residual, std::size_t n, std::size_t k,
                            std::uint32_t* indices, float* values, Count* bad, void* work,
                            cudaStream_t stream) noexcept {
  if (k > n || n > 0xffffffffu) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  std::size_t zeroed = 0;
  std::size_t bytes = 0;
  SelectTask task = topk_task(n, k, work, zeroed, bytes);
  task.x = x;
  task.residual = residual;
  task.indices = indices;
  task.values = values;
  task.bad = bad;
  return select(task, zeroed, stream);
}

cudaError_t threshold_select_f32(const float* x, float* residual, std::size_t n, const ThresholdPlan& plan,
                                 std::uint32_t* indices, float* values, Count* found, Count* bad, void* work,
                                 cudaStream_t stream) noexcept {
  if (n > 0xffffffffu || plan.most > n || plan.least > plan.most) return cudaErrorInvalidValue;
  if (n == 0) return cudaMemsetAsync(found, 0, sizeof *found, stream);
  std::size_t zeroed = 0;
  std::size_t bytes = 0;
  SelectTask task = threshold_task(n, plan, work, zeroed, bytes);
  task.x = x;
  task.residual = residual;
  task.indices = indices;
  task.values = values;
  task.found = found;
  task.bad = bad;
  return select(task, zeroed, stream);
}

}  // namespace pydec::cuda
