// chat.h - conversations: turns of text as the ids that a model was trained on, and the loop that
// holds one with a person at a terminal, or with a file.
//
//     CHAT_FORMATS      how each family of models writes turns down
//     new_chat()        the format, from the file's chat template or by name; the system message
//     add_turn()        one turn's ids: what marks it are special tokens, and its text never is
//     make_room()       past the context: the system message and the newest turns stay
//     answer()          the model's turn, token by token
//     hold_chat()       the loop: lines, commands, Ctrl-C
//
// A model's file holds its template as a program in Jinja, a language that is not interpreted here:
// the two formats that most models use are recognised by the tokens that they mark turns with, and
// the system message that a template supplies by itself is read out of it.
//
// Nothing here knows how a model computes. It asks for one token after another:
//     int next(const std::vector<int>& ids, size_t same)
// what follows ids, the first `same` of which were there when it was last asked; -1: interrupted.
#pragma once
#include <chrono>
#include <functional>
#include "tokenizer.h"

// ---- formats ------------------------------------------------------------------------------------

struct ChatFormat {
    const char* name;
    const char* begin;      // the token before the first turn; "": what begins any text
    const char* open;       // the token before a turn's role; "": roles are not written
    const char* role_end;   // the token after it, or ""
    const char* before;     // text before the turn's own
    const char* close;      // the token after it, or ""
    const char* after;      // text after that
    bool trimmed;           // without white space around the turn's text
};

inline const ChatFormat CHAT_FORMATS[] = {
    {"chatml", "", "<|im_start|>", "", "\n", "<|im_end|>", "\n", false},
    {"llama3", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "\n\n",
     "<|eot_id|>", "", true},
    {"plain", "", "", "", "", "", "\n", false}};   // for models that have learned from texts alone

struct Turn {
    std::string role, text;
    std::vector<int> ids;   // with all that marks it
};

struct Chat {
    const Tokenizer* tokenizer;
    const ChatFormat* format;
    int begin, open, role_end, close;   // the format's tokens; -1: none
    size_t context;                     // the most ids that the model takes
    std::string system;                 // "": no such turn
    std::vector<Turn> turns;
    std::vector<int> seen;              // the ids that the model was last asked about
};

typedef std::function<int(const std::vector<int>& ids, size_t same)> NextToken;

// The format that is asked for ("": the one whose marks the file's template has).
inline const ChatFormat& chat_format(const Gguf& g, const std::string& wanted) {
    std::string given = gguf_string_or(g, "tokenizer.chat_template", ""), names;
    for (const ChatFormat& f : CHAT_FORMATS) {
        bool marked = *f.open && given.find(f.open) != std::string::npos;
        if (wanted.empty() ? marked : wanted == f.name) return f;
        names += (names.empty() ? "" : "|") + std::string(f.name);
    }
    if (!wanted.empty())
        fail("--template: \"%s\", expected %s", gguf_printable(wanted, 40).c_str(), names.c_str());
    fail("%s: key tokenizer.chat_template: %s (--template %s chooses a format)",
         g.file.path.c_str(), given.empty() ? "missing" : "has the marks of no known format",
         names.c_str());
}

// The system message that a template puts where the conversation has none: the text of a string
// literal that holds all of such a turn, as in '<|im_start|>system\nYou are ...<|im_end|>\n'.
inline std::string template_system(const std::string& given, const ChatFormat& f) {
    std::string mark = std::string(f.open) + "system" + f.role_end;
    for (size_t at = 1; *f.open && (at = given.find(mark, at)) != std::string::npos; at++) {
        std::string literal;
        for (size_t i = at + mark.size(); i < given.size() && given[i] != given[at - 1]; i++) {
            bool escaped = given[i] == '\\' && i + 1 < given.size();
            char c = given[i += escaped];
            literal += escaped && c == 'n' ? '\n' : c;
        }
        size_t end = literal.find(f.close), start = strlen(f.before);
        if ((given[at - 1] == '\'' || given[at - 1] == '"') && end != std::string::npos &&
            end >= start && literal.compare(0, start, f.before) == 0)
            return literal.substr(start, end - start);
    }
    return "";
}

// The special token that is spelled so; -1 for "".
inline int chat_token(const Gguf& g, const Tokenizer& t, const ChatFormat& f, const char* spelled) {
    for (int id : t.special)
        if (t.tokens[id] == spelled) return id;
    if (*spelled)
        fail("%s: key tokenizer.ggml.tokens: no special token %s, which the format %s needs"
             " (--template chooses another)", g.file.path.c_str(), spelled, f.name);
    return -1;
}

inline void add_turn(Chat& c, const std::string& role, const std::string& text);

inline void reset_chat(Chat& c) {
    c.turns.clear();
    if (!c.system.empty()) add_turn(c, "system", c.system);
}

// system: null for the template's own.
inline Chat new_chat(const Gguf& g, const Tokenizer& t, int context, const std::string& format,
                     const std::string* system) {
    const ChatFormat& f = chat_format(g, format);
    auto token = [&](const char* spelled) { return chat_token(g, t, f, spelled); };
    std::string given = gguf_string_or(g, "tokenizer.chat_template", "");
    int begin = *f.begin ? token(f.begin) : t.begin;
    Chat c = {&t, &f, begin, token(f.open), token(f.role_end), token(f.close), (size_t)context,
              system ? *system : template_system(given, f), {}, {}};
    reset_chat(c);
    return c;
}

// ---- turns --------------------------------------------------------------------------------------

// What comes before a turn's text. Where no token stands between them, role and text are one text
// to the tokenizer.
inline void add_header(Chat& c, Turn& turn, const std::string& text) {
    if (c.open >= 0) turn.ids.push_back(c.open);
    std::string whole = c.open >= 0 ? turn.role : "";
    if (c.role_end >= 0) {
        std::vector<int> role = encode(*c.tokenizer, whole);
        turn.ids.insert(turn.ids.end(), role.begin(), role.end());
        turn.ids.push_back(c.role_end);
        whole.clear();
    }
    std::vector<int> rest = encode(*c.tokenizer, whole + c.format->before + text);
    turn.ids.insert(turn.ids.end(), rest.begin(), rest.end());
}

inline void close_turn(Chat& c, Turn& turn) {
    if (c.close >= 0) turn.ids.push_back(c.close);
    std::vector<int> after = encode(*c.tokenizer, c.format->after);
    turn.ids.insert(turn.ids.end(), after.begin(), after.end());
}

inline void add_turn(Chat& c, const std::string& role, const std::string& text) {
    Turn turn = {role, text, {}};
    const char* space = " \t\r\n\v\f";
    if (c.format->trimmed) {
        turn.text.erase(0, std::min(turn.text.find_first_not_of(space), turn.text.size()));
        turn.text.erase(turn.text.find_last_not_of(space) + 1);
    }
    add_header(c, turn, turn.text);
    close_turn(c, turn);
    c.turns.push_back(turn);
}

inline std::vector<int> chat_ids(const Chat& c) {
    std::vector<int> ids;
    if (c.begin >= 0) ids.push_back(c.begin);
    for (const Turn& turn : c.turns) ids.insert(ids.end(), turn.ids.begin(), turn.ids.end());
    return ids;
}

// Lets go of the oldest turns, each user's with its answer, until the model takes `room` ids more.
// The system message stays, and so does what came from the last user on. Returns how many went.
inline int make_room(Chat& c, size_t room) {
    int dropped = 0;
    while (chat_ids(c).size() + room > c.context) {
        size_t first = !c.turns.empty() && c.turns[0].role == "system", end = first + 1;
        while (end < c.turns.size() && c.turns[end].role != "user") end++;
        if (end >= c.turns.size()) break;
        c.turns.erase(c.turns.begin() + first, c.turns.begin() + end);
        dropped += (int)(end - first);
    }
    return dropped;
}

// ---- the model's turn ---------------------------------------------------------------------------

inline volatile sig_atomic_t chat_interrupted = 0;   // set by Ctrl-C

// Asks for the token after the ids.
inline int ask(Chat& c, const NextToken& next, const std::vector<int>& ids) {
    size_t same = 0, most = std::min(c.seen.size(), ids.size() - 1);
    while (same < most && c.seen[same] == ids[same]) same++;
    int id = next(ids, same);
    c.seen = ids;
    if (id < 0) c.seen.resize(same);
    return id;
}

// Adds the model's turn of at most `most` tokens, and prints it while it grows. An eighth of the
// context is kept free for it; if that is used up, more old turns go. False: the last turn is too
// long for the context; nothing is added.
inline bool answer(Chat& c, const NextToken& next, int64_t most) {
    auto now = [] { return std::chrono::steady_clock::now(); };
    const size_t closing = encode(*c.tokenizer, c.format->after).size() + (c.close >= 0);
    const size_t room = std::max(c.context / 8, closing + 1);
    Turn reply = {"assistant", "", {}};
    add_header(c, reply, "");
    c.turns.push_back(reply);
    Turn* turn = &c.turns.back();
    std::vector<int> ids = chat_ids(c);
    std::string pending, why;
    int64_t made = 0;
    auto start = now(), first = start;
    for (bool fits = ids.size() + room <= c.context;; fits = ids.size() + closing < c.context) {
        if (!fits) {
            int dropped = make_room(c, room);
            turn = &c.turns.back();
            ids = chat_ids(c);
            if (dropped)
                fprintf(stderr, "%s[the context is full: the %d oldest turns are forgotten]\n",
                        made ? "\n" : "", dropped);
            fits = ids.size() + closing < c.context;
            if (!fits && made == 0) return c.turns.pop_back(), false;
            if (!fits) why = "the context is full";
        }
        if (made == most) why = "-n is reached";
        int id = why.empty() && !chat_interrupted ? ask(c, next, ids) : -1;
        if (chat_interrupted) why = "interrupted";
        if (!why.empty() || id == c.close || is_end(*c.tokenizer, id)) break;
        if (made++ == 0) first = now();
        ids.push_back(id);
        turn->ids.push_back(id);
        turn->text += token_bytes(*c.tokenizer, id);
        pending += token_bytes(*c.tokenizer, id);
        print_utf8(pending, false);
    }
    print_utf8(pending, true);
    printf("\n");
    fflush(stdout);
    close_turn(c, *turn);
    double seconds = std::chrono::duration<double>(now() - first).count();
    fprintf(stderr, "[%lld tokens", (long long)made);
    if (made > 1) fprintf(stderr, ", %.1f tok/s", (double)(made - 1) / seconds);
    fprintf(stderr, " | context %zu of %zu%s%s]\n", chat_ids(c).size(), c.context,
            why.empty() ? "" : " | stopped: ", why.c_str());
    return true;
}

// ---- the loop -----------------------------------------------------------------------------------

inline std::string json_quoted(const std::string& s) {
    std::string out = "\"";
    for (size_t i = 0, length; i < s.size(); i += length) {
        int c = utf8_character(s, i, &length);
        if (c == '"' || c == '\\') out += std::string("\\") + (char)c;
        else if (c >= 0 && c < 0x20) out += text("\\u%04x", c);
        else if (c < 0) out += "\xef\xbf\xbd";
        else out.append(s, i, length);
    }
    return out + "\"";
}

// One turn a line, as an object. Why it cannot be saved, or "". Only a conversation is written
// over, so that a slip of the finger costs no other file.
inline std::string save_chat(const Chat& c, const std::string& path) {
    const std::string start = "{\"role\": ";
    if (path.empty()) return "expected a file's name: /save FILE";
    if (FILE* old = fopen(path.c_str(), "rb")) {
        std::string found(start.size(), '\0');
        found.resize(fread(&found[0], 1, found.size(), old));
        fclose(old);
        if (found != start) return path + ": exists, and is no conversation: give another name";
    } else if (errno != ENOENT) {
        return path + ": " + strerror(errno);
    }
    if (access(parent_folder(path).c_str(), W_OK) != 0)
        return parent_folder(path) + ": " + strerror(errno);
    AtomicFile f = atomic_open(path);
    for (const Turn& turn : c.turns) {
        std::string line = start + json_quoted(turn.role) + ", \"content\": " +
                           json_quoted(turn.text) + "}\n";
        atomic_write(f, line.data(), line.size());
    }
    atomic_close(f);
    return "";
}

// The next line of stdin, without its end. False: there is no more, or Ctrl-C was pressed.
inline bool read_line(std::string& line, bool prompt) {
    if (prompt) fputs("> ", stderr);
    line.clear();
    int c = EOF;
    while (!chat_interrupted && (c = getc(stdin)) != EOF && c != '\n') line += (char)c;
    return !chat_interrupted && (c == '\n' || !line.empty());
}

// False: the conversation is over.
inline bool obey(Chat& c, const std::string& line) {
    size_t space = std::min(line.find(' '), line.size());
    std::string command = line.substr(0, space);
    std::string rest = line.substr(std::min(space + 1, line.size()));
    if (command == "/quit") return false;
    if (command == "/reset") {
        reset_chat(c);
        fprintf(stderr, "[a new conversation]\n");
    } else if (command == "/save") {
        std::string why = save_chat(c, rest);
        if (why.empty()) fprintf(stderr, "[saved: %zu turns]\n", c.turns.size());
        else fprintf(stderr, "[not saved: %s]\n", gguf_printable(why, 300).c_str());
    } else {
        if (command != "/help")
            fprintf(stderr, "[%s: unknown]\n", gguf_printable(command, 40).c_str());
        fputs("/reset       begin anew\n"
              "/save FILE   write the turns, one a line, as JSON\n"
              "/quit        end (so do Ctrl-D, and Ctrl-C while you write)\n"
              "Ctrl-C       stop an answer; a space before / makes it a text\n", stderr);
    }
    return true;
}

// Answers line after line of stdin. Ctrl-C stops an answer; at the prompt it ends the program.
inline void hold_chat(Chat& c, const NextToken& next, int64_t most) {
    struct sigaction action = {};   // without SA_RESTART, so that reading a line ends, too
    action.sa_handler = [](int) { chat_interrupted = 1; };
    sigaction(SIGINT, &action, nullptr);
    const bool terminal = isatty(STDIN_FILENO);
    for (std::string line; read_line(line, terminal); chat_interrupted = 0) {
        if (line.empty()) continue;
        if (line[0] == '/') {
            if (!obey(c, line)) return;
            continue;
        }
        add_turn(c, "user", line.compare(0, 2, " /") == 0 ? line.substr(1) : line);
        if (answer(c, next, most)) continue;
        fprintf(stderr, "[your text of %zu tokens is too long for a context of %zu]\n",
                c.turns.back().ids.size(), c.context);
        c.turns.pop_back();
    }
    if (terminal) fputs("\n", stderr);
}
