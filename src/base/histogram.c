/* histogram.c - round trips in steps of about three. */
#include "culvert/base.h"

void rtt_count(counter *const le[RTT_STEPS], counter *sum_us, uint64_t rtt_us)
{
    static const uint32_t up_to_us[RTT_STEPS - 1] = { 1000, 3000, 10000, 30000, 100000, 300000, 1000000 };
    size_t i = 0;

    while (i < RTT_STEPS - 1 && rtt_us > up_to_us[i])
        i++;
    counter_add(le[i], 1);
    counter_add(sum_us, rtt_us);
}
