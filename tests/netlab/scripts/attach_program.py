# Attaches a program to a cgroup, where it stays. It lets everything pass, except what goes to DROPPED_PORT.
# Or, as a sockops program with the word "no-callbacks", it switches off what other such programs have switched on.
# Arguments: CGROUP NAME PROGRAM_TYPE ATTACH_TYPE ATTACH_FLAGS [DROPPED_PORT | no-callbacks]; prints the program's id.
import ctypes
import os
import socket
import struct
import sys

PROG_LOAD, PROG_ATTACH, OBJ_GET_INFO_BY_FD = 5, 8, 15
NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(NUMBER, command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


cgroup, name = sys.argv[1], sys.argv[2].encode()
program_type, attach_type, flags = map(int, sys.argv[3:6])


def instruction(code, registers, offset, number):
    return struct.pack("=BBhi", code, registers, offset, number)


code = instruction(0xB7, 0, 0, 1)  # r0 = 1
if sys.argv[6:] == ["no-callbacks"]:
    code = instruction(0xB7, 2, 0, 0)  # r2 = 0
    code += instruction(0x85, 0, 0, 59)  # bpf_sock_ops_cb_flags_set(r1, r2)
    code += instruction(0xB7, 0, 0, 1)  # r0 = 1
for port in sys.argv[6:] if sys.argv[6:] != ["no-callbacks"] else []:
    # struct __sk_buff has the remote port in network order, in the upper half.
    (wanted,) = struct.unpack("=i", struct.pack("=HH", 0, socket.htons(int(port))))
    code += instruction(0x61, 0x12, 132, 0)  # r2 = r1->remote_port
    code += instruction(0x56, 2, 1, wanted)  # if r2 != wanted goto +1
    code += instruction(0xB7, 0, 0, 0)  # r0 = 0
code += instruction(0x95, 0, 0, 0)  # exit
instructions = ctypes.create_string_buffer(code, len(code))
licence = ctypes.create_string_buffer(b"GPL")
load = struct.pack(
    "=IIQQIIQII16sII",
    program_type, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
    0, 0, 0, 0, 0, name, 0, attach_type,
)
program = bpf(PROG_LOAD, load)
directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
bpf(PROG_ATTACH, struct.pack("=IIIII", directory, program, attach_type, flags, 0))
information = ctypes.create_string_buffer(8)
bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, 8, ctypes.addressof(information)))
print(struct.unpack("=II", information.raw)[1])
