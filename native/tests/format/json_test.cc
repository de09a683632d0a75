#include "format/json.h"

#include <string>

#include "doctest/doctest.h"

using namespace edge;

namespace {

Code code_of(std::string_view text) { return Json::parse(text).status().code(); }

std::string string_of(std::string_view text) {
  auto parsed = Json::parse(text);
  return parsed.is_ok() ? parsed.value().as_string() : "error: " + parsed.status().message();
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("values of every kind are read") {
  auto parsed = Json::parse(R"( {"a":[1,-2.5e1,true,false,null,"x"],"b":{}} )");
  REQUIRE(parsed.is_ok());
  const Json* a = parsed.value().find("a");
  REQUIRE(a != nullptr);
  REQUIRE(a->items().size() == 6);
  CHECK(a->items()[0].kind() == Json::Kind::kInt);
  CHECK(a->items()[0].as_int() == 1);
  CHECK(a->items()[0].as_double() == 1.0);
  CHECK(a->items()[1].kind() == Json::Kind::kDouble);
  CHECK(a->items()[1].as_double() == -25.0);
  CHECK(a->items()[2].as_bool());
  CHECK_FALSE(a->items()[3].as_bool());
  CHECK(a->items()[4].kind() == Json::Kind::kNull);
  CHECK(a->items()[5].as_string() == "x");
  CHECK(parsed.value().find("b")->members().empty());
}

TEST_CASE("integers keep all 64 bits and larger ones are refused") {
  CHECK(Json::parse("9223372036854775807").value().as_int() == INT64_MAX);
  CHECK(Json::parse("-9223372036854775808").value().as_int() == INT64_MIN);
  CHECK(code_of("9223372036854775808") == Code::kJsonSyntax);
  CHECK(code_of("-9223372036854775809") == Code::kJsonSyntax);
  CHECK(Json::parse("1e3").value().kind() == Json::Kind::kDouble);
  CHECK(code_of("1e999") == Code::kJsonSyntax);
}

TEST_CASE("texts that are not JSON are syntax errors") {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[",
                           "\"",
                           "tru",
                           "nul",
                           "True",
                           "NaN",
                           "Infinity",
                           "-",
                           "+1",
                           "01",
                           "-01",
                           "1.",
                           ".5",
                           "1e",
                           "1e+",
                           "0x10",
                           "[1,]",
                           "[,1]",
                           "{,}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{1:1}",
                           "'a'",
                           "[1 2]",
                           "1 2",
                           "[]]",
                           "// c\n1",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\n\"",
                           "\"\t\"",
                           "\xEF\xBB\xBF[]",
                           "\f1"}) {
    CAPTURE(text);
    CHECK(code_of(text) == Code::kJsonSyntax);
  }
  CHECK(code_of(std::string_view("\"\0\"", 3)) == Code::kJsonSyntax);
  CHECK(code_of(std::string_view("1\0", 2)) == Code::kJsonSyntax);
}

TEST_CASE("escapes become UTF-8") {
  CHECK(string_of(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
  CHECK(string_of(R"("\u0041\u00e9\u20ac\ud83d\ude00")") ==
        "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(string_of(R"("\u0000")") == std::string(1, '\0'));
}

TEST_CASE("lone surrogates and broken UTF-8 are refused") {
  for (const char* text : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")",
                           "\"\x80\"", "\"\xC0\x80\"", "\"\xC1\xBF\"", "\"\xE0\x80\x80\"",
                           "\"\xED\xA0\x80\"", "\"\xF0\x80\x80\x80\"", "\"\xF4\x90\x80\x80\"",
                           "\"\xF5\x80\x80\x80\"", "\"\xE2\x82\"", "\"\xFF\"", "\"\xE2\x82"}) {
    CAPTURE(text);
    CHECK(code_of(text) == Code::kJsonSyntax);
  }
  CHECK(string_of("\"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\"").size() == 10);
}

TEST_CASE("a key twice is an error at any depth, also when escaped differently") {
  CHECK(code_of(R"({"a":1,"b":2,"a":3})") == Code::kJsonDuplicateKey);
  CHECK(code_of(R"([{"x":{"a":1,"\u0061":2}}])") == Code::kJsonDuplicateKey);
  CHECK(code_of(R"({"a":{"a":1}})") == Code::kOk);
}

TEST_CASE("nesting ends at 32 and the number of values at 2^20") {
  CHECK(code_of(nested(32)) == Code::kOk);
  CHECK(code_of(nested(33)) == Code::kJsonDepth);
  CHECK(code_of(std::string(1 << 20, '[')) == Code::kJsonDepth);
  std::string many = "[0";
  for (int i = 2; i < 1 << 20; ++i) many += ",0";
  CHECK(code_of(many + "]") == Code::kOk);
  CHECK(code_of(many + ",0]") == Code::kJsonTooLarge);
}

TEST_CASE("typed access says what is missing or of another type") {
  auto parsed = Json::parse(R"({"i":1,"d":0.5,"b":true,"s":"t","a":[],"o":{}})");
  REQUIRE(parsed.is_ok());
  const Json& json = parsed.value();
  CHECK(json.get_int("i", "spec").value() == 1);
  CHECK(json.get_double("i", "spec").value() == 1.0);
  CHECK(json.get_double("d", "spec").value() == 0.5);
  CHECK(json.get_bool("b", "spec").value());
  CHECK(json.get_string("s", "spec").value() == "t");
  CHECK(json.get_array("a", "spec").is_ok());
  CHECK(json.get_object("o", "spec").is_ok());
  CHECK(json.get_int("d", "spec").status().code() == Code::kJsonType);
  CHECK(json.get_double("s", "spec").status().code() == Code::kJsonType);
  CHECK(json.get_object("a", "spec").status().code() == Code::kJsonType);
  const Status missing = json.get_string("z", "layers[3]").status();
  CHECK(missing.code() == Code::kJsonMissingKey);
  CHECK(missing.message() == "layers[3]: 'z' is missing");
  CHECK(json.only_keys({"i", "d", "b", "s", "a", "o"}, "spec").is_ok());
  CHECK(json.only_keys({"i"}, "spec").code() == Code::kJsonUnknownKey);
  CHECK(json.find("a")->get_int("i", "a").status().code() == Code::kJsonType);
}

TEST_CASE("quoted text in messages is short and printable") {
  CHECK(printable("a\x1b\n\xC3\xA9") == "'a" + std::string(4, '?') + "'");
  CHECK(printable(std::string(100, 'x')).size() == 80 + 5);
}
