#include "speculation/cost_table.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "base/cpu_info.h"
#include "base/os.h"
#include "doctest/doctest.h"
#include "speculation/cost_file.h"

namespace edge {
namespace {

using doctest::Approx;

TEST_CASE("before any step costs have the shape of the roofline") {
  const CostTable costs({.unpack = 0.5, .mac = 0.25});
  CHECK(costs.ms(1) == 1.0);
  CHECK(costs.ms(2) == 1.0);
  CHECK(costs.ms(4) == 1.5);
  CHECK(costs.ms(8) == 2.5);
  CHECK_FALSE(costs.is_measured(1));
}

TEST_CASE("steps that were taken say what they take, and scale those that were not") {
  CostTable costs({.unpack = 0.5, .mac = 0.25});
  for (int i = 0; i < 20; ++i) {
    costs.record(1, 40.0);
    costs.record(4, 90.0);
  }
  CHECK(costs.is_measured(1));
  CHECK(costs.is_measured(4));
  // Between two that were measured.
  CHECK(costs.is_measured(2));
  CHECK_FALSE(costs.is_measured(5));
  CHECK(costs.ms(1) == Approx(40.0).epsilon(0.01));
  CHECK(costs.ms(4) == Approx(90.0).epsilon(0.01));
  CHECK(costs.ms(3) > costs.ms(2));
  CHECK(costs.ms(8) > 100.0);
  CHECK(costs.ms(8) < 150.0);
}

TEST_CASE("a single slow step counts for little, a slow machine for all") {
  CostTable costs;
  for (int i = 0; i < 20; ++i) costs.record(1, 10.0);
  costs.record(1, 1000.0);
  CHECK(costs.ms(1) < 11.0);
  for (int i = 0; i < 100; ++i) costs.record(1, 25.0);
  CHECK(costs.ms(1) == Approx(25.0).epsilon(0.02));
}

TEST_CASE("the first step of its size is not believed to be far from what was expected") {
  CostTable costs({.unpack = 0.5, .mac = 0.25});
  for (int i = 0; i < 20; ++i) costs.record(1, 20.0);
  const double expected = costs.ms(2);
  costs.record(2, 10 * expected);
  CHECK(costs.ms(2) < 1.6 * expected);
  for (int i = 0; i < 40; ++i) costs.record(2, 10 * expected);  // but a second and a third one
  CHECK(costs.ms(2) > 9 * expected);
}

TEST_CASE("what was measured long ago gives way to what is near and fresh") {
  CostTable costs({.unpack = 0.0, .mac = 1.0});
  for (int i = 0; i < 20; ++i) costs.record(8, 800.0);
  for (int i = 0; i < 2000; ++i) costs.record(1, 10.0);
  CHECK_FALSE(costs.is_measured(8));
  CHECK(costs.ms(8) == Approx(80.0).epsilon(0.05));
}

TEST_CASE("times that are none are ignored") {
  CostTable costs;
  for (const double ms : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                          std::numeric_limits<double>::infinity()}) {
    costs.record(1, ms);
  }
  CHECK_FALSE(costs.is_measured(1));
  costs.record(-5, 3.0);
  CHECK(costs.is_measured(1));
  costs.record(1 << 20, 300.0);
  CHECK(costs.is_measured(CostTable::kMaxRows));
}

TEST_CASE("the high time is that of the slow steps") {
  CostTable costs;
  for (int i = 0; i < 100; ++i) costs.record(1, i % 10 == 0 ? 15.0 : 10.0);
  CHECK(costs.high_ms(1) >= 14.0);
  CHECK(costs.high_ms(4) >= 1.3 * costs.ms(4));
}

TEST_CASE("costs outlive the process as text, and only such text is read") {
  CostTable costs;
  costs.record(1, 40.25);
  costs.record(8, 61.5);
  const std::string text = costs.to_text();
  CHECK(text == "edgellm step costs 1\n1 40250\n8 61500\n");
  const auto read = CostTable::from_text(text);
  REQUIRE(read.has_value());
  CHECK(read->ms(1) == Approx(40.25).epsilon(0.01));
  CHECK(read->ms(8) == Approx(61.5).epsilon(0.01));
  CHECK(read->is_measured(8));
  CHECK(CostTable::from_text("edgellm step costs 1\n").has_value());
  for (const char* bad :
       {"", "edgellm step costs 2\n1 5\n", "edgellm step costs 1\n1", "edgellm step costs 1\n1 5",
        "edgellm step costs 1\n1 5 \n", "edgellm step costs 1\n0 5\n",
        "edgellm step costs 1\n65 5\n", "edgellm step costs 1\n1 0\n",
        "edgellm step costs 1\n1 -5\n", "edgellm step costs 1\n2 5\n1 5\n",
        "edgellm step costs 1\n1 5\n1 5\n", "edgellm step costs 1\n1 1e3\n",
        "edgellm step costs 1\n1 99999999999999999999999\n", "edgellm step costs 1\n 1 5\n",
        "edgellm step costs 1\n1 1000000001\n"}) {
    CAPTURE(bad);
    CHECK_FALSE(CostTable::from_text(bad).has_value());
  }
}

TEST_CASE("one real step outweighs what a file claims") {
  auto costs = CostTable::from_text("edgellm step costs 1\n1 40000\n8 1\n");
  REQUIRE(costs.has_value());
  costs->record(8, 60.0);
  CHECK(costs->ms(8) > 30.0);
}

TEST_CASE("what a file claims of a size is forgotten soon unless a step confirms it") {
  CostTable busy;
  busy.record(1, 20.0);
  for (int i = 0; i < 20; ++i) busy.record(2, 60.0);  // beside many others
  auto costs = CostTable::from_text(busy.to_text());
  REQUIRE(costs.has_value());
  CHECK(costs->is_measured(2));
  CHECK(costs->ms(2) > 50.0);
  for (int i = 0; i <= CostTable::kLoadedFreshSteps; ++i) costs->record(1, 20.0);
  CHECK_FALSE(costs->is_measured(2));
  CHECK(costs->ms(2) < 21.0);
}

TEST_CASE("files of costs: written, read, and ignored when they are anything else") {
  const auto path =
      std::filesystem::temp_directory_path() / ("edge_costs_" + std::to_string(process_id()));
  const std::string directory = path.string();
  CostTable costs;
  costs.record(1, 12.0);
  CHECK_FALSE(load_costs(directory, "key").has_value());
  save_costs(directory, "key", costs);
  const auto loaded = load_costs(directory, "key");
  REQUIRE(loaded.has_value());
  CHECK(loaded->to_text() == costs.to_text());
  CHECK_FALSE(load_costs(directory, "another").has_value());

  const auto file = std::filesystem::directory_iterator(path)->path();
  for (const std::string& bytes :
       {std::string(), std::string("edgellm step costs 1\n1 5\n"), std::string(1024, '\xff'),
        std::string(1 << 20, '1'), "edgellm step costs 1\n1 5\n" + std::string(998, '\0') + "1"}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    CHECK_FALSE(load_costs(directory, "key").has_value());
  }
  save_costs(directory, "key", costs);
  CHECK(load_costs(directory, "key").has_value());
  std::filesystem::remove_all(path);
  CHECK_FALSE(cpu_id().empty());
}

}  // namespace
}  // namespace edge
