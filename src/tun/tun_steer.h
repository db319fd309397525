/* tun_steer.h - the program that chooses a packet's queue, for its test; tun_steer() in tun.h is what others call. */
#ifndef CULVERT_TUN_STEER_H
#define CULVERT_TUN_STEER_H

#include <linux/bpf.h>

#include "culvert/base.h"

enum { STEER_INSNS_MAX = 1024 }; /* the kernel takes 4,096 of those who have no privilege */

/** steer_program() - steer_packet() under @key, for a socket filter whose packet begins with the IP header
 * Return: how many instructions were written. */
uint32_t steer_program(const struct steer *key, struct bpf_insn insn[STEER_INSNS_MAX]);
/** steer_load() - give it to the kernel. Return: its descriptor, the caller's to close; or -errno. */
int steer_load(const struct steer *key);

#endif
