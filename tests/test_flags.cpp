// test_flags.cpp - flags.h, by a table of a program that does not exist.
#include "../flags.h"
#include "check.h"

enum { COOK = 1, SERVE = 2 };

struct Options {
    std::string recipe, order = "hot", dish, table;
    std::vector<std::string> salt;
    int64_t guests = 4;
    double heat = 0.5;
    bool slowly = false, help = false;
};

static std::vector<Flag> flag_table(Options& o) {
    return {
        {"-r", "FILE", &o.recipe, COOK, "the recipe", COOK},
        {"--order", "hot|cold", &o.order, COOK | SERVE, "what comes first"},
        {"--salt", "TEXT", &o.salt, COOK, "another kind of salt; repeatable"},
        {"--guests", "N", {&o.guests, -1, 1000}, COOK | SERVE, "how many"},
        {"--heat", "X", {&o.heat, 0, 1}, COOK, "of the stove"},
        {"--slowly", "", &o.slowly, COOK, "take more time"},
        {"DISH", "", &o.dish, SERVE, "what to bring", SERVE},
        {"TABLE", "round|square", &o.table, SERVE, "where to", SERVE},
        {"-r", "TEXT", &o.recipe, SERVE, "what to read out"},
        {"--help", "", &o.help, ~0, "print this"},
    };
}

typedef std::vector<std::string> Words;

static std::set<std::string> parse(Options& o, const Words& words, int group) {
    return parse_flags(flag_table(o), words, "inn", group);
}

static void refused(int group, const Words& words, const Words& said) {
    std::string all = "inn";
    for (const std::string& word : words) all += " " + word;
    expect_error(all, said, [&] {
        Options o;
        require_flags(flag_table(o), parse(o, words, group), "inn", group);
    });
}

static void test_values() {
    Options o;
    auto given = parse(o, {"-r", "-", "--order=cold", "--guests=-1", "--heat", "1e-3", "--slowly"},
                       COOK);
    check(o.recipe == "-" && o.order == "cold" && o.guests == -1 && o.heat == 1e-3 && o.slowly,
          "a value of each kind");
    check(given == std::set<std::string>{"-r", "--order", "--guests", "--heat", "--slowly"},
          "the names of those that were given");
    parse(o, {"-r=a=b", "--salt", "", "--salt=--heat=", "--salt", "--salt"}, COOK);
    check(o.recipe == "a=b" && o.salt == Words({"", "--heat=", "--salt"}),
          "values that look like something else");
    parse(o, {"-r="}, COOK);
    check(o.recipe.empty(), "an empty value after =");
    parse(o, {"-h"}, SERVE);
    check(o.help, "-h is --help");

    Options parsed, defaults;
    std::vector<Flag> from = flag_table(defaults), to = flag_table(parsed);
    defaults.heat = 1 / 3.0, defaults.slowly = true, defaults.recipe = "a|b";
    for (size_t i = 0; i < from.size(); i++)
        if (!from[i].to.list) set_flag(to[i], flag_text(from[i]), "a checkpoint");
    check(fabs(parsed.heat - 1 / 3.0) < 1e-15 && parsed.slowly && parsed.recipe == "a|b" &&
          parsed.guests == 4, "values to text and back");
    report("values");
}

static void test_arguments() {
    Options o;
    auto given = parse(o, {"--guests", "2", "soup=hot", "-r", "poem", "round"}, SERVE);
    check(o.dish == "soup=hot" && o.table == "round" && o.guests == 2 && o.recipe == "poem",
          "arguments among flags, in the table's order");
    check(given.count("DISH") && given.count("TABLE"), "arguments are given");
    check(usage(flag_table(o), "inn serve", SERVE) == "inn serve DISH TABLE" &&
          usage(flag_table(o), "inn", COOK) == "inn", "a command and its arguments");
    refused(SERVE, {"soup"}, {"inn: needs TABLE round|square"});
    refused(SERVE, {"soup", "oval"}, {"TABLE: \"oval\"", "round|square"});
    refused(SERVE, {"soup", "round", "more"}, {"more: is no flag (inn --help lists them)"});
    report("arguments");
}

// A bundle's words, then the user's.
static void test_two_lists() {
    Options o;
    parse(o, {"-r", "baked", "--guests", "7", "--salt", "sea", "--salt", "rock", "--heat=0.2"}, ~0);
    parse(o, {"--guests", "8", "--salt", "black", "-r=mine", "--salt=pink"}, COOK);
    check(o.recipe == "mine" && o.guests == 8 && o.heat == 0.2, "the later list's values");
    check(o.salt == Words({"black", "pink"}), "the later list's list");
    report("two lists of words");
}

static void test_errors() {
    refused(COOK, {}, {"inn: needs -r FILE (inn --help explains)"});
    refused(COOK, {"--guests", "3", "--guests=3"}, {"--guests: given twice"});
    refused(COOK, {"--slowly", "--slowly"}, {"--slowly: given twice"});
    refused(COOK, {"--slowly=1"}, {"--slowly: takes no value"});
    refused(COOK, {"--heat"}, {"--heat: needs a value: --heat X"});
    for (const char* bad : {"", "x", "1.5", "3 ", "1e2", "0x10"})
        refused(COOK, {"--guests", bad}, {text("--guests: \"%s\" is not a whole number", bad)});
    for (const char* bad : {"-2", "1001", "99999999999999999999"})
        refused(COOK, {"--guests", bad},
                {text("--guests: %s is out of range, expected -1 to 1000", bad)});
    for (const char* bad : {"1.01", "-1e-9", "nan", "inf", "1e999"})
        refused(COOK, {"--heat", bad}, {bad, "is out of range, expected 0 to 1"});
    for (const char* bad : {"", "ho", "hot|cold", "|", "warm\x1b"})
        refused(COOK, {"--order", bad}, {"--order: \"", "\", expected hot|cold"});
    refused(COOK, {"--order", "\x1b[2J"}, {"\\x1b[2J"});
    refused(SERVE, {"--heat", "1"}, {"--heat: not a flag of inn"});
    refused(COOK, {"a"}, {"a: is no flag (inn --help lists them)"});
    refused(COOK, {"-r", "a", "b"}, {"b: is no flag", "quotes: -r \"FILE\""});
    refused(COOK, {"--slowly", "b"}, {"b: is no flag (inn --help lists them)"});
    refused(COOK, {"--gests", "3"}, {"--gests: unknown flag (did you mean --guests? inn --help"});
    refused(COOK, {"--halt", "1"}, {"--halt: unknown flag (did you mean --salt? "});
    refused(COOK, {"--sat=1"}, {"--sat: unknown flag (did you mean --salt? "});
    for (const char* bad : {"--frobnicate", "-x", "--", "-", "--\x1b"})
        refused(COOK, {bad}, {": unknown flag (inn --help lists them)"});
    expect_error("a file's switch", {"x.gguf: key: \"yes\", expected 0|1"}, [] {
        Options o;
        set_flag(flag_table(o)[5], "yes", "x.gguf: key");
    });
    report("errors");
}

int main(int argc, char** argv) {
    return run_tests(argc, argv, {{"values", test_values},
                                  {"arguments", test_arguments},
                                  {"two_lists", test_two_lists},
                                  {"errors", test_errors}});
}
