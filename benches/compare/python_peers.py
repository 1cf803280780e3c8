"""The peers in Python: asyncio, and standard-deluxe, the module that this crate re-imagines.

Each line on stdin is a request: a function and its arguments. The answer on stdout is how many seconds it took.
"""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from time import perf_counter, sleep


async def spawn(program, *args):
    child = await asyncio.create_subprocess_exec(program, *args)
    await child.wait()


async def sequential(program, count):
    for _ in range(int(count)):
        await spawn(program)


async def concurrent(program, count):
    await asyncio.gather(*(spawn(program) for _ in range(int(count))))


async def output(program, count):
    for _ in range(int(count)):
        child = await asyncio.create_subprocess_exec(program, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        await child.communicate(b"")


async def capture(*argv):
    child = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    await child.communicate()


async def drain(*argv):
    child = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
    while await child.stdout.read(65536):
        pass
    await child.wait()


async def echo(size):
    child = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    await child.communicate(INPUT)


def module_sequential(program, count):
    for _ in range(int(count)):
        Command("peer", path=program)(capture=False)


def module_output(program, count):
    for _ in range(int(count)):
        Command("peer", path=program)()


def module_capture(program, *args):
    Command("peer", path=program)(*args, text=False)


def module_echo(size):
    Command("peer", path="/bin/cat")(input=INPUT, text=False)


def module_start():
    DAEMON.start()
    # It returns before the daemon is ready, and a daemon that is not ready loses requests.
    return lambda: sleep(0.05)


def module_stop():
    DAEMON.stop()


def module_restart():
    DAEMON.restart()
    return lambda: sleep(0.05)


def has_module():
    global Command, Daemon
    try:
        from deluxe.process import Command, Daemon
    except ImportError:
        return False
    return True


INPUT = b""
DAEMON = None
ASYNCHRONOUS = [sequential, concurrent, output, capture, drain, echo]
BLOCKING = [module_sequential, module_output, module_capture, module_echo, module_start, module_stop, module_restart]

if has_module():

    class Idle(Daemon, workpath="/"):
        def run(self):
            while True:
                signal.pause()


def answer(loop, name, args):
    global INPUT, DAEMON
    if name.endswith("echo") and len(INPUT) != int(args[0]):
        INPUT = bytes(int(args[0]))
    if name == "module_start" and DAEMON is None:
        # The constructor starts it.
        DAEMON = Idle()
        sleep(0.1)
        DAEMON.stop()
    asynchronous = {function.__name__: function for function in ASYNCHRONOUS}
    blocking = {function.__name__: function for function in BLOCKING}
    began = perf_counter()
    after = None
    if name in asynchronous:
        loop.run_until_complete(asynchronous[name](*args))
    else:
        after = blocking[name](*args)
    took = perf_counter() - began
    if after:
        after()
    return took


def main():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    for line in sys.stdin:
        name, *args = line.rstrip("\n").split("\t")
        print(answer(loop, name, args), flush=True)


main()
