#include "bench/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

static void child_exec(const char *const *argv, int out)
{
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Reads until the child has said `until`, or ended. */
static void child_listen(struct child *c, int fd, const char *until)
{
    size_t n = 0;
    ssize_t got = 1;

    while (got > 0 && n < sizeof c->text - 1) {
        got = read(fd, c->text + n, sizeof c->text - 1 - n);
        n += got > 0 ? (size_t)got : 0;
        c->text[n] = 0;
        if (until && strstr(c->text, until))
            break;
    }
    c->said = measure_now();
}

void child_run(struct child *c, const char *const *argv, const char *until)
{
    int fds[2], status;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        measure_die("pipe: %s", strerror(errno));
    fflush(stdout);
    c->began = measure_now();
    pid = fork();
    if (pid < 0)
        measure_die("fork: %s", strerror(errno));
    if (pid == 0)
        child_exec(argv, fds[1]);
    close(fds[1]);
    child_listen(c, fds[0], until);
    if (until)
        kill(pid, SIGKILL);
    close(fds[0]);
    if (wait4(pid, &status, 0, &c->usage) < 0)
        measure_die("child: %s", strerror(errno));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || (until && !strstr(c->text, until)))
        measure_die("%s ended otherwise than it should: %s", argv[0], c->text);
}
