// Makes a few system calls the two ways that a filter of 64-bit numbers would not see: int 0x80 (32-bit numbers) and the
// x32 bit. Prints "i386 NAME ANSWER" and "x32 NAME ANSWER", with the errno or 0; "i386 none" where int 0x80 is no way in.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define X32_BIT 0x40000000L

struct call { const char *name; long i386, x32; };
// All arguments are 0 or -1: nothing happens where a call is let through.
static const struct call CALLS[] = {
    {"getpid", 20, 39}, {"mount", 21, 165}, {"reboot", 88, 169}, {"swapon", 87, 167}, {"init_module", 128, 175},
    {"kexec_load", 283, 528}, {"bpf", 357, 321}, {"keyctl", 288, 250}, {"unshare", 310, 272}, {"unknown", 9999, 9999},
};
static sigjmp_buf back;

static void no_way(int number) { (void)number; siglongjmp(back, 1); }

static long i386(long number) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

static long x32(long number) {
    long result;
    register long fourth __asm__("r10") = -1L;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number | X32_BIT), "D"(-1L), "S"(-1L), "d"(-1L), "r"(fourth)
                     : "memory", "rcx", "r11");
    return result;
}

static int answer(long result) { return result < 0 && result > -4096 ? (int)-result : 0; }

int main(void) {
    signal(SIGSEGV, no_way);
    for (unsigned i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        if (sigsetjmp(back, 1) == 0) printf("i386 %s %d\n", CALLS[i].name, answer(i386(CALLS[i].i386)));
        else printf("i386 none\n");
        printf("x32 %s %d\n", CALLS[i].name, answer(x32(CALLS[i].x32)));
    }
    return 0;
}
