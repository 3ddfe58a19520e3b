# Runs a command on a terminal of its own and prints what it shows, byte for byte.
# Arguments: COMMAND...; exits with the command's status.
import os
import pty
import sys

child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:  # Nobody has the terminal open any more.
        break
    if not data:
        break
    shown += data
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status))
