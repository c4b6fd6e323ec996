// A guest program without libc for loader_test: reports what it was started with by made-up system calls.
typedef unsigned long u64;

static volatile u64 g_data = 0x1234567890abcdef;
static volatile u64 g_bss[2048];
static const u64* volatile g_pointer = (const u64*)&g_data;  // relocated in a PIE, which this does itself

static long Syscall(long number, u64 a, u64 b, u64 c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

__attribute__((used)) void Main(const u64* stack) {
  (void)g_pointer;
  u64 sum = 0;
  for (int i = 0; i < 2048; i++) sum |= g_bss[i];
  g_bss[2047] = 1;
  // The initial stack pointer, .data and .bss.
  Syscall(1000, (u64)stack, g_data, sum);
  for (;;) Syscall(60, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call Main\n");
