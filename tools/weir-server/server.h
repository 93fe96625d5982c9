/* The server in one process: what is started, in which order, and stopped in the reverse one. */
#ifndef WEIR_TOOLS_WEIR_SERVER_SERVER_H
#define WEIR_TOOLS_WEIR_SERVER_SERVER_H

#include <stdint.h>

#include "base/conf.h"
#include "base/err.h"

#define WEIR_VERSION "0.1.0"

struct server;

/* What no single row of the configuration can say: keys against each other, and what this version
 * needs. E_INVALID. */
int server_check(const struct conf *c, struct err *e) MUST_USE;

/* Starts: folder, device, rows, journal, threads, door, listener; when it returns 0 clients are
 * served. began_us: monotonic time at which the program started, for the `ready` line. conf is
 * borrowed and must outlive the server. On failure everything is stopped again and *e says why.
 * Blocks. */
int server_start(struct server **out, const struct conf *c, uint64_t began_us,
                 struct err *e) MUST_USE;
/* Closes the ports, ends what clients wait for, makes what was accepted durable, stops the threads,
 * frees. Blocks. */
void server_stop(struct server *s);

/* Where Kafka clients connect, "127.0.0.1:9092", with the port in use. Borrowed from s. */
const char *server_kafka_address(const struct server *s);

/* Monotonic microseconds. */
uint64_t server_now_us(void);

#endif
