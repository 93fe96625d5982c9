/* batch_tool CASE.txt CODEC: writes the batch that our builder makes of a case file to stdout, for
 * other clients to read. batch_tool FILE.batch CODEC: the batch that is in the file, recoded. */
#include "format/codec.h"
#include "tests/format/batch_case.h"

static int built(const char *path, enum batch_codec codec, struct buf **out)
{
    struct batch_case c;
    int rc = E_NOTFOUND;

    if (case_open(&c, path))
        rc = case_build(&c, codec, out);
    case_close(&c);
    return rc;
}

static int recoded(const char *path, enum batch_codec codec, struct buf **out)
{
    static uint8_t mem[1 << 20];
    size_t bytes, room = 64 << 20;
    struct batch_head h;
    FILE *f = fopen(path, "rb");
    int rc;

    if (!f)
        return E_NOTFOUND;
    bytes = fread(mem, 1, sizeof mem, f);
    fclose(f);
    rc = batch_validate(&h, mem, bytes);
    return rc < 0 ? rc : batch_recode(mem, bytes, codec, &room, out);
}

int main(int argc, char **argv)
{
    int codec = 0, rc = 1;
    struct buf *b = NULL;

    while (codec < CODEC_COUNT && argc == 3 && strcmp(argv[2], codec_name(codec)) != 0)
        codec++;
    if (argc != 3 || codec == CODEC_COUNT) {
        fprintf(stderr, "usage: batch_tool CASE.txt|FILE.batch none|gzip|snappy|lz4|zstd\n");
        return 2;
    }
    if ((strstr(argv[1], ".batch") ? recoded : built)(argv[1], codec, &b) == 0) {
        rc = fwrite(b->mem, 1, b->len, stdout) == b->len && fflush(stdout) == 0 ? 0 : 1;
        buf_unref(b);
    }
    return rc;
}
