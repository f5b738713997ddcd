// bundle.h - one file: a program that carries its model. `infer bundle` writes such a file, the
// program finds the model in itself, and gguf_open() reads a bundle as it reads a GGUF file.
//
//     the runtime            an ELF executable: infer-x86_64, which launch.cpp describes
//     zeros                  up to a multiple of BUNDLE_PAGE                      <- the header
//     "legible bundle 1"     u64 bytes of the words     u64 bytes of the GGUF
//     words                  of the command line, baked in; each ends with a NUL
//     zeros                  up to a multiple of BUNDLE_PAGE                      <- the GGUF
//     the GGUF               as it was, to the file's end
//
// What follows an executable's last section header is no affair of the kernel, which loads only
// what its segments name. Nothing is unpacked: the GGUF begins a page, so it is mapped where it
// lies, and its sizes fix the file's length, so a bundle that was cut is told from a whole one.
#pragma once
#include <cinttypes>
#include <vector>
#include "files.h"
#ifdef __linux__
#include <sys/auxv.h>
#endif

const uint64_t BUNDLE_PAGE = 65536;   // the largest page of Linux on x86-64 (4096) and Arm
const char BUNDLE_MAGIC[] = "legible bundle 1";
const uint64_t BUNDLE_HEADER = sizeof BUNDLE_MAGIC - 1 + 16;

struct Bundle {
    uint64_t gguf_at = 0;             // 0: the file is no bundle
    std::vector<std::string> words;
};

inline uint64_t bundle_pad(uint64_t n) { return (n + BUNDLE_PAGE - 1) / BUNDLE_PAGE * BUNDLE_PAGE; }

// Where a program ends: with its section headers, which every linker writes last. 0 for a file that
// is no 64-bit little-endian ELF, or whose headers say that they lie outside it.
inline uint64_t program_bytes(const MappedFile& f) {
    uint64_t at;             // e_shoff, e_shentsize and e_shnum: System V ABI, "ELF header"
    uint16_t size, count;
    if (f.size < 64 || memcmp(f.data, "\x7f" "ELF\x02\x01", 6) != 0) return 0;
    memcpy(&at, f.data + 40, sizeof at);
    memcpy(&size, f.data + 58, sizeof size);
    memcpy(&count, f.data + 60, sizeof count);
    const uint64_t bytes = (uint64_t)size * count;
    return count && bytes <= f.size && at <= f.size - bytes ? at + bytes : 0;
}

// What is in the file; fails where a bundle's numbers contradict its length. A file without the
// header is no bundle, whatever else it may be.
inline Bundle read_bundle(const std::string& path) {
    MappedFile f = map_file(path);
    Bundle b;
    const uint64_t program = program_bytes(f), header = bundle_pad(program);   // program <= f.size
    const uint64_t left = header < f.size ? f.size - header : 0;
    const size_t magic = sizeof BUNDLE_MAGIC - 1;
    if (program && left >= BUNDLE_HEADER &&
        memcmp(f.data + header, BUNDLE_MAGIC, magic) == 0) {
        uint64_t words, gguf;
        memcpy(&words, f.data + header + magic, 8);
        memcpy(&gguf, f.data + header + magic + 8, 8);
        const char* text = (const char*)f.data + header + BUNDLE_HEADER;
        const bool fits = words <= left - BUNDLE_HEADER && (!words || text[words - 1] == '\0');
        b.gguf_at = fits ? header + bundle_pad(BUNDLE_HEADER + words) : f.size;
        if (b.gguf_at >= f.size || gguf != f.size - b.gguf_at)
            fail("%s: is a damaged bundle: %" PRIu64 " bytes of words and %" PRIu64 " of GGUF do"
                 " not fill the %" PRIu64 " after the program (was it copied completely?)",
                 path.c_str(), words, gguf, left);
        for (const char* end = text + words; text < end; text += b.words.back().size() + 1)
            b.words.push_back(text);
    }
    unmap_file(f);
    return b;
}

// Where this program lies; "" if that is not to be known. Without /proc, as in an empty chroot, it
// is the name that it was started by, which holds until the program goes to another folder.
inline std::string own_path() {
#ifdef __linux__
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n > 0 && n < (ssize_t)sizeof path) return std::string(path, (size_t)n);
    if (const char* name = (const char*)getauxval(AT_EXECFN)) return name;
#endif
    return "";
}

// Writes out: the program that path holds (if that is a bundle itself: without what it carries),
// words, gguf. Returns the program's bytes.
inline uint64_t write_bundle(const std::string& out, const std::string& path,
                             const std::vector<std::string>& words, const MappedFile& gguf) {
    MappedFile runtime = map_file(path);
    const uint64_t program = program_bytes(runtime);
    if (program == 0)
        fail("%s: is no program for 64-bit Linux, expected a runtime as `make runtime` builds it",
             path.c_str());
    std::string head = BUNDLE_MAGIC, baked;
    for (const std::string& word : words) baked += word + '\0';
    const uint64_t sizes[2] = {baked.size(), gguf.size};
    head.append((const char*)sizes, sizeof sizes);
    head += baked;
    head.resize(bundle_pad(head.size()));
    AtomicFile f = atomic_open(out, 0777);
    atomic_write(f, runtime.data, program);
    atomic_write(f, std::string(bundle_pad(program) - program, '\0').data(),
                 bundle_pad(program) - program);
    atomic_write(f, head.data(), head.size());
    atomic_write(f, gguf.data, gguf.size);
    atomic_close(f);
    unmap_file(runtime);
    return program;
}
