#include "masque.h"
void masque_echo_moved(struct masque *m)
{
    (void)m;
}
void masque_echo_free(struct masque *m)
{
    (void)m;
}
