"""A real server for tests in Python, and a row of claims run over it."""
import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, os.environ.get("OUT") or "build/plain")


def free_port():
    """Below those that the kernel gives to clients: none takes it while the server is down."""
    while True:
        port = random.randrange(12000, 30000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def until(condition, seconds=30, what="the condition"):
    """Waits until condition() is true; gives its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def flip(path, byte, bit=0):
    """Flips one bit of a file, durably."""
    with open(path, "r+b") as f:
        f.seek(byte)
        c = f.read(1)[0]
        f.seek(byte)
        f.write(bytes([c ^ 1 << bit]))
        os.fsync(f.fileno())


class Server:
    def __init__(self, *args):
        self.folder = tempfile.mkdtemp(prefix="server.")
        self.data = os.path.join(self.folder, "data")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.args = ["--set", "journal.slab_first=32MiB", "--set", "journal.wal_budget=8MiB",
                     "--set", "journal.wal_extent=4MiB", *args]
        self.child = None
        self.n_logs = 0
        atexit.register(self.fini)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def spawn(self, *args):
        self.n_logs += 1
        self.log_path = os.path.join(self.folder, f"log.{self.n_logs}")
        with open(self.log_path, "w") as log:
            self.child = subprocess.Popen(
                [os.path.join(OUT, "bin/weir-server"), "--data", self.data,
                 "--set", f"kafka.listen={self.address}", "--set", "log.format=json", *self.args, *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def start(self, *args):
        self.spawn(*args)
        until(lambda: '"event":"ready"' in self.log() or self.child.poll() is not None, 60, "ready")
        assert self.child.poll() is None, "the server ended: " + self.log()[-2000:]
        return self

    def is_up(self):
        return self.child is not None and self.child.poll() is None

    def kill(self):
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child = None

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        rc = self.child.wait(60)
        self.child = None
        assert rc == 0, f"exit {rc}: " + self.log()[-2000:]

    def rss_kib(self):
        with open(f"/proc/{self.child.pid}/status") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0

    def n_fds(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def fini(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_claims(module, *args):
    """Runs every test_* function of the module, in their order, and prints the closing line."""
    passed = failed = skipped = 0
    for name, fn in list(vars(module).items()):
        if not name.startswith("test_") or not callable(fn):
            continue
        try:
            skip = fn(*args)
            if isinstance(skip, str):
                print(f"SKIP: {name}: {skip}")
                skipped += 1
            else:
                passed += 1
        except Exception:  # a claim that does not hold
            failed += 1
            print(f"FAILED: {name}")
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
