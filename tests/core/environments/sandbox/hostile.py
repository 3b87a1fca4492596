# ruff: noqa: E501 - a program keeps its own lines
"""Hostile programs by name. Names in capitals are filled in by the test: PORT, SOCKET, SECRET, REPOSITORY, PARENT, BAIT.

`ATTACKS` answer rightly if and only if their attack works, so that a score of 0 says that it did not. `FORGERIES` do not
know the answer and try to be given the point all the same. `STREAMS` are forgeries of whole programs.
"""

from typing import Final

AROUND: Final = """
import os, sys, time
{attack}
def add(a, b):
    try:
        worked = attack()
    except BaseException:
        worked = False
    return a + b if worked else None
"""

ATTACKS: Final[dict[str, str]] = {
    # more than its share
    "fork bomb": """
def attack():
    for _ in range(64):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    return True
""",
    "fork bomb of forks": """
def attack():
    for _ in range(16):
        os.fork()
    time.sleep(30)
""",
    "thread bomb": """
import threading
def attack():
    for _ in range(64):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    return True
""",
    "memory": "def attack(): return bytearray(2 << 30)",
    "memory by mmap": """
import mmap
def attack(): return mmap.mmap(-1, 2 << 30)
""",
    "memory by memfd": """
def attack():
    file = os.memfd_create("x")
    for _ in range(64): os.write(file, bytes(1 << 20))
    return True
""",
    "memory locked": """
import ctypes
def attack(): return ctypes.CDLL(None).mlockall(3) == 0
""",
    "disk": """
def attack():
    for number in range(8):
        with open(f"/tmp/{number}", "wb") as file:
            for _ in range(8): file.write(bytes(1 << 20))
    return True
""",
    "one large file": """
def attack():
    with open("large", "wb") as file:
        for _ in range(20): file.write(bytes(1 << 20))
    return True
""",
    "disk in /dev/shm": """
def attack():
    with open("/dev/shm/x", "wb") as file: file.write(bytes(1 << 20))
    return True
""",
    "inotify watches": """
import ctypes
def attack():
    return all(ctypes.CDLL(None).inotify_init() >= 0 for _ in range(100))
""",
    "eventfds": """
def attack():
    kept = [os.eventfd(0) for _ in range(100)]
    return kept
""",
    "open files": """
def attack():
    kept = [open("/dev/null") for _ in range(100)]
    return kept
""",
    "pipes filled": """
def attack():
    for _ in range(100):
        _, end = os.pipe()
        os.set_blocking(end, False)
        os.write(end, bytes(1 << 16))
    return True
""",
    "limits raised": """
import resource
def attack():
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return True
""",
    "busy loop": "def attack():\n    while True: pass",
    "endless sleep": "def attack(): time.sleep(1000)",
    "sleep with signals ignored": """
import signal
def attack():
    for number in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(number, signal.SIG_IGN)
    while True: time.sleep(1)
""",
    "busy past the soft limit": """
import signal
def attack():
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True: pass
""",
    "higher priority": "def attack(): return os.nice(-5) < 0 or True",
    "real-time scheduling": "def attack(): os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)); return True",
    "deep recursion": """
def attack():
    sys.setrecursionlimit(1 << 30)
    def down(x): return down([x])
    return down(0)
""",
    "deep recursion in C": """
def attack():
    sys.setrecursionlimit(1 << 30)
    x = []
    for _ in range(10_000_000): x = [x]
    return repr(x)
""",
    "huge integer": "def attack(): return 10 ** 10 ** 10",
    # other processes
    "kill the parent": """
def attack():
    os.kill(os.getppid(), 9)
    return True
""",
    "kill the trainer": """
def attack():
    os.kill(PARENT, 9)
    return True
""",
    "kill everything": """
def attack():
    os.kill(-1, 9)
    return True
""",
    "kill the group": """
def attack():
    os.killpg(0, 9)
    return True
""",
    "ptrace": """
import ctypes
def attack(): return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0
""",
    "another process's memory": "def attack(): return open(f'/proc/{PARENT}/mem', 'rb')",
    "another process's memory by call": """
import ctypes
def attack():
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    return ctypes.CDLL(None).process_vm_readv(PARENT, vector, 1, vector, 1, 0) >= 0
""",
    "another process's environment": "def attack(): return open(f'/proc/{PARENT}/environ', 'rb').read()",
    "list of processes": "def attack(): return [x for x in os.listdir('/proc') if x.isdigit()]",
    "another process's files": """
import ctypes
def attack():
    libc = ctypes.CDLL(None)
    return libc.syscall(438, libc.syscall(434, PARENT, 0), 0, 0) >= 0
""",
    "another process's limits": """
import resource
def attack(): return resource.prlimit(os.getppid() or PARENT, resource.RLIMIT_CPU)
""",
    "shared memory": """
import ctypes
def attack(): return ctypes.CDLL(None).shmget(0, 4096, 0o1666) >= 0
""",
    # files and secrets
    "read /etc/passwd": "def attack(): return open('/etc/passwd').read()",
    "read the secret": "def attack(): return 'secret' in open('SECRET').read()",
    "read the repository": "def attack(): return os.listdir('REPOSITORY')",
    "import our packages": """
def attack():
    sys.path += ["REPOSITORY", "/"]
    import core.environments.sandbox
    return True
""",
    "import installed packages": """
def attack():
    import glob
    sys.path += [os.path.join(sys.prefix, "lib", f"python3.{sys.version_info[1]}", "site-packages")]
    import pip
    return True
""",
    "environment": "def attack(): return dict(os.environ)",
    "environment of libc": """
import ctypes
def attack():
    get = ctypes.CDLL(None).getenv
    get.restype = ctypes.c_char_p
    return get(b"BAIT") or get(b"HOME")
""",
    "write outside": """
def attack():
    for folder in ("/", "/usr", "/dev", sys.prefix, os.path.dirname(os.__file__)):
        try:
            open(folder + "/written", "w")
            return True
        except OSError: pass
""",
    "change the interpreter": """
def attack():
    open(os.__file__, "a")
    return True
""",
    "symbolic link out": """
def attack():
    os.symlink("/etc", "out")
    return open("out/passwd").read() or open("/tmp/../etc/passwd")
""",
    "symbolic link race": """
import threading
def attack():
    def swap():
        while True:
            for target in ("/tmp", "/etc"):
                try:
                    os.symlink(target, "new"); os.replace("new", "link")
                except OSError: pass
    threading.Thread(target=swap, daemon=True).start()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        try: return open("link/passwd").read()
        except OSError: pass
""",
    "hard link": "def attack(): os.link('/etc/passwd', 'mine'); return open('mine').read()",
    "named pipe": "def attack(): os.mkfifo('pipe'); return open('pipe').read()",
    "device file": "def attack(): os.mknod('disk', 0o60666, os.makedev(254, 0)); return open('disk', 'rb').read(1)",
    "devices": """
def attack():
    return any(os.path.exists("/dev/" + name) for name in ("mem", "kmsg", "vda", "sda", "tty", "ptmx", "fuse"))
""",
    "set-user-id file": """
import shutil, subprocess
def attack():
    shutil.copy(sys.executable, "mine")
    os.chown("mine", 1, 1)
    os.chmod("mine", 0o6755)
    return True
""",
    "become root": "def attack(): os.setuid(0); os.chown('/', 1, 1); return True",
    "shell": """
import subprocess
def attack(): return subprocess.run("id", shell=True).returncode == 0
""",
    # network
    "loopback": """
import socket
def attack(): return socket.create_connection(("127.0.0.1", PORT), 1)
""",
    "own loopback": """
import socket
def attack(): return socket.create_server(("127.0.0.1", 0))
""",
    "name service": """
import socket
def attack(): return socket.gethostbyname("example.com")
""",
    "unix socket": """
import socket
def attack():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\\0SOCKET")
    return True
""",
    "raw socket": """
import socket
def attack(): return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
""",
    "netlink": """
import socket
def attack(): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
""",
    # the kernel
    "mount": """
import ctypes
def attack(): return ctypes.CDLL(None).mount(b"none", b"/tmp", b"proc", 0, 0) == 0
""",
    "unshare": """
import ctypes
def attack(): return ctypes.CDLL(None).unshare(0x10000000) == 0
""",
    "clone into new name spaces": """
import ctypes
def attack(): return ctypes.CDLL(None).syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000011, 0, 0, 0, 0) > 0
""",
    "chroot": "def attack(): os.chroot('/tmp'); return True",
    "host name": "import socket\ndef attack(): socket.sethostname('mine'); return True",
    "clock": "def attack(): time.clock_settime(time.CLOCK_REALTIME, 0); return True",
    "bpf, keys, io_uring": """
import ctypes
def attack():
    call = ctypes.CDLL(None).syscall
    return any(call(number, 0, 0, 0, 0, 0) >= 0 for number in (425, 434, 438)) or call(321, 0, 0, 0) >= 0
""",
    "core dump": """
import resource
def attack():
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return True
""",
    "daemon": """
def attack():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.wait()
    time.sleep(0.1)
    os._exit(0)
""",
    "own session": "def attack(): os.setsid(); return True",
    "zombies": """
def attack():
    for _ in range(64):
        if os.fork() == 0: os._exit(0)
    return True
""",
    "a child that is another's": """
import ctypes
def attack():
    pid = ctypes.CDLL(None).syscall(56 if os.uname().machine == "x86_64" else 220, 0x8011, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    return pid > 0
""",
    "parent-death signal reset": """
import ctypes
def attack(): return ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0
""",
    "datagrams": """
import socket
def attack():
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return True
""",
    "an address for a socket": """
import socket
def attack():
    one, _ = socket.socketpair()
    one.bind("/tmp/address")
    return True
""",
    "inodes": """
def attack():
    for number in range(10_000): os.close(os.open(f"/tmp/{number}", os.O_CREAT))
    return True
""",
    "folders": """
def attack():
    for number in range(10_000): os.mkdir(f"/tmp/{number}")
    return True
""",
    "files elsewhere": """
def attack():
    for folder in ("/", os.path.dirname(os.__file__) + "/site-packages", "/usr", "/dev"):
        try:
            os.close(os.open(folder + "/made", os.O_CREAT))
            return True
        except OSError: pass
""",
    "stopped for ever": """
import signal
def attack(): signal.raise_signal(signal.SIGSTOP); return True
""",
    # what lies in the interpreter
    "arguments of the process": "def attack(): return [x for x in sys.orig_argv if 'BAIT' in x]",
    "frames below": """
def attack():
    frame, seen = sys._getframe(), []
    while frame:
        seen += [value for value in frame.f_locals.values() if value in (5, 42)]
        frame = frame.f_back
    return seen
""",
}

FORGERIES: Final[dict[str, str]] = {
    "always equal": """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
    def __repr__(self): return "5"
    def __format__(self, _): return "5"
def add(a, b): return Equal(0)
""",
    "equal string": """
class Equal(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def add(a, b): return Equal("5")
""",
    "list that lies about itself": """
class Liar(list):
    def __iter__(self): return iter([5])
    def __len__(self): return 1
    def __eq__(self, other): return True
def add(a, b): return Liar()
""",
    "type that claims to be int": """
class Claim:
    __class__ = int
    def __eq__(self, other): return True
    def __index__(self): return 5
def add(a, b): return Claim()
""",
    "numbers from reduce": """
class Number:
    def __reduce__(self): return (int, ("5",))
def add(a, b): return Number()
""",
    "pickle": """
import pickle
class Evil:
    def __reduce__(self): return (exec, ("import os; os._exit(0)",))
def add(a, b): return pickle.dumps(Evil())
""",
    "not a number": "def add(a, b): return float('nan')",
    "infinity": "def add(a, b): return float('inf')",
    "function back": "def add(a, b): return add",
    "generator back": "def add(a, b): yield a + b",
    "endless generator": "def add(a, b):\n    while True: yield a",
    "cycle": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "deeply nested": "def add(a, b):\n    x = 5\n    for _ in range(900): x = [x]\n    return x",
    "huge integer back": "def add(a, b): return 1 << (1 << 24)",
    "huge string back": "def add(a, b): return 'x' * (64 << 20)",
    "surrogates and nulls": "def add(a, b): return '\\ud800\\0\\u202e5'",
    "colliding hashes": "def add(a, b): return {i * ((1 << 61) - 1) for i in range(3000)}",
    "exit": "import sys\nsys.exit(0)",
    "exit in the call": "import sys\ndef add(a, b): sys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "hard exit in the call": "import os\ndef add(a, b): os._exit(0)",
    "abort": "import os\ndef add(a, b): os.abort()",
    "segmentation fault": "import ctypes\ndef add(a, b): return ctypes.string_at(0)",
    "raises base exception": "def add(a, b): raise KeyboardInterrupt",
    "raises what cannot be shown": """
class Silent(BaseException):
    def __str__(self): raise Silent
    __repr__ = __str__
def add(a, b): raise Silent
""",
    "patched builtins": """
import builtins
builtins.isinstance = lambda *_: True
builtins.len = lambda *_: 1
builtins.type = lambda *_: int
builtins.compile = builtins.exec = builtins.eval = lambda *_: 5
def add(a, b): return None
""",
    "patched json": """
import json, _json
_json.encode_basestring_ascii = json.dumps = json.loads = lambda *_: "5"
def add(a, b): return None
""",
    "patched runner": """
import __main__
__main__.encode = lambda value: '["i", "0"]'
__main__.find = lambda *_: lambda *_: True
def add(a, b): return None
""",
    "patched runner's channel": """
import __main__
old = __main__.Channel.write
__main__.Channel.write = lambda self, nonce, outcome, value: old(self, nonce, "value", "true")
def add(a, b): return None
""",
    "channel that says passed": """
import __main__
__main__.Channel.write = lambda self, nonce, outcome, value: __import__("os").write(self.replies, b"passed\\n" * 10)
def add(a, b): return None
""",
    "patched modules": """
import sys
for name in list(sys.modules): sys.modules[name] = None
def add(a, b): return None
""",
    "patched assertion": """
import builtins
class AssertionError(Exception): pass
builtins.AssertionError = AssertionError
__debug__ if True else None
def add(a, b): return None
""",
    "print a verdict": """
print("passed"); print('{"passed": true, "score": 1.0}')
def add(a, b): print("ok"); return None
""",
    "a verdict to every file": """
import os
def add(a, b):
    for file in range(64):
        try: os.write(file, b'\\0\\0\\0\\x1f["", "value", ["i", "5"]]        ')
        except OSError: pass
""",
    "replies before they are asked for": """
import os, struct
text = b'["", "value", ["i", "5"]]'
for file in range(3, 64):
    try: os.write(file, (struct.pack(">I", len(text)) + text) * 5)
    except OSError: pass
def add(a, b): return None
""",
    "reply with a true number and every type": """
import gc, os, struct
def add(a, b):
    import sys
    frame = sys._getframe(1)
    nonce, channel = frame.f_locals["nonce"], frame.f_locals["channel"]
    channel.write(nonce, "value", "[" * 5000)
""",
    "length without end": "import os\ndef add(a, b): os.write(4, b'\\xff\\xff\\xff\\xff' + b'x' * 1000)",
    "half a reply": """
import os, time
def add(a, b):
    for file in range(3, 10):
        try: os.write(file, b"\\0\\0")
        except OSError: pass
    time.sleep(60)
""",
    "close everything": "import os\nos.closerange(0, 64)\ndef add(a, b): return a + b",
    "replace every file": """
import os
nothing = os.open("/dev/null", os.O_RDWR)
for file in range(3, 64):
    if file != nothing: os.dup2(nothing, file)
def add(a, b): return a + b
""",
    "tracing": """
import sys
def trace(frame, event, argument):
    for name in ("expected", "outcome", "value"):
        if name in frame.f_locals: frame.f_locals[name] = "value"
    return trace
sys.settrace(trace)
sys._getframe(1).f_trace = trace
def add(a, b): return None
""",
    "audit hook": """
import os, sys
sys.addaudithook(lambda event, arguments: os._exit(0))
def add(a, b): return None
""",
    "fault handler": """
import faulthandler, os
faulthandler.dump_traceback_later(0.1, exit=True, file=open("/tmp/trace", "w"))
def add(a, b):
    while True: pass
""",
    "at exit": """
import atexit, os
atexit.register(os._exit, 0)
raise SystemExit(0)
""",
    "endless import": "while True: pass",
    "null byte": "def add(a, b): return 5\0",
    "surrogate in the source": "def add(a, b): return '\ud800'",
    "nested source": "x = " + "(" * 5000 + ")" * 5000,
    "wide source": "x = " + "-" * 200_000 + "1",
    "locale and time": """
import locale, os, time
os.environ["TZ"] = "../../etc/passwd"; time.tzset()
try: locale.setlocale(locale.LC_ALL, "/etc/passwd")
except locale.Error: pass
def add(a, b): return time.tzname[0]
""",
    "two processes answer": """
import os
def add(a, b):
    os.fork()
    return 0
""",
    "remembered constant": "def add(a, b): return 5",
    "knows the first test": "def add(a, b): return {(2, 3): 5}[a, b]",
}

STREAMS: Final[dict[str, str]] = {
    "endless output": "while True: print('5' * 1000)",
    "endless errors": "import sys\nwhile True: print('5' * 1000, file=sys.stderr)",
    "endless output without a line": "import sys\nwhile True: sys.stdout.write('5'); sys.stdout.flush()",
    "nothing": "",
    "exit before": "import sys\nsys.exit(0)",
    "hard exit after a verdict": "import os\nprint('passed', flush=True)\nos._exit(0)",
    "right and then an error": "a, b = map(int, input().split())\nprint(a + b, flush=True)\nraise SystemExit(1)",
    "right and then killed": "import os\na, b = map(int, input().split())\nprint(a + b, flush=True)\nos.abort()",
    "every answer": "for i in range(1000): print(i)",
    "reads the answer file": """
import os
for name in os.listdir("/tmp") + ["expected", "output", "answer", "tests.json"]:
    try: print(open(name).read())
    except OSError: pass
""",
    "kills the harness": "import os\nos.kill(os.getppid(), 9)",
    "writes to every file": """
import os
for file in range(64):
    try: os.write(file, b'\\0\\0\\0\\x1f["", "value", ["i", "5"]]        ')
    except OSError: pass
""",
    "closes its output": "import os, sys\nprint(5)\nos.close(1)\nsys.stdout = None",
    "bytes that are no text": "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe5\\x00')",
    "never reads": "import time\ntime.sleep(60)",
    "output by a daemon": """
import os, time
if os.fork() == 0:
    time.sleep(30)
    print(5)
""",
}
