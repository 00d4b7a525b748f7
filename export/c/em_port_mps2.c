/* Arm's MPS2 boards as QEMU emulates them: start-up, console and instruction count. For another board write these few
 * functions anew: the network and the driver know nothing of the machine.
 */
#include "em_port.h"

int main(void);
void em_reset(void);
extern uint32_t em_data_load[], em_data_start[], em_data_end[], em_bss_start[], em_bss_end[], em_stack_end[];

#define EM_PAINT 0x5afe57acu
#define EM_CPACR (*(volatile uint32_t *)0xE000ED88u) /* Armv7-M B3.2.20: coprocessor access */
static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000u; /* CMSDK APB timer 0: control, value, reload */

/* Arm semihosting: the debugger, or QEMU, does it. */
static void semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void leave(uint32_t code) {
    const uint32_t exited[2] = {0x20026u, code}; /* ADP_Stopped_ApplicationExit */
    for (;;) semihosting(0x20u, exited);         /* SYS_EXIT_EXTENDED */
}

void em_say(const char *text) {
    semihosting(0x04u, text); /* SYS_WRITE0 */
}

uint32_t em_clock(void) {
    return 0xffffffffu - timer[1];
}

/* Under `-icount shift=6` each instruction takes 64 ns, and the timer ticks every 40 ns: 8 ticks are 5 instructions. */
uint32_t em_instructions(uint32_t ticks) {
    return (uint32_t)((uint64_t)ticks * 5u / 8u);
}

uint32_t em_stack_bytes(void) {
    const uint32_t *painted = em_bss_end;
    while (painted < em_stack_end && *painted == EM_PAINT) painted++;
    return (uint32_t)((const char *)em_stack_end - (const char *)painted);
}

void em_reset(void) {
    uint32_t *top = (uint32_t *)__builtin_frame_address(0) - 16;
    const uint32_t *load = em_data_load;
    EM_CPACR |= 0xfu << 20; /* the floating-point unit is off after reset */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    for (uint32_t *at = em_data_start; at < em_data_end;) *at++ = *load++;
    for (uint32_t *at = em_bss_start; at < em_bss_end;) *at++ = 0;
    for (uint32_t *at = em_bss_end; at < top;) *at++ = EM_PAINT;
    timer[2] = 0xffffffffu;
    timer[1] = 0xffffffffu;
    timer[0] = 1u;
    leave((uint32_t)main());
}

static void fault(void) {
    em_say("fault\n");
    leave(3u);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))em_stack_end, em_reset, fault, fault, fault, fault, fault,
};
