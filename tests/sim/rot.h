/* Rot: bits that flip in stored bytes while the process is down, at places where the damage can be told from a torn tail. */
#ifndef WEIR_TESTS_SIM_ROT_H
#define WEIR_TESTS_SIM_ROT_H

#include <stdint.h>

enum { ROT_GROUPS_MAX = 16 };

/* Groups that must come up read-only. */
struct rot_report {
    uint64_t groups[ROT_GROUPS_MAX];
    unsigned n_groups;
};

#endif
