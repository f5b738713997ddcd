// files.h - the little that every program here needs from the operating system: how to fail, how to
// read a file without copying it, and how to write one so that a crash never leaves half of it.
//
// fail()               print one complete sentence to stderr and exit with 1
// MappedFile           a file, or its end, read-only, as memory
// AtomicFile           write to a temporary name, fsync, rename: complete or not there at all
// lock_folder()        a folder is one program's at a time
#pragma once
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
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

// An allocation that fails ends the program like any other error, in every program that includes
// this file. Where a size comes from a file, whoever allocates checks first that it is plausible.
inline const std::new_handler no_memory_left = std::set_new_handler([] {
    fail("out of memory: a file or a flag asks for more than this machine has to give");
});

// ---- reading ------------------------------------------------------------------------------------

// A file as read-only memory. The operating system reads pages as they are touched,
// so opening a large file costs nothing, and two processes that read the same file share one copy.
struct MappedFile {
    std::string path;
    const uint8_t* data = nullptr;
    uint64_t size = 0;
};

// What is mapped now, for the handler below. A list that only grows at its head: a signal may come
// at any moment, and finds it whole.
struct MappedRange {
    const uint8_t* data;
    uint64_t size;       // 0: unmapped again
    const char* path;
    MappedRange* next;
};
inline MappedRange* mapped_ranges = nullptr;

// A mapped file that another program cuts short has no bytes where its end was; whoever touches
// them gets SIGBUS. Only what is safe inside a signal handler is used here.
inline void on_bus_error(int number, siginfo_t* info, void*) {
    const uint8_t* at = (const uint8_t*)info->si_addr;
    for (MappedRange* r = mapped_ranges; r; r = r->next) {
        if (at < r->data || at >= r->data + r->size) continue;
        for (const char* part : {"\nerror: ", r->path, ": was cut short, or its disk failed, while "
                                 "it was read (replace a file in use by renaming, not in place)\n"})
            if (write(STDERR_FILENO, part, strlen(part)) < 0) break;
        _exit(1);
    }
    signal(number, SIG_DFL);   // not ours: as if there were no handler
}

inline const char* kind_of_file(mode_t mode) {
    return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket"
           : "a device";
}

// A file from byte `at`, a multiple of the page size, to its end. Errors: a file that cannot be
// opened, has no byte there, or is no regular file: only those can be mapped. O_NONBLOCK: opening a
// pipe would otherwise wait for somebody to write to it.
inline MappedFile map_file(const std::string& path, uint64_t at = 0) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0)
        fail("%s: cannot be opened: %s", path.c_str(), strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail("%s: is %s, expected a regular file", path.c_str(), kind_of_file(info.st_mode));
    if (info.st_size == 0) fail("%s: is empty", path.c_str());
    if (at >= (uint64_t)info.st_size) fail("%s: was cut short while it was opened", path.c_str());
    MappedFile f;
    f.path = path;
    f.size = (uint64_t)info.st_size - at;
    void* map = mmap(nullptr, f.size, PROT_READ, MAP_PRIVATE, fd, (off_t)at);
    if (map == MAP_FAILED) fail("%s: cannot be mapped: %s", path.c_str(), strerror(errno));
    close(fd);   // the mapping keeps the file alive
    f.data = (const uint8_t*)map;
    if (!mapped_ranges) {
        struct sigaction action = {};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGBUS, &action, nullptr);
    }
    mapped_ranges = new MappedRange{f.data, f.size, strdup(path.c_str()), mapped_ranges};
    return f;
}

// Maps all pages now, by all threads. Whoever touches them in an order of his own, as products do,
// has a file that is not in memory read in small pieces, which Linux then keeps as small pages: to
// map those takes each later start ten times as long. The parts are smaller than what it reads
// ahead, and follow each other. A system that does not know this advice maps pages as ever.
inline void populate(const MappedFile& f) {
#ifdef MADV_POPULATE_READ
    const uint64_t PART = 2 << 20;
#pragma omp parallel for schedule(dynamic) if (f.size > PART)
    for (uint64_t at = 0; at < f.size; at += PART)
        madvise((void*)(f.data + at), std::min(PART, f.size - at), MADV_POPULATE_READ);
#else
    (void)f;
#endif
}

inline void unmap_file(MappedFile& f) {
    if (f.data) munmap((void*)f.data, f.size);
    for (MappedRange* r = mapped_ranges; r; r = r->next)
        if (r->data == f.data) r->size = 0;
    f.data = nullptr;
    f.size = 0;
}

// ---- writing ------------------------------------------------------------------------------------

// Whether both names are there and lead to one file. A program that reads one and writes the other
// refuses that: replacing its input is more than it was asked for.
inline bool same_file(const std::string& a, const std::string& b) {
    struct stat x, y;
    return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

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

// Bytes go to a file of our own beside PATH; only atomic_close gives it that name. Whoever opens
// PATH sees the old file or the new one, whole, whatever happens in between: rename(2) is atomic,
// and fsync before it makes sure that the name never reaches the disk ahead of the bytes.
struct AtomicFile {
    std::string path, temporary;
    int fd = -1;
    std::string pending;   // bytes that are still here, fewer than ATOMIC_PIECE
};

// What is written in pieces of this size, at multiples of it, and from memory that is there, Linux
// keeps in pages as large: of those a program maps 500 MB in 2 ms. It took 68 ms where all was
// handed over at once, as it lay in another file's mapping: 120,000 small pages.
const size_t ATOMIC_PIECE = 2 << 20;

// O_EXCL: the temporary file is new, never somebody's file or what a symbolic link points to. Its
// name holds the process's number, so that two programs never write to one; a process of the same
// number that was killed may have left one, and then the next name is free. mode: who may do what,
// as far as the umask lets them.
inline AtomicFile atomic_open(const std::string& path, mode_t mode = 0666) {
    AtomicFile f;
    f.path = path;
    for (int i = 0; f.fd < 0; i++) {
        f.temporary = path + text(".legible-%ld-%d.tmp", (long)getpid(), i);
        f.fd = open(f.temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    mode);
        if (f.fd < 0 && errno != EEXIST)
            fail("%s: cannot be written: %s", f.temporary.c_str(), strerror(errno));
    }
    return f;
}

// Removes what killed processes left in a folder of files that were being written under this name.
// Only for a folder that is locked: otherwise their writer may be alive.
inline void remove_temporaries(const std::string& folder, const std::string& name) {
    DIR* open_folder = opendir(folder.c_str());
    if (!open_folder) return;
    while (const dirent* entry = readdir(open_folder)) {
        std::string found = entry->d_name;
        std::string begin = name + ".legible-";
        size_t middle = begin.size(), end = found.size() < 4 ? 0 : found.size() - 4;
        if (found.compare(0, middle, begin) == 0 && end > middle &&
            found.compare(end, 4, ".tmp") == 0 &&
            found.find_first_not_of("0123456789-", middle) == end)
            unlink((folder + "/" + found).c_str());
    }
    closedir(open_folder);
}

// Half a file helps nobody, least of all on a full disk. Whoever fails while he writes calls this.
inline void atomic_abandon(const AtomicFile& f) { unlink(f.temporary.c_str()); }

[[noreturn]] inline void atomic_fail(const AtomicFile& f) {
    std::string why = strerror(errno);
    atomic_abandon(f);
    fail("%s: cannot be written: %s", f.path.c_str(), why.c_str());
}

inline void atomic_flush(AtomicFile& f) {
    for (size_t at = 0; at < f.pending.size();) {
        const ssize_t n = write(f.fd, f.pending.data() + at, f.pending.size() - at);
        if (n < 0 && errno != EINTR) atomic_fail(f);
        if (n > 0) at += (size_t)n;
    }
    f.pending.clear();
}

inline void atomic_write(AtomicFile& f, const void* bytes, size_t n) {
    const char* from = (const char*)bytes;
    while (n > 0) {
        const size_t some = std::min(n, ATOMIC_PIECE - f.pending.size());
        f.pending.append(from, some);
        from += some, n -= some;
        if (f.pending.size() == ATOMIC_PIECE) atomic_flush(f);
    }
}

inline void atomic_close(AtomicFile& f) {
    atomic_flush(f);
    if (fsync(f.fd) != 0 || close(f.fd) != 0 || rename(f.temporary.c_str(), f.path.c_str()) != 0)
        atomic_fail(f);
    sync_path(parent_folder(f.path));
    f.fd = -1;
}

// ---- one at a time ------------------------------------------------------------------------------

// Takes the folder for this process until it ends, however it ends: the lock is the operating
// system's (flock(2)), on PATH/.lock, in which its holder writes who it is. False, and `holder`,
// where another process has it.
inline bool lock_folder(const std::string& path, std::string& holder) {
    std::string name = path + "/.lock";
    int fd = open(name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0)
        fail("%s: cannot be opened: %s", name.c_str(), strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail("%s: is %s, expected a regular file", name.c_str(), kind_of_file(info.st_mode));
    char buffer[256] = "";
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            fail("%s: cannot be locked: %s", name.c_str(), strerror(errno));
        ssize_t n = read(fd, buffer, sizeof buffer - 1);
        holder = n > 0 ? std::string(buffer, (size_t)n) : "another process";
        close(fd);
        return false;
    }
    gethostname(buffer, sizeof buffer - 1);
    std::string me = text("process %ld on %s", (long)getpid(), buffer);
    if (ftruncate(fd, 0) != 0 || write(fd, me.data(), me.size()) != (ssize_t)me.size())
        fail("%s: cannot be written: %s", name.c_str(), strerror(errno));
    return true;   // fd stays open: closing it would give the lock back
}
