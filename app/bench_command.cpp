// SPDX-License-Identifier: MIT
// bitnet bench: how fast this machine trains and runs models, as fractions of what it can do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "app/bench_process.h"
#include "app/bench_report.h"
#include "app/commands.h"
#include "app/model_option.h"
#include "app/standard_streams.h"
#include "core/base/file.h"
#include "core/bench/bench_configs.h"
#include "core/bench/synthetic_model.h"
#include "core/cpu/machine_limits.h"
#include "core/train/update_step.h"
#include "cuda/cuda_limits.h"

namespace bitnet {
namespace {

constexpr std::int64_t kPromptTokens = 512, kContext = 128;
constexpr double kBillion = 1e9;

struct BenchArguments {
  std::string workload = "all";
  std::string config, head = "int8", kv_cache = "fp16";  // generate's defaults
  std::vector<std::string> settings;
  std::optional<std::int64_t> tokens, context;
  std::string load_once;
  BenchEffort effort;
  bool json = false;

  bool wants(const char* name) const { return workload == name || workload == "all"; }
};

struct NamedConfig {
  std::string name;
  RunConfig config;
};

// --config FILE, or `built_in` under its name; --set on top of either, and `fixed` on top of that.
NamedConfig choose_config(const BenchArguments& arguments, const char* name,
                          const RunConfig& built_in, const std::vector<std::string>& fixed = {}) {
  const bool given = !arguments.config.empty();
  // The training bytes are synthetic too, and a config need not name any.
  std::vector<std::string> settings = arguments.settings;
  settings.emplace_back("data.path=none");
  settings.insert(settings.end(), fixed.begin(), fixed.end());
  return {given ? std::filesystem::path(arguments.config).stem().string() : name,
          read_run_config(given ? read_text_file(arguments.config) : write_run_config(built_in),
                          given ? arguments.config : name, settings)};
}

// One run of the command.
class Bench {
 public:
  Bench(const BenchArguments& arguments, AppContext& context)
      : arguments_(arguments),
        backend_(context.backend()),
        limits_(context.threads(), "", {.repeats = arguments.effort.repeats}) {
    // Wrong arguments show before anything is measured.
    if (arguments_.wants("train")) {
      training_ = choose_config(arguments_, "bench_train", bench_training_config());
      check_precisions(backend_, training_->config.train);
    }
    if (arguments_.wants("prefill") || arguments_.wants("decode") || arguments_.wants("load"))
      // Inference needs nothing of the section train; a sequence of 0 fits any model.
      inference_ = choose_config(arguments_, "bench_7m", bench_inference_config(),
                                 {"train.sequence_length=0"});
    if (arguments_.wants("prefill")) check_prompt(inference_->config.model, prompt_tokens());
    if (arguments_.wants("decode")) check_context(inference_->config.model, context_tokens());
  }

  BenchReport run() {
    report_.head = arguments_.head;
    report_.kv_cache = arguments_.kv_cache;
    measure_limits();
    if (training_) train(*training_);
    if (inference_) infer(*inference_);
    return std::move(report_);
  }

 private:
  std::int64_t longest() const { return inference_->config.model.max_position_embeddings; }
  std::int64_t prompt_tokens() const {
    return arguments_.tokens.value_or(std::min(kPromptTokens, longest()));
  }
  std::int64_t context_tokens() const {
    return arguments_.context.value_or(std::min(kContext, longest() - 1));
  }

  void measure_limits() {
    report_.isa = limits_.isa();
    report_.threads = limits_.threads();
    report_.l2_bytes = limits_.l2_bytes();
    if (backend_.name() == "cpu")
      measure_host_limits();
    else
      measure_device_limits();
  }

  void measure_host_limits() {
    write_stderr_line(fmt::format("bitnet: measuring the machine's limits ({}, {} thread{})",
                                  report_.isa, report_.threads, report_.threads == 1 ? "" : "s"));
    // Memory last: decoding is compared with what it gives at that time, and finds the memory at
    // hand that this has used. The host of a virtual machine takes it back after a while.
    const LimitMeasurement fp32_fma = limits_.fp32_fma(), int8_dot = limits_.int8_dot(),
                           l2_read = limits_.l2_read();
    rates_.memory_read = add_limit("memory_read", "GB/s", limits_.memory_read());
    rates_.l2_read = add_limit("l2_read", "GB/s", l2_read);
    rates_.float_dot = add_limit("fp32_fma", "GFLOP/s", fp32_fma);
    rates_.int8_dot = add_limit("int8_dot", "GOP/s", int8_dot);
    rates_.l2_bytes = report_.l2_bytes;
  }

  void measure_device_limits() {
    write_stderr_line(
        fmt::format("bitnet: measuring the limits of {} ({})", backend_.name(), backend_.detail()));
    const CudaLimits limits = measure_cuda_limits(arguments_.effort.repeats);
    report_.device = {.name = backend_.name(),
                      .detail = backend_.detail(),
                      .memory_bytes = backend_.memory_bytes(),
                      .l2_bytes = limits.l2_bytes};
    rates_.float_name = "bf16_dot";
    rates_.memory_read = add_limit("memory_read", "GB/s", limits.memory_read);
    rates_.l2_read = add_limit("l2_read", "GB/s", limits.l2_read);
    rates_.copy_to_device = add_limit("copy_to_device", "GB/s", limits.copy_to_device);
    rates_.float_dot = add_limit(rates_.float_name, "GFLOP/s", limits.bf16_dot);
    rates_.int8_dot = add_limit("int8_dot", "GOP/s", limits.int8_dot);
    rates_.l2_bytes = limits.l2_bytes;
  }

  // Its median, per second.
  double add_limit(const char* name, const char* unit, const LimitMeasurement& measurement) {
    report_.limits.push_back(make_limit(name, unit, measurement));
    return kBillion * report_.limits.back().value.median;
  }

  // Adds the row of `measure()` if the workload is wanted. Of "all", one that fails is left out: it
  // must not take along the figures of the others.
  template <typename Measure>
  void add(const char* workload, const NamedConfig& config, const Measure& measure) {
    if (!arguments_.wants(workload)) return;
    write_stderr_line(fmt::format("bitnet: measuring {} of {}", workload, config.name));
    try {
      report_.results.push_back({config.name, measure()});
    } catch (const Error& e) {
      if (arguments_.workload != "all") throw;
      report_.skipped.push_back({workload, e.what()});
    }
  }

  void train(const NamedConfig& config) {
    add("train", config,
        [&] { return measure_training(backend_, config.config, rates_, arguments_.effort); });
  }

  void infer(const NamedConfig& config) {
    const DType kv_cache = parse_kv_cache(arguments_.kv_cache);
    std::unique_ptr<Transformer> made;
    const auto model = [&]() -> Transformer& {
      if (made == nullptr) {
        made = make_synthetic_model(backend_, config.config.model, ThreadTeam(limits_.threads()));
        made->use_head(parse_head(arguments_.head));
      }
      return *made;
    };
    add("prefill", config, [&] {
      return measure_prefill(model(), prompt_tokens(), rates_, arguments_.effort, kv_cache);
    });
    add("decode", config, [&] {
      ReadRate cache_read;  // of the processor's third-level cache, if that is what computes
      if (!report_.device)
        cache_read = [this](std::int64_t bytes) {
          return add_limit("l3_read", "GB/s", limits_.cache_read(bytes));
        };
      return measure_decode(model(), context_tokens(), rates_, cache_read, arguments_.effort,
                            kv_cache);
    });
    add("load", config, [&] {
      model();
      return measure_load(std::move(made), arguments_.head, arguments_.kv_cache, limits_.threads(),
                          rates_, arguments_.effort);
    });
  }

  const BenchArguments& arguments_;
  Backend& backend_;
  const MachineLimits limits_;
  std::optional<NamedConfig> training_, inference_;
  MachineRates rates_;
  BenchReport report_;
};

void run_bench(const BenchArguments& arguments, AppContext& context) {
  if (!arguments.load_once.empty())
    return run_load_once(context, arguments.load_once, arguments.head, arguments.kv_cache);
  const BenchReport report = Bench(arguments, context).run();
  if (arguments.json)
    print_bench_json(report);
  else
    print_bench_tables(report);
}

}  // namespace

void add_bench_command(CLI::App& program, AppContext& context) {
  CLI::App* command = program.add_subcommand(
      "bench", "Measure the speed of training and inference against this machine's limits");
  auto arguments = std::make_shared<BenchArguments>();
  command
      ->add_option("WORKLOAD", arguments->workload,
                   "limits: only what the machine can do; train: whole updates; prefill: a prompt; "
                   "decode: token by token; load: from the file to the first token; or all")
      ->check(CLI::IsMember({"limits", "train", "prefill", "decode", "load", "all"}))
      ->capture_default_str();
  command->add_option("--config", arguments->config,
                      "JSON file with the section model, and train for train (default: the shapes "
                      "of configs/bench_train.json for train, of configs/bench_7m.json else)");
  command
      ->add_option("--set", arguments->settings,
                   "section.key=value over the config; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--tokens", arguments->tokens,
                      fmt::format("Tokens of prefill's prompt (default: {}, or the model's context "
                                  "if that is shorter)",
                                  kPromptTokens));
  command->add_option(
      "--context", arguments->context,
      fmt::format("Tokens before the one that decode makes (default: {}, or as many as the model's "
                  "context has room for if those are fewer)",
                  kContext));
  add_head_option(*command, arguments->head);
  add_kv_cache_option(*command, arguments->kv_cache);
  command->add_option("--repeats", arguments->effort.repeats, "Measurements of each figure")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->add_option("--load-once", arguments->load_once)->group("");  // for measure_load() alone
  context.add_device_options(*command);
  command->footer(
      "Weights are synthetic and made in memory, so that a config is all that is needed; load "
      "writes them to a file\nin the folder for temporary files. The environment variable "
      "BITNET_CPU_ISA (amx, avx512vnni, avx2, neon, scalar) chooses the\ninstruction set. "
      "With --device cuda all figures are the GPU's, its limits too; the processor's: --device "
      "cpu.");
  command->callback([arguments, &context] { run_bench(*arguments, context); });
}

}  // namespace bitnet
