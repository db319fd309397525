/* loop_impl.h - what the files of the event loop share. */
#ifndef CULVERT_LOOP_IMPL_H
#define CULVERT_LOOP_IMPL_H

#include "culvert/loop.h"

/** loop_memory_prepare() - [any] before anything of libev's is called: its memory may run out, and it must not end the process */
void loop_memory_prepare(void);

#endif
