/* Tables (journal.h: jrn_table_*): the owner's rows t and the offsets o that they stand for, in the rows
 * of one store, beside everything else there and lost with it. A row's key is the letter, the length
 * of the table's name in one byte, the name, and the owner's key or the shard's number (format/row.h). */
#ifndef WEIR_JOURNAL_TABLE_H
#define WEIR_JOURNAL_TABLE_H

#include "journal/core.h"

enum {
    TABLE_PREFIX_MAX = 2 + JRN_TABLE_NAME_MAX,
    TABLE_ROW_KEY_MAX = TABLE_PREFIX_MAX + JRN_TABLE_KEY_MAX
};

#endif
