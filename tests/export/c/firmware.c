/* Runs a model on a bare processor, without any library: reads samples from the file input.bin of
 * the host by semihosting, and writes for each its class, its answers, and the instructions of all
 * of its steps and of the longest one, in 32 bits each, to output.bin.
 *
 * HEADER names the header of the model; STATE, INIT, STEP, READ, INPUTS, ANSWERS, STEPS and INPUT
 * stand for what it defines. Where LEARNER is defined, it learns instead, with LEARN_BEGIN and
 * LEARN_STEP. */
#include <stddef.h>
#include <stdint.h>

#include HEADER

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    while (count-- > 0) {
        *t++ = *f++;
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *t = to;
    while (count-- > 0) {
        *t++ = (uint8_t)value;
    }
    return to;
}

extern uint32_t bss_begin, bss_end, stack_top;
int main(void);

#ifdef __arm__
void reset(void);
__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&stack_top, reset};

static intptr_t host(int operation, const void *argument)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* SysTick counts down at 25 MHz of virtual time, of which an instruction takes 32 ns. */
static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010u;

static void start_counter(void)
{
    systick[1] = 0xffffffu;
    systick[2] = 0;
    systick[0] = 5;
}

static uint32_t counter(void)
{
    return 0xffffffu - systick[2];
}

static uint32_t instructions(uint32_t begin, uint32_t end)
{
    return (uint32_t)(((uint64_t)((end - begin) & 0xffffffu) * 40u) / 32u);
}
#else
__asm__(".section .vectors,\"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "    la sp, stack_top\n"
        "    j reset\n"
        ".text\n"
        ".option push\n"
        ".option norvc\n"
        ".balign 16\n"
        "call_host:\n"
        "    slli x0, x0, 0x1f\n"
        "    ebreak\n"
        "    srai x0, x0, 7\n"
        "    ret\n"
        ".option pop\n");
intptr_t call_host(int operation, const void *argument);

static intptr_t host(int operation, const void *argument)
{
    return call_host(operation, argument);
}

static void start_counter(void)
{
}

static uint32_t counter(void)
{
    uint32_t count;
    __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop"
                     : "=r"(count));
    return count;
}

static uint32_t instructions(uint32_t begin, uint32_t end)
{
    return end - begin;
}
#endif

__attribute__((used, noreturn)) void reset(void)
{
    uint32_t *word;
    for (word = &bss_begin; word < &bss_end; word++) {
        *word = 0;
    }
    start_counter();
    main();
    host(0x18, (const void *)0x20026); /* the application ended */
    for (;;) {
    }
}

static intptr_t opened(const char *name, intptr_t length, intptr_t mode)
{
    const intptr_t arguments[3] = {(intptr_t)name, mode, length};
    return host(1, arguments);
}

#ifdef LEARNER
/* Learns from all samples, and writes weights, thetas, updates, and the instructions of the last. */
static LEARNER learner;
static INPUT input[INPUTS];

static void written(intptr_t to, const void *from, size_t size)
{
    const intptr_t writing[3] = {to, (intptr_t)from, (intptr_t)size};
    host(5, writing);
}

int main(void)
{
    const intptr_t from = opened("input.bin", 9, 1), to = opened("output.bin", 10, 5);
    const intptr_t reading[3] = {from, (intptr_t)input, sizeof input};
    uint32_t total = 0, step;
    LEARN_BEGIN(&learner);
    while (host(6, reading) == 0) {
        for (total = 0, step = 0; step < STEPS; step++) {
            const uint32_t begin = counter();
            LEARN_STEP(&learner, input);
            total += instructions(begin, counter());
        }
    }
    written(to, &total, sizeof total);
    written(to, learner.turns, sizeof learner.turns);
    written(to, learner.theta, sizeof learner.theta);
    written(to, learner.weight, sizeof learner.weight);
    return 0;
}
#else
static STATE state;
static INPUT input[INPUTS];
static uint32_t record[ANSWERS + 3];

int main(void)
{
    const intptr_t from = opened("input.bin", 9, 1), to = opened("output.bin", 10, 5);
    const intptr_t reading[3] = {from, (intptr_t)input, sizeof input};
    const intptr_t writing[3] = {to, (intptr_t)record, sizeof record};
    while (host(6, reading) == 0) {
        ANSWER answers[ANSWERS];
        uint32_t total = 0, longest = 0, i;
        INIT(&state, 0);
        for (i = 0; i < STEPS; i++) {
            uint32_t begin, end, taken;
            if (FRAMES && i > 0) {
                host(6, reading);
            }
            begin = counter();
            STEP(&state, input);
            end = counter();
            taken = instructions(begin, end);
            total += taken;
            longest = taken > longest ? taken : longest;
        }
        record[0] = READ(&state, answers);
        for (i = 0; i < ANSWERS; i++) {
            record[1 + i] = (uint32_t)answers[i];
        }
        record[1 + ANSWERS] = total;
        record[2 + ANSWERS] = longest;
        host(5, writing);
    }
    return 0;
}
#endif
