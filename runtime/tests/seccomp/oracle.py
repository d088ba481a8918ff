#!/usr/bin/env python3
"""Asks libseccomp what `seccomp/vectors.rs` and `seccomp/differential.rs` compare with ours.

    oracle.py LIBSECCOMP.so.2 > libseccomp.json    tables of verdicts, to be stored
    oracle.py --export LIBSECCOMP.so.2             a program for each line of standard input

Needs 2.5.0 or newer; the stored tables are of 2.6.0. Their profiles are what Docker 26.1 and Podman 5
hand to the runtime for a container with their default capabilities, and generated ones. libseccomp builds the filter as runc has it built, this script runs the program for
each number and says what runc's ENOSYS rule adds.
"""
import ctypes
import json
import os
import random
import signal
import struct
import sys
import tempfile

lib = ctypes.CDLL(sys.argv[-1])
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_arch_resolve_name.restype = ctypes.c_uint32
lib.seccomp_arch_native.restype = ctypes.c_uint32
lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p

X86_64, X86, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
X32_BIT = 1 << 30
HOSTS = {"x86_64": ["x86_64", "x86", "x32"], "aarch64": ["aarch64", "arm"]}
AUDIT = {"x86_64": X86_64, "x86": X86, "aarch64": AARCH64, "arm": ARM}
ACTIONS = {
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_ERRNO": 0x50000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
OPS = ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]


class ArgCmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def action(name, errno):
    value = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= 1 if errno is None else errno
    return value


def build(profile, host):
    """The program, and the rules that libseccomp refused."""
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
    native = lib.seccomp_arch_native()
    tokens = [lib.seccomp_arch_resolve_name(a.encode()) for a in arches(profile, host)]
    for token in tokens:
        if token != native:
            assert lib.seccomp_arch_add(ctx, ctypes.c_uint32(token)) == 0
    if native not in tokens:
        assert lib.seccomp_arch_remove(ctx, ctypes.c_uint32(native)) == 0
    refused = []
    for rule in profile["syscalls"]:
        act = action(rule["action"], rule.get("errnoRet"))
        args = rule.get("args", [])
        tests = [ArgCmp(a["index"], OPS.index(a["op"]) + 1, a["value"], a.get("valueTwo", 0)) for a in args]
        repeated = len({a["index"] for a in args}) < len(args)
        for name in rule["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if act == default or number == -1:
                continue
            for group in [[t] for t in tests] if repeated else [tests]:
                array = (ArgCmp * len(group))(*group)
                if lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(act), number, len(group), array) != 0:
                    refused.append(rule)
    with tempfile.TemporaryFile() as out:
        assert lib.seccomp_export_bpf(ctx, out.fileno()) == 0
        out.seek(0)
        program = list(struct.iter_unpack("<HBBI", out.read()))
    lib.seccomp_release(ctx)
    return program, refused


def arches(profile, host):
    names = [a.removeprefix("SCMP_ARCH_").lower() for a in profile.get("architectures", [])]
    return [host] + [a for a in names if a != host]


def number_names(arch):
    token = ctypes.c_uint32(lib.seccomp_arch_resolve_name(arch.encode()))
    base = X32_BIT if arch == "x32" else 0
    # By number, because libseccomp has no number for x86's socket and ipc calls when asked by name:
    # runc makes ENOSYS of them in profiles that name nothing newer. And unlike runc we leave ARM's
    # private calls out: with them nothing would ever be too new.
    resolve = lib.seccomp_syscall_resolve_num_arch
    return {base + n: (resolve(token, base + n) or b"").decode() for n in range(600)}


NAMES = {arch: number_names(arch) for arch in ("x86_64", "x86", "x32", "aarch64", "arm")}


def newest(profile, arch):
    names = {name for rule in profile["syscalls"] for name in rule["names"]}
    return max((nr for nr, name in NAMES[arch].items() if name in names), default=0)


def run(program, arch, nr, args):
    data = struct.pack("<IIQ6Q", nr, arch, 0, *args)
    a, pc = 0, 0
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        if code == 0x20:
            a = struct.unpack_from("<I", data, k)[0]
        elif code == 0x54:
            a &= k
        elif code == 0x06:
            return k
        elif code == 0x05:
            pc += k
        elif code == 0x15:
            pc += jt if a == k else jf
        elif code == 0x25:
            pc += jt if a > k else jf
        elif code == 0x35:
            pc += jt if a >= k else jf
        elif code == 0x45:
            pc += jt if a & k else jf
        else:
            raise ValueError(hex(code))


def probes(arch):
    numbers = list(range(480)) + [511, 512, 547, 548, 600, 0xEFFFF] + list(range(0xF0000, 0xF0008))
    if arch == X86_64:
        numbers += [X32_BIT - 1] + [X32_BIT + n for n in range(560)]
    return numbers + [0x7FFFFFFF, 0x80000000, 0xBFFFFFFF, 0xC0000000, 0xFFFFFFFE, 0xFFFFFFFF]


def vectors(profile, rng):
    """Arguments around the values that the profile asks for."""
    chosen = [[0] * 6, [(1 << 64) - 1] * 6]
    tests = [rule["args"] for rule in profile["syscalls"] if rule.get("args")]
    rng.shuffle(tests)
    for group in tests[:10]:
        args = [rng.choice([0, 1, 1 << 32, (1 << 64) - 1]) for _ in range(6)]
        for test in group:
            value = test.get("valueTwo", 0) if test["op"].endswith("MASKED_EQ") else test["value"]
            args[test["index"]] = (value + rng.choice([-1, 0, 0, 0, 1, 1 << 32])) % (1 << 64)
        chosen.append(args)
    return chosen


def verdicts(program, profile, host, args):
    """{arch: [(number, verdict)]} for each AUDIT_ARCH and probe."""
    permissive = profile["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    last = {} if permissive else {arch: newest(profile, arch) for arch in arches(profile, host)}
    tables = {}
    for name in HOSTS[host]:
        if name == "x32":
            continue
        table = tables[name] = []
        for nr in probes(AUDIT[name]):
            abi = "x32" if name == "x86_64" and nr & X32_BIT else name
            limit = last.get(abi, 0)
            private = name == "arm" and nr >= 0xF0000 and nr < 0xF0008
            verdict = run(program, AUDIT[name], nr, args)
            if limit and nr > limit and not (private and verdict != last_resort(profile)):
                verdict = 0x50026
            table.append((nr, verdict))
    return tables


def holds(test, args, width):
    """The specification's meaning of a condition."""
    mask = (1 << width) - 1
    a, b, c = args[test["index"]] & mask, test["value"] & mask, test.get("valueTwo", 0) & mask
    return [a != b, a < b, a <= b, a == b, a >= b, a > b, a & b == c & b][OPS.index(test["op"])]


def is_possible(profile, last, arch, nr, args, verdict):
    """False when the verdict is that of no rule that matches."""
    abi = "x32" if arch == "x86_64" and nr & X32_BIT else arch
    name = NAMES[abi].get(nr)
    if name is None or name in ("socketcall", "ipc"):
        return True
    if verdict == 0x50026 and nr > last[abi]:
        return True
    found = set()
    for rule in profile["syscalls"]:
        tests = [holds(t, args, 64 if abi in ("x86_64", "aarch64") else 32) for t in rule.get("args", [])]
        repeated = len({t["index"] for t in rule.get("args", [])}) < len(tests)
        if name in rule["names"] and (any(tests) if repeated else all(tests)):
            found.add(action(rule["action"], rule.get("errnoRet")))
    return verdict in (found or {last_resort(profile), 0})


def last_resort(profile):
    return action(profile["defaultAction"], profile.get("defaultErrnoRet"))


POOL = """read write open close personality clone clone3 socket accept4 accept bind send recv socketcall ipc shmat shmget
semop semtimedop msgctl ioctl fcntl futex keyctl unshare setns mount umount2 umount ptrace bpf prctl arch_prctl
rt_sigaction preadv readv execve openat2 statx time stat64 mmap2 mmap _llseek chown32 uselib cachestat
process_vm_readv rt_sigqueueinfo timer_create""".split()
VALUES = [0, 1, 2, 3, 8, 16, 40, 0x7F, 0x20000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 8,
          0x7FFFFFFFFFFFFFFF, (1 << 64) - 1]


def generated(seed):
    rng = random.Random(seed)
    default = rng.choice(["SCMP_ACT_ERRNO"] * 3 + ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"])
    host = "aarch64" if seed % 8 == 7 else "x86_64"
    profile = {"defaultAction": default, "architectures": []}
    for name in HOSTS[host]:
        if rng.random() < 0.8:
            profile["architectures"].append("SCMP_ARCH_" + name.upper())
    if default == "SCMP_ACT_ERRNO" and rng.random() < 0.5:
        profile["defaultErrnoRet"] = rng.choice([1, 13, 38])
    rules = profile["syscalls"] = []
    # Half of the profiles have one action for all conditions, as most real ones do.
    mixed = rng.random() < 0.5
    one = rng.choice(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])
    for _ in range(rng.randrange(4, 24)):
        rule = {"names": rng.sample(POOL, rng.choice([1, 1, 2, 5]))}
        rule["action"] = rng.choice(sorted(ACTIONS)) if mixed else one
        if rule["action"] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
            rule["errnoRet"] = rng.choice([1, 22, 38]) if mixed else 22
        args = []
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
            test = {"index": rng.choice([0, 0, 0, 1, 2, 5]), "value": rng.choice(VALUES), "op": rng.choice(OPS)}
            if test["op"] == "SCMP_CMP_MASKED_EQ":
                test["valueTwo"] = rng.choice(VALUES)
            args.append(test)
        if args:
            rule["args"] = args
        rules.append(rule)
    for _ in range(40):
        refused = build(profile, host)[1]
        if not refused:
            break
        # runc would not start the container: two actions for the same arguments.
        rules.remove(refused[0])
    return profile, host


def case(name, host, profile):
    """None where libseccomp is wrong by any reading: some mixtures of ordered 64-bit comparisons
    make it answer with a rule that does not match, or not see one that does."""
    program, refused = build(profile, host)
    assert not refused, (name, refused)
    rng = random.Random(name)
    last = {arch: newest(profile, arch) for arch in HOSTS[host]}
    tables = []
    base = None
    for args in vectors(profile, rng):
        found = verdicts(program, profile, host, args)
        base = base or found
        for arch, table in found.items():
            if not all(is_possible(profile, last, arch, nr, args, verdict) for nr, verdict in table):
                return None
            if found is base:
                # [number, verdict] wherever the verdict changes
                cells = [table[0]] + [b for a, b in zip(table, table[1:]) if a[1] != b[1]]
            else:
                # [number, verdict] of what these arguments change
                cells = [new for new, old in zip(table, base[arch]) if new != old]
            if cells:
                tables.append({"arch": arch, "args": args, "cells": cells})
    return {"name": name, "host": host, "profile": profile, "tables": tables}


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "profiles")
    cases = []
    for file in ("docker_amd64.json", "docker_arm64.json", "podman_amd64.json"):
        with open(os.path.join(here, file), encoding="utf-8") as f:
            profile = json.load(f)
        cases.append(case(file.removesuffix(".json"), "aarch64" if "arm64" in file else "x86_64", profile))
    # libseccomp 2.6.0 does not come back from adding the rules of 58, and in 77 it answers an ipc
    # call, which is_possible does not look into, by a rule that does not match.
    for seed in [n for n in range(84) if n not in (58, 77)]:
        profile, host = generated(seed)
        cases.append(case(f"generated {seed}", host, profile))
    print("[")
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases if c))
    print("]")


def exported(profile, host):
    """The program as hex, and which rules were left out because libseccomp refuses them."""
    rules = list(enumerate(profile["syscalls"]))
    while True:
        program, refused = build({**profile, "syscalls": [rule for _, rule in rules]}, host)
        if not refused:
            break
        rules = [(i, rule) for i, rule in rules if rule is not refused[0]]
    kept = {i for i, _ in rules}
    text = b"".join(struct.pack("<HBBI", *line) for line in program).hex()
    return {"program": text, "refused": [i for i in range(len(profile["syscalls"])) if i not in kept]}


def answer(request):
    if "names" in request:
        resolve = lib.seccomp_syscall_resolve_name_arch
        tokens = {arch: ctypes.c_uint32(lib.seccomp_arch_resolve_name(arch.encode())) for arch in NAMES}
        return {arch: {name: resolve(tokens[arch], name.encode()) for name in request["names"]} for arch in NAMES}
    return exported(request["profile"], request["host"])


def serve():
    """One JSON object for each line. In a child each: there are rules from which libseccomp does not come back."""
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with os.fdopen(writer, "w") as out:
                json.dump(answer(json.loads(line)), out)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as result:
            text = result.read()
        _, status = os.waitpid(child, 0)
        if status == signal.SIGALRM:
            text = '{"hung": true}'
        elif status != 0:
            sys.exit(f"a request failed: {line}")
        print(text, flush=True)


if sys.argv[1] == "--export":
    serve()
else:
    main()
