#include "base/slice.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/logger.h"

/* struct sched_attr of linux/sched/types.h, its first version; glibc 2.36 has no wrapper. */
struct attr {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* ns; runtime is the slice */
};

void slice_set_us(unsigned us)
{
    struct attr a = { .size = sizeof a,
                      .policy = SCHED_OTHER,
                      .nice = getpriority(PRIO_PROCESS, 0),
                      .runtime = (uint64_t)us * 1000 };

    if (sched_getscheduler(0) != SCHED_OTHER)
        return; /* somebody knew better */
    if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
        LOG_DEBUG("slice.refused", F_INT("errno", errno));
}
