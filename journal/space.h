/* A device's space: growing slabs ahead of need, watermarks, and what is counted.
 *
 * Two rules decide. What destage needs to write all that is live once more, and a few extents for
 * trims, deletions, fencing and checkpoints, must be free in slabs that exist: else appends of class
 * DATA wait while slabs grow, and are refused when they cannot. And of all that the device may use
 * (journal_conf: space_max, space_floor), at space_urgent percent destage, rewriting and trimming take
 * what they can, at space_throttle producers are slowed, at space_refuse refused. Each level ends two
 * points below where it began. */
#ifndef WEIR_JOURNAL_SPACE_H
#define WEIR_JOURNAL_SPACE_H

#include "journal/core.h"

struct space *space_new(struct store *st);
void space_free(struct space *s);
/* True when rewriting and compaction take what they can, and the log's cuts do not matter if need be:
 * a level is reached, or nothing can grow that must. As of the last check; keeper. */
bool space_is_short(const struct space *s);
/* Asks the file system what there is. Blocks; at open. */
int space_look(struct space *s) MUST_USE;
/* True while the pool does something for it. Keeper. */
bool space_busy(const struct space *s);
/* Stops its timers. Keeper; at close. */
void space_stop(struct space *s);
/* As journal_device_info, without state and backlog. Any thread. */
void space_info(struct space *s, struct jrn_device_info *info);
/* Bytes that the store may still take, in slabs or in new ones. Any thread, now. */
uint64_t space_room(struct space *s);

#endif
