// flags.h - one command line for every program here: a table of flags, from which parsing, ranges,
// errors and --help come. It knows no program; a program's table is all that it needs:
//
//     {"-m", "FILE", &o.model, RUN | SHOW, "the model", RUN},               // std::string
//     {"--order", "shuffled|sequential", &o.order, RUN, "of the windows"},  // ... one of these
//     {"--temp", "X", {&o.temp, 0, 100}, RUN, "temperature"},               // double, int64_t
//     {"--profile", "", &o.profile, RUN, "print where the time went"},      // bool: a switch
//     {"--stop", "TEXT", &o.stop, RUN, "end before it; repeatable"},        // vector<string>
//     {"OUT", "", &o.out, SHOW, "what to write", SHOW},                     // an argument
//
// A value is the next word or follows "=": --temp 0.5, --temp=0.5. An argument is a word without a
// dash; the table's arguments take such words in their order. Whatever is not understood is an
// error. What an Options holds before its flags are parsed are the defaults.
#pragma once
#include <algorithm>
#include <set>
#include <string>
#include <vector>
#include "files.h"
#include "gguf.h"   // gguf_printable

// Where a flag's value goes, and a number's range, both ends included.
struct Target {
    std::string* text = nullptr;
    std::vector<std::string>* list = nullptr;
    bool* on = nullptr;
    int64_t* integer = nullptr;
    double* real = nullptr;
    double least = 0, most = 0;

    Target(std::string* to) : text(to) {}
    Target(std::vector<std::string>* to) : list(to) {}
    Target(bool* to) : on(to) {}
    Target(int64_t* to, double low, double high) : integer(to), least(low), most(high) {}
    Target(double* to, double low, double high) : real(to), least(low), most(high) {}
};

struct Flag {
    const char* name;    // with its dashes; an argument has none
    const char* value;   // what follows it, as --help shows it; "a|b|c": one of these
    Target to;
    int groups;          // bits whose meaning is the program's: commands, or kinds of flags; rows
                         // of one name may stand for different groups
    const char* help;
    int needed = 0;      // the groups that cannot do without it
};

// A flag's value as text: what --help prints, a checkpoint keeps, and --resume compares. A list has
// none.
inline std::string flag_text(const Flag& f) {
    const Target& to = f.to;
    return to.integer ? text("%lld", (long long)*to.integer) : to.real ? text("%.15g", *to.real)
           : to.on ? (*to.on ? "1" : "0") : to.text ? *to.text : "";
}

// And back. source is where the value stands, for errors: "--lr" or "optimizer.gguf: legible.lr".
inline void set_flag(const Flag& f, const std::string& value, const std::string& source) {
    const Target& to = f.to;
    const std::string printable = gguf_printable(value, 60);
    const char *from = source.c_str(), *v = value.c_str(), *shown = printable.c_str();
    if (to.integer || to.real) {
        char* end;
        errno = 0;
        int64_t integer = to.integer ? strtoll(v, &end, 10) : 0;
        double x = to.integer ? (double)integer : strtod(v, &end);
        if (end == v || end != v + value.size())
            fail("%s: \"%s\" is not a %snumber", from, shown, to.integer ? "whole " : "");
        if (errno == ERANGE || !(x >= to.least && x <= to.most))
            fail("%s: %s is out of range, expected %.15g to %.15g", from, shown, to.least, to.most);
        if (to.integer) *to.integer = integer;
        else *to.real = x;
        return;
    }
    const char* choices = to.on ? "0|1" : strchr(f.value, '|') ? f.value : "";
    bool listed = value.find('|') == std::string::npos &&
                  text("|%s|", choices).find("|" + value + "|") != std::string::npos;
    if (*choices && !listed && value != flag_text(f))   // a default may stay: "", for no choice
        fail("%s: \"%s\", expected %s", from, shown, choices);
    if (to.on) *to.on = value == "1";
    else if (to.list) to.list->push_back(value);
    else *to.text = value;
}

// How many characters to insert, delete or replace to make b of a (Levenshtein 1966).
inline size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);   // from a's first i characters to b's first j
    for (size_t j = 0; j <= b.size(); j++) row[j] = j;
    for (char c : a) {
        size_t corner = row[0]++;            // of the row above, left of what comes next
        for (size_t j = 0; j < b.size(); j++) {
            size_t above = row[j + 1];
            row[j + 1] = std::min({above + 1, row[j] + 1, corner + (c != b[j])});
            corner = above;
        }
    }
    return row.back();
}

// A word that no flag of these groups takes: says why, and what was meant if that can be guessed.
[[noreturn]] inline void refuse_word(const std::vector<Flag>& flags, int groups,
                                     const std::string& name, const Flag* before,
                                     const std::string& program) {
    const std::string printable = gguf_printable(name, 200);
    const char *shown = printable.c_str(), *p = program.c_str();
    if (name[0] != '-' && before && before->name[0] == '-' && !before->to.on)
        fail("%s: is no flag (a value of several words, or a pattern, needs quotes: %s \"%s\")",
             shown, before->name, before->value);
    if (name[0] != '-') fail("%s: is no flag (%s --help lists them)", shown, p);
    const Flag* nearest = nullptr;
    size_t distance = std::min<size_t>(2, name.size() / 3);
    for (const Flag& f : flags) {
        if (name == f.name)
            fail("%s: not a flag of %s (%s --help lists those)", shown, p, p);
        size_t d = edit_distance(name, f.name);
        if ((f.groups & groups) && d <= distance) nearest = &f, distance = d - 1;
    }
    fail("%s: unknown flag (%s%s%s --help lists them)", shown, nearest ? "did you mean " : "",
         nearest ? text("%s? ", nearest->name).c_str() : "", p);
}

// Sets what the words say, of the flags that are in one of the groups, and returns their names. A
// flag that is given twice is an error, except a list, to which each time appends. Words of another
// origin than the user's come first, in a call of their own: what a later call sets replaces them.
inline std::set<std::string> parse_flags(const std::vector<Flag>& flags,
                                         const std::vector<std::string>& words,
                                         const std::string& program, int groups = ~0) {
    std::set<std::string> given;
    const Flag* flag = nullptr;
    for (size_t i = 0; i < words.size(); i++) {
        const std::string& word = words[i];
        const bool argument = word[0] != '-';
        const size_t equals = std::min(word.size(), argument ? word.size() : word.find('='));
        const std::string name = word == "-h" ? "--help" : word.substr(0, equals);
        const Flag* before = flag;
        flag = nullptr;
        for (const Flag& f : flags)
            if (!flag && (f.groups & groups) &&
                (argument ? f.name[0] != '-' && !given.count(f.name) : name == f.name))
                flag = &f;
        if (!flag) refuse_word(flags, groups, name, before, program);
        const bool first = given.insert(flag->name).second;
        if (!first && !flag->to.list) fail("%s: given twice", flag->name);
        if (first && flag->to.list) flag->to.list->clear();
        std::string value = "1";   // of a switch
        if (argument) value = word;
        else if (flag->to.on && equals < word.size()) fail("%s: takes no value", flag->name);
        else if (equals < word.size()) value = word.substr(equals + 1);
        else if (!flag->to.on && ++i == words.size())
            fail("%s: needs a value: %s %s", flag->name, flag->name, flag->value);
        else if (!flag->to.on) value = words[i];
        set_flag(*flag, value, flag->name);
    }
    return given;
}

// Fails where a flag that the group cannot do without was not given.
inline void require_flags(const std::vector<Flag>& flags, const std::set<std::string>& given,
                          const std::string& program, int group) {
    for (const Flag& f : flags)
        if ((f.needed & group) && !given.count(f.name))
            fail("%s: needs %s%s%s (%s --help explains)", program.c_str(), f.name,
                 *f.value ? " " : "", f.value, program.c_str());
}

// A command as --help shows it, with its arguments: "infer quantize IN OUT TYPE".
inline std::string usage(const std::vector<Flag>& flags, std::string program, int group) {
    for (const Flag& f : flags)
        if ((f.groups & group) && f.name[0] != '-') program += text(" %s", f.name);
    return program;
}

// --help's lines, with the defaults, if the table is that of an Options that holds them.
inline void print_flags(const std::vector<Flag>& flags, int groups = ~0) {
    for (const Flag& f : flags) {
        if (!(f.groups & groups)) continue;
        std::string left = text("%s %s", f.name, f.value), value = flag_text(f);
        if (left.size() > 28) left += text("\n  %-28s", "");
        if (f.to.on || value.empty()) printf("  %-28s %s\n", left.c_str(), f.help);
        else printf("  %-28s %s [%s]\n", left.c_str(), f.help, value.c_str());
    }
}
