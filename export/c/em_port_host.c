/* A computer with an operating system. */
#include "em_port.h"

#include <stdio.h>

void em_say(const char *text) {
    fputs(text, stdout);
}

uint32_t em_clock(void) {
    return 0;
}

uint32_t em_instructions(uint32_t ticks) {
    return ticks;
}

uint32_t em_stack_bytes(void) {
    return 0;
}
