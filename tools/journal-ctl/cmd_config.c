/* journal-ctl config check FILE */
#include <stddef.h>

#include "base/conf.h"
#include "tools/journal-ctl/ctl.h"

static const struct emit_column columns[] = {
    { "key", EMIT_TEXT, false },
    { "value", EMIT_TEXT, false },
    { "from", EMIT_TEXT, false },
};

int cmd_config_check(struct ctl *c, struct err *e)
{
    struct conf *conf = conf_new();
    int rc = conf_load_file(conf, c->target, e);

    if (rc >= 0)
        rc = conf_check(conf, e);
    if (rc >= 0) {
        emit_section(c->emit, "config", columns, sizeof columns / sizeof columns[0], false);
        for (int k = 0; k < CONF_N_KEYS; k++)
            EMIT_ROW(c->emit, C_TEXT(conf_rows[k].name), C_TEXT(conf_str(conf, (enum conf_key)k)),
                     C_TEXT(conf_where(conf, (enum conf_key)k)));
        emit_note(c->emit, "The configuration is right.");
    }
    conf_free(conf);
    return rc;
}
