// files.h - the little that every program here needs from the operating system: how to fail, how to
// read a file without copying it, and how to write one so that a crash never leaves half of it.
//
// fail()               print one complete sentence to stderr and exit with 1
// MappedFile           a whole file, read-only, as memory
// AtomicFile           write to a temporary name, fsync, rename: complete or not there at all
#pragma once
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// Every error ends here. A good message names the file, the field, what was found, what was
// expected, and a hint: "model.gguf: key gpt2.block_count: missing (is this a GPT-2 model?)".
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    fflush(stdout);
    va_list args;
    va_start(args, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

// printf into a std::string.
__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    std::string out(vsnprintf(nullptr, 0, format, args), '\0');
    vsnprintf(&out[0], out.size() + 1, format, again);
    va_end(args);
    va_end(again);
    return out;
}

// ---- reading ------------------------------------------------------------------------------------

// A whole file as read-only memory. The operating system reads pages as they are touched,
// so opening a large file costs nothing, and two processes that read the same file share one copy.
struct MappedFile {
    std::string path;
    const uint8_t* data = nullptr;
    uint64_t size = 0;
};

// Errors: a file that cannot be opened, is a folder, or is empty.
inline MappedFile map_file(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("%s: cannot be opened: %s", path.c_str(), strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        fail("%s: is not a regular file", path.c_str());
    if (info.st_size == 0) fail("%s: is empty", path.c_str());
    MappedFile f;
    f.path = path;
    f.size = (uint64_t)info.st_size;
    void* map = mmap(nullptr, f.size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) fail("%s: cannot be mapped: %s", path.c_str(), strerror(errno));
    close(fd);   // the mapping keeps the file alive
    f.data = (const uint8_t*)map;
    return f;
}

inline void unmap_file(MappedFile& f) {
    if (f.data) munmap((void*)f.data, f.size);
    f.data = nullptr;
    f.size = 0;
}

// ---- writing ------------------------------------------------------------------------------------

// After a rename, the new name itself is only on disk once its folder is. Takes a folder or a file.
inline void sync_path(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("%s: cannot be opened: %s", path.c_str(), strerror(errno));
    if (fsync(fd) != 0) fail("%s: cannot be written to disk: %s", path.c_str(), strerror(errno));
    close(fd);
}

inline std::string parent_folder(const std::string& path) {
    size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// Bytes go to PATH.tmp; only atomic_close gives them their name. Whoever opens PATH sees the old
// file or the new one, whole, whatever happens in between: rename(2) is atomic, and fsync before it
// makes sure that the name never reaches the disk ahead of the bytes.
struct AtomicFile {
    std::string path;
    FILE* stream = nullptr;
};

inline AtomicFile atomic_open(const std::string& path) {
    AtomicFile f;
    f.path = path;
    f.stream = fopen((path + ".tmp").c_str(), "wb");
    if (!f.stream) fail("%s.tmp: cannot be written: %s", path.c_str(), strerror(errno));
    return f;
}

inline void atomic_write(AtomicFile& f, const void* bytes, size_t n) {
    if (fwrite(bytes, 1, n, f.stream) != n)
        fail("%s.tmp: cannot be written: %s (is the disk full?)", f.path.c_str(), strerror(errno));
}

inline void atomic_close(AtomicFile& f) {
    if (fflush(f.stream) != 0 || fsync(fileno(f.stream)) != 0 || fclose(f.stream) != 0)
        fail("%s.tmp: cannot be written: %s (is the disk full?)", f.path.c_str(), strerror(errno));
    if (rename((f.path + ".tmp").c_str(), f.path.c_str()) != 0)
        fail("%s: cannot be renamed from %s.tmp: %s", f.path.c_str(), f.path.c_str(),
             strerror(errno));
    sync_path(parent_folder(f.path));
    f.stream = nullptr;
}
