/* What a self-test needs of the machine it runs on. */
#ifndef EM_PORT_H
#define EM_PORT_H

#include <stdint.h>

void em_say(const char *text);
uint32_t em_clock(void); /* ticks so far, which may wrap round */
uint32_t em_instructions(uint32_t ticks); /* executed in so many; 0 where nothing counts them */
uint32_t em_stack_bytes(void);  /* most used so far; 0 where nothing tells */

#endif
