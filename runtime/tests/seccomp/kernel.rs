//! The kernel takes our programs and judges as the interpreter does: some written by hand, and generated
//! ones, by the calls of x86-64 and by those of 32-bit x86.

use crate::bpf::Call;
use crate::generate::{Random, VALUES};
use serde_json::{Value, json};
use tare::seccomp::{Arch, Program, compile};

/// Calls without effect and without pointers: name, number on x86-64, number on x86.
const CALLS: [(&str, u32, u32); 6] = [
    ("getpgid", 121, 132),
    ("getsid", 124, 147),
    ("getpriority", 140, 96),
    ("sched_get_priority_max", 146, 159),
    ("sched_get_priority_min", 147, 160),
    ("personality", 135, 136),
];

/// Above all that the kernel knows, so that an answer of the filter is seen as one.
const ERRNO: u64 = 3000;

/// The answer of the kernel to one call: the error, or 0. Of 32-bit x86 there are five arguments here.
fn ask(call: &Call) -> i32 {
    let a = call.args;
    let result = if call.audit == Arch::X86_64.audit() {
        // SAFETY: none of the calls takes a pointer.
        unsafe { libc::syscall(call.nr.into(), a[0], a[1], a[2], a[3], a[4], a[5]) }
    } else {
        let mut result = i64::from(call.nr);
        // SAFETY: as above; rbx, which the compiler keeps for itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}", first = inout(reg) a[0] => _,
                inout("rax") result, in("rcx") a[1], in("rdx") a[2], in("rsi") a[3], in("rdi") a[4],
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
        }
        let result = result as i32;
        return if (-4095..0).contains(&result) { -result } else { 0 };
    };
    if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

/// Runs in a child; gives its exit code, `None` when a signal ended it.
fn in_child(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child only makes system calls and exits: it takes no lock that another thread of the
    // test may have held at the fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = work();
        // SAFETY: ends the child without running the test harness's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waitpid(2) writes one int, and `status` lives here until it has returned.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

fn compiled(document: &Value) -> Program {
    compile(&crate::profile::profile(document), Arch::X86_64).unwrap()
}

/// Asserts that the kernel's answers are the program's verdicts.
fn judges_alike(document: &Value, calls: &[Call]) {
    let program = compiled(document);
    let expected: Vec<i32> = calls
        .iter()
        .map(|call| match crate::bpf::run(&program.filter, call).0 {
            libc::SECCOMP_RET_ALLOW => 0,
            verdict if verdict & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO => {
                (verdict & libc::SECCOMP_RET_DATA) as i32
            }
            // There is no tracer.
            verdict if verdict & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_TRACE => libc::ENOSYS,
            verdict => panic!("{verdict:#x}"),
        })
        .collect();
    let code = in_child(|| {
        // SAFETY: this call of prctl(2) takes numbers alone and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if tare::seccomp::apply::load(&program).is_err() {
            return 255;
        }
        let wrong = calls.iter().zip(&expected).position(|(call, &expected)| {
            let answer = ask(call);
            // What the kernel itself says to an odd argument is its own affair.
            let by_filter = answer >= ERRNO as i32 || answer == libc::ENOSYS;
            if by_filter { answer != expected } else { expected != 0 }
        });
        wrong.map_or(0, |i| 1 + (i % 254) as i32)
    });
    let code = code.expect("the child was not killed");
    assert_ne!(code, 255, "the kernel does not take the program of {document}");
    assert_eq!(
        code,
        0,
        "{:x?} (or one 254 further) is judged otherwise: {document}",
        calls.get(code as usize - 1)
    );
}

#[test]
fn the_kernel_judges_alike() {
    let document = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3077 },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3078,
              "args": [{ "index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_NE" }] },
            { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3079,
              "args": [{ "index": 1, "value": 0xff_0000_0000_u64, "valueTwo": 0x1_0000_0000_u64,
                         "op": "SCMP_CMP_MASKED_EQ" }] },
        ],
    });
    let audit = Arch::X86_64.audit();
    let call = |nr, a, b| Call { audit, nr, args: [a, b, 0, 0, 0, 0] };
    let calls = [
        call(110, 0, 0),
        call(135, 0xffff_ffff, 0),
        call(135, 8, 0),
        call(140, 0, 0),
        call(140, 0, 0x1_0000_0000),
    ];
    let program = compiled(&document);
    let verdicts = calls.map(|call| crate::bpf::run(&program.filter, &call).0 & 0xffff);
    assert_eq!(verdicts, [3077, 0, 3078, 0, 3079]);
    judges_alike(&document, &calls);
}

/// `personality` would change the test's own for some values: it is always refused or asked.
fn is_harmless(call: &Call) -> bool {
    ![135, 136].contains(&call.nr) || call.args[0] as u32 == u32::MAX
}

#[test]
fn the_kernel_judges_generated_profiles_alike() {
    let has_x86 = in_child(|| {
        let call = Call { audit: Arch::X86.audit(), nr: 20, args: [0; 6] };
        i32::from(ask(&call) != 0)
    }) == Some(0);
    if !has_x86 {
        eprintln!("SKIPPED in part: this kernel has no 32-bit calls");
    }
    let mut asked = 0;
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut rules = Vec::new();
        for n in 0..12 {
            let mut rule =
                crate::generate::rule(&mut random, &[], "SCMP_ACT_ERRNO", &CALLS.map(|(name, ..)| name));
            rule["errnoRet"] = json!(ERRNO + n);
            for test in rule["args"].as_array_mut().into_iter().flatten().filter(|test| test["index"] == 5) {
                test["index"] = json!(4);
            }
            if random.below(8) == 0 {
                rule["action"] = json!("SCMP_ACT_TRACE");
            }
            rules.push(rule);
        }
        let document = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules,
        });
        let mut calls = Vec::new();
        for (_, wide, narrow) in CALLS {
            for _ in 0..40 {
                let mut args: [u64; 6] = std::array::from_fn(|_| *random.one(VALUES));
                calls.push(Call { audit: Arch::X86_64.audit(), nr: wide, args });
                // Of 32 bits; the sixth argument is what rbp holds, and nobody looks at it.
                if has_x86 {
                    args = args.map(|arg| arg & u64::from(u32::MAX));
                    calls.push(Call { audit: Arch::X86.audit(), nr: narrow, args });
                }
            }
        }
        calls.retain(is_harmless);
        asked += calls.len();
        judges_alike(&document, &calls);
    }
    println!("{asked} calls of the kernel");
}
