"""bpe.py - byte-level byte pair encoding (BPE), GPT-2's tokenizer: learning one, and using it.

A model reads numbers, not letters. The smallest honest alphabet is the 256 bytes, which can spell
every text in every script, but a word then takes many steps. BPE makes the alphabet larger: look
for the pair of neighbouring tokens that is most frequent in the text, make it a new token, replace
it everywhere, and repeat. "the" becomes t+h, then th+e; " the" a little later.
                                                 Sennrich, Haddow and Birch 2016, arXiv:1508.07909

    1. split()    the text is cut into words first, and no token ever crosses a cut
    2. train()    learns the list of merges from the words of a text and how often each occurs
    3. encode()   replays the merges, in the order in which they were learned, on new text

tokenizer.h does 1 and 3 in C++; both give exactly the ids that tiktoken and llama.cpp give.
"""
import collections
import hashlib
import heapq
import itertools
import os
import re

from files import Failure, open_regular, read_object, shown
from gguf import pack_string

END_OF_TEXT = "<|endoftext|>"
FINGERPRINT = "tokenizer.legible.sha256"
CACHE_LIMIT = 1 << 20   # words whose ids are remembered, so that memory stays bounded


# ---- 1. split ------------------------------------------------------------------------------------
# GPT-2's pattern, in the order in which the alternatives are tried:
#
#     's|'t|'re|'ve|'m|'ll|'d      an English ending: it's = it + 's
#     | ?\p{L}+                    letters with the space before them, so that " cat" is one word
#     | ?\p{N}+                    numbers, likewise
#     | ?[^\s\p{L}\p{N}]+          everything else that is not white space, likewise
#     |\s+(?!\S)                   white space, save its last character if a word follows
#     |\s+                         that last character, when the word did not take it along
#
# Python's re has neither \p{L} nor the right \s, so the classes are spelled out, from the same
# table that C++ reads.

def unicode_runs():
    """The table in unicode_tables.h: [(class, length)], from U+0000 on; class L, N, s or o."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unicode_tables.h")
    with open(path) as f:
        table = "".join(re.findall(r'^    "(\w+)"', f.read(), re.M))
    return [(name, int(length)) for name, length in re.findall(r"([LNso])(\d+)", table)]


def character_ranges(wanted, limit):
    """The characters of one class, below limit, as the inside of a regular expression's [...]."""
    ranges, first = [], 0
    for name, length in unicode_runs():
        if name == wanted and first < limit:
            ranges.append(f"\\U{first:08x}-\\U{min(first + length, limit) - 1:08x}")
        first += length
    return "".join(ranges)


def split_pattern(limit=0x110000):
    L, N, s = (character_ranges(name, limit) for name in "LNs")
    return rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{s}{L}{N}]+|[{s}]+(?![^{s}])|[{s}]+"


# re looks up characters below U+10000 in a table, those above by a search through all their
# ranges, and it does so for every character that a class does not hold. Text without them is split
# 4 times faster.
WORDS_ALL, WORDS_BELOW_10000 = re.compile(split_pattern()), re.compile(split_pattern(0x10000))
WHITESPACE = "".join(re.findall(f"[{character_ranges('s', 0x10000)}]",
                                "".join(map(chr, range(0x10000)))))


def split(text):
    """split("it's 42!") is ["it", "'s", " 42", "!"]; joined they are the text again."""
    words = WORDS_BELOW_10000 if max(text, default="") < "\U00010000" else WORDS_ALL
    return words.findall(text)


# ---- 2. train ------------------------------------------------------------------------------------

def train(word_counts, merge_count):
    """Learns up to merge_count merges from {word: how often it occurs}. Returns [(left id, right
    id)]: ids 0 to 255 are the bytes, and merge i makes id 256 + i. The list is shorter than asked
    for when no pair is left that occurs twice.

    Counting all pairs anew after each merge would cost merges * text. Two ideas make it fast:
    equal words are kept once, with their count, and a merge changes the counts only in the words
    that hold its pair. The most frequent pair is on top of a heap; of equally frequent ones it is
    the one with the smallest ids, so that the result depends on nothing but the counts.
    """
    words = [list(word.encode("utf-8")) for word in word_counts]
    counts = list(word_counts.values())
    pair_counts = collections.Counter()
    where = collections.defaultdict(set)   # pair -> the words that hold it, or once did
    for i, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pair_counts[pair] += counts[i]
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges = []
    while heap and len(merges) < merge_count:
        count, pair = heapq.heappop(heap)
        if -count != pair_counts[pair]:
            continue   # out of date: the pair went back on the heap whenever its count changed
        if -count < 2:
            break
        new_id = 256 + len(merges)
        merges.append(pair)
        changed = set()
        for i in where.pop(pair):
            old = words[i]
            words[i] = new = replace_pair(old, pair, new_id)
            if len(new) == len(old):
                continue   # an earlier merge took this pair's parts
            for p in zip(old, old[1:]):
                pair_counts[p] -= counts[i]
                changed.add(p)
            for p in zip(new, new[1:]):
                pair_counts[p] += counts[i]
                where[p].add(i)
                changed.add(p)
        for p in changed:
            if pair_counts[p] > 0:
                heapq.heappush(heap, (-pair_counts[p], p))
            else:
                del pair_counts[p]
    return merges


def replace_pair(ids, pair, new_id):
    """ids with every occurrence of the pair replaced, from left to right: aaa becomes (aa)a."""
    left, right = pair
    out, i, last = [], 0, len(ids) - 1
    while i <= last:
        if ids[i] == left and i < last and ids[i + 1] == right:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


# ---- 3. encode -----------------------------------------------------------------------------------

class Tokenizer:
    """tokens[id] is the bytes of a token, merges {(left id, right id): (rank, merged id)} with the
    lowest rank learned first, end_of_text the id of the token that precedes a document, and control
    the ids, it among them, that no text spells."""

    def __init__(self, tokens, merges, end_of_text, control=()):
        self.tokens, self.merges, self.end_of_text = tokens, merges, end_of_text
        self.control = {end_of_text, *control}
        self.byte_ids = [None] * 256
        for id, token in enumerate(tokens):
            if len(token) == 1 and id not in self.control:
                self.byte_ids[token[0]] = id
        self.cache = Cache(lambda word: self.encode_word(word.encode("utf-8")))

    def encode(self, text):
        """The ids of a text, which may hold anything: end-of-text, too, is spelled out in bytes."""
        if len(self.cache) > CACHE_LIMIT:
            self.cache.clear()
        return list(itertools.chain.from_iterable(map(self.cache.__getitem__, split(text))))

    def decode(self, ids):
        return b"".join(map(self.tokens.__getitem__, ids))

    def encode_word(self, word):
        """Applies the merges to the bytes of one word: always the one that was learned first, of
        equal ones the leftmost. A heap of candidates and a linked list of tokens make this n log n
        for a "word" of n bytes; going over the word again for each merge would be n * n, and texts
        do hold megabytes without a space."""
        ids = [self.byte_ids[byte] for byte in word]
        next = list(range(1, len(ids) + 1))
        previous = list(range(-1, len(ids) - 1))
        heap = []   # (rank, position of the left token, left id, right id)

        def consider(i):
            if i >= 0 and next[i] < len(ids):
                pair = ids[i], ids[next[i]]
                if pair in self.merges:
                    heapq.heappush(heap, (self.merges[pair][0], i) + pair)

        for i in range(len(ids)):
            consider(i)
        while heap:
            rank, i, left, right = heapq.heappop(heap)
            j = next[i]
            if ids[i] != left or j >= len(ids) or ids[j] != right:
                continue   # one of the two has been merged with something else since
            ids[i] = self.merges[left, right][1]
            ids[j] = None
            next[i] = next[j]
            if next[j] < len(ids):
                previous[next[j]] = i
            consider(previous[i])
            consider(i)
        return [id for id in ids if id is not None]


class Cache(dict):
    """A dict that computes what it lacks."""

    def __init__(self, compute):
        super().__init__()
        self.compute = compute

    def __missing__(self, key):
        self[key] = value = self.compute(key)
        return value


def from_merges(pairs):
    """The tokenizer of train()'s result: 256 bytes, the merges, end of text."""
    tokens = [bytes([i]) for i in range(256)]
    for left, right in pairs:
        tokens.append(tokens[left] + tokens[right])
    merges = {pair: (rank, 256 + rank) for rank, pair in enumerate(pairs)}
    return Tokenizer(tokens + [END_OF_TEXT.encode()], merges, len(tokens))


# ---- files ---------------------------------------------------------------------------------------
# GPT-2's files and GGUF hold tokens as text, in which each byte stands as one visible character:
# those that are visible in Latin-1 as themselves, the other 68 as U+0100, U+0101, ... in order. So
# a space, byte 32, is written as "Ġ", and a list of merges can be separated by spaces.

VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [byte for byte in range(256) if byte not in VISIBLE]
BYTE_TO_CHAR = {**{byte: chr(byte) for byte in VISIBLE},
                **{byte: chr(0x100 + i) for i, byte in enumerate(HIDDEN)}}
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def to_visible(token):
    return "".join(map(BYTE_TO_CHAR.__getitem__, token))


def from_tables(source, tokens, merges, end_of_text, control):
    """A tokenizer from visible strings: tokens in the order of their ids, merges "left right" in
    the order in which they were learned. `control` ids, end-of-text among them, stand for
    themselves, and source is the file's name for messages."""
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for token, n in collections.Counter(tokens).items() if n > 1)
        raise Failure(f"{source}: token {twice!r:.60} appears twice")
    for byte, char in BYTE_TO_CHAR.items():
        if ids.get(char, end_of_text) in control:
            raise Failure(f"{source}: no token for byte {byte} ({char!r}), expected all 256"
                          " (is this a byte-level BPE?)")
    raw = []
    for id, token in enumerate(tokens):
        spelled = id not in control and all(char in CHAR_TO_BYTE for char in token)
        try:
            raw.append(bytes(map(CHAR_TO_BYTE.__getitem__, token)) if spelled else token.encode())
        except UnicodeEncodeError:   # JSON can spell half of a surrogate pair
            raise Failure(f"{source}: token {id}, {token!r:.60}, is no Unicode text")
    table = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        if left + right not in ids:
            raise Failure(f"{source}: merges: {merge!r:.60}, number {rank}, makes no token")
        if left not in ids or right not in ids or not control.isdisjoint((ids[left], ids[right])):
            continue   # nothing can ever make its parts
        if ids[left + right] in control:   # a stranger's text could make end-of-text
            raise Failure(f"{source}: merges: {merge!r:.60}, number {rank}, makes a control token")
        table.setdefault((ids[left], ids[right]), (rank, ids[left + right]))
    return Tokenizer(raw, table, end_of_text, control)


def from_vocabulary(source, ids, merges, special):
    """A tokenizer from JSON: {token: id}, merges, and the tokens that no text spells."""
    for token, id in ids.items():
        if type(id) is not int:
            raise Failure(f"{source}: token {token!r:.60} has the id {shown(id)}, expected an"
                          " integer")
    if sorted(ids.values()) != list(range(len(ids))) or END_OF_TEXT not in ids:
        raise Failure(f"{source}: ids are not 0 to {len(ids) - 1}, or {END_OF_TEXT} is not among"
                      " them")
    control = {ids[token] for token in [END_OF_TEXT, *special]}
    return from_tables(source, sorted(ids, key=ids.get), merges, ids[END_OF_TEXT], control)


def from_gpt2(vocab_bpe, encoder_json):
    """OpenAI's two files: the merges, and the ids."""
    with open_regular(vocab_bpe) as f:
        try:
            lines = f.read().decode("utf-8").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as e:
            raise Failure(f"{vocab_bpe}: {e}")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return from_vocabulary(encoder_json, read_object(encoder_json), merges, [])


def from_tokenizer_json(path):
    """What Hugging Face's tokenizers write: one file, which describes any of their tokenizers. Read
    is the description of GPT-2's; what would give other ids is refused by name."""
    whole = read_object(path)
    model, pre = (whole.get(name) if isinstance(whole.get(name), dict) else {}
                  for name in ("model", "pre_tokenizer"))
    for where, object, name, accepted in (
            ("model.", model, "type", ("BPE", None)),
            ("pre_tokenizer.", pre, "type", ("ByteLevel",)),
            ("pre_tokenizer.", pre, "add_prefix_space", (False,)),
            ("pre_tokenizer.", pre, "use_regex", (True, None)),
            ("", whole, "normalizer", (None,)), ("model.", model, "dropout", (None, 0)),
            ("model.", model, "continuing_subword_prefix", (None, "")),
            ("model.", model, "end_of_word_suffix", (None, "")),
            ("model.", model, "byte_fallback", (None, False)),
            ("model.", model, "ignore_merges", (None, False))):
        if object.get(name) not in accepted:
            raise Failure(f"{path}: {where}{name} is {shown(object.get(name))}, expected"
                          f" {shown(accepted[0])} (only GPT-2's byte-level BPE is read)")
    ids, merges, added = model.get("vocab"), model.get("merges"), whole.get("added_tokens", [])
    if not (isinstance(ids, dict) and isinstance(merges, list) and isinstance(added, list)):
        raise Failure(f"{path}: expected model.vocab, an object, and model.merges and added_tokens,"
                      " arrays")
    for i, merge in enumerate(merges):   # "a b", or since 2024 ["a", "b"]
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(parts, list) and len(parts) == 2
                and all(isinstance(part, str) and " " not in part for part in parts)):
            raise Failure(f"{path}: model.merges: number {i} is {shown(merge)}, expected two"
                          " tokens")
        merges[i] = " ".join(parts)
    special = []
    for i, token in enumerate(added):
        token = token if isinstance(token, dict) else {}
        name, id = token.get("content"), token.get("id")
        if (not isinstance(name, str) or token.get("special") is not True
                or ids.setdefault(name, id) != id):
            raise Failure(f"{path}: added_tokens: number {i} is {shown(name)} with the id"
                          f" {shown(id)}, expected a special token with the id that"
                          " model.vocab gives it, if any (GPT-2 has no other added tokens)")
        special.append(name)
    return from_vocabulary(path, ids, merges, special)


def from_gguf(f):
    """The tokenizer in a GGUF file, as gguf.read() returns it."""
    model = f.value("tokenizer.ggml.model", type="string")
    if model != "gpt2":
        raise Failure(f"{f.path}: key tokenizer.ggml.model: {model!r:.60}, expected 'gpt2'")
    pre = f.value("tokenizer.ggml.pre", "gpt-2", type="string")
    if pre != "gpt-2":
        raise Failure(f"{f.path}: key tokenizer.ggml.pre: {pre!r:.60}, expected 'gpt-2' (another"
                      " way to cut words)")
    tokens = f.value("tokenizer.ggml.tokens", type="strings")
    end = f.value("tokenizer.ggml.eos_token_id", type="int")
    if not 0 <= end < len(tokens):
        raise Failure(f"{f.path}: key tokenizer.ggml.eos_token_id: {end}, expected less than the"
                      f" number of tokens, {len(tokens)}")
    types = f.value("tokenizer.ggml.token_type", [1] * len(tokens), type="ints")
    if len(types) != len(tokens):
        raise Failure(f"{f.path}: key tokenizer.ggml.token_type: {len(types)} values, expected"
                      f" {len(tokens)}, one a token")
    if 4 in types:   # encode() would spell it in bytes, where infer and llama.cpp find it whole
        id = types.index(4)
        raise Failure(f"{f.path}: key tokenizer.ggml.token_type: token {id}, {tokens[id]!r:.60}, is"
                      " user defined (4), expected none such: only infer finds them in a text")
    control = {end} | {id for id, type in enumerate(types) if type != 1}
    merges = f.value("tokenizer.ggml.merges", type="strings")
    tokenizer = from_tables(f.path, tokens, merges, end, control)
    own = fingerprint(tokens, merges)
    if f.value(FINGERPRINT, own, type="string") != own:
        raise Failure(f"{f.path}: key {FINGERPRINT}: {f.value(FINGERPRINT)!r:.80}, but its tokens"
                      f" and merges give {own} (were they changed?)")
    return tokenizer


def visible_merges(tokenizer, visible):
    """The merges as "left right", in the order in which they were learned."""
    pairs = sorted(tokenizer.merges, key=tokenizer.merges.get)
    return [f"{visible[left]} {visible[right]}" for left, right in pairs]


def fingerprint(tokens, merges):
    """What tells two tokenizers apart, for shards and models made with one of them: the sha256 of
    all tokens and then all merges, each as a GGUF file holds it, its length as u64 before it."""
    return hashlib.sha256(b"".join(map(pack_string, [*tokens, *merges]))).hexdigest()


def to_keys(tokenizer, own={}):
    """The keys that put a tokenizer into a GGUF file, in the form that llama.cpp reads. `own` are
    the tokenizer.ggml.* keys of the file that it comes from, if that is a GGUF: they stay.

    llama.cpp wants at least one merge. A tokenizer of single bytes has none, so it gets one that
    can never apply: its left part, "<|endoftext|>", is no token, and nothing makes it."""
    control, end = tokenizer.control, tokenizer.end_of_text
    tokens = [token.decode() if id in control else to_visible(token)
              for id, token in enumerate(tokenizer.tokens)]
    merges = visible_merges(tokenizer, tokens)
    keys = {
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", "gpt-2"),
        "tokenizer.ggml.tokens": ("strings", tokens),
        "tokenizer.ggml.token_type":
            ("i32s", [3 if id in control else 1 for id in range(len(tokens))]),
        "tokenizer.ggml.merges": ("strings", merges or [f"{END_OF_TEXT[:-1]} {END_OF_TEXT[-1]}"]),
        "tokenizer.ggml.bos_token_id": ("u32", end),
        "tokenizer.ggml.eos_token_id": ("u32", end),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        **own}
    final = (keys[f"tokenizer.ggml.{name}"][1] for name in ("tokens", "merges"))
    return {**keys, FINGERPRINT: ("string", fingerprint(*final))}
