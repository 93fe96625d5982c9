/* batch_tool CASE.txt CODEC: writes the batch that our builder makes of a case file to stdout, for
 * other clients to read. */
#include "format/codec.h"
#include "tests/format/batch_case.h"

int main(int argc, char **argv)
{
    int codec = 0, rc = 1;
    struct batch_case c;
    struct buf *b;

    while (codec < CODEC_COUNT && argc == 3 && strcmp(argv[2], codec_name(codec)) != 0)
        codec++;
    if (argc != 3 || codec == CODEC_COUNT || !case_open(&c, argv[1])) {
        fprintf(stderr, "usage: batch_tool CASE.txt none|gzip|snappy|lz4|zstd\n");
        return 2;
    }
    if (case_build(&c, codec, &b) == 0) {
        rc = fwrite(b->mem, 1, b->len, stdout) == b->len && fflush(stdout) == 0 ? 0 : 1;
        buf_unref(b);
    }
    case_close(&c);
    return rc;
}
