//! x86-64: `syscall` takes the number in rax and the arguments in rdi, rsi, rdx, r10, r8; it changes rax, rcx and r11.

use std::arch::asm;

use crate::sys::linux::clone_args::CloneArgs;

/// Whether a child can be started here by `clone3`.
pub(crate) const HAS_ENTRY: bool = true;

/// Calls clone3(2), and in the child `run(plan)` on the stack that `args` names.
///
/// # Safety
///
/// `args` has `CLONE_VM` set. Its stack stays until the child has left this memory, as do the plan and all that the
/// plan points to. `run` does not return, and keeps the rules at the top of `spawn_clone.rs`.
pub(crate) unsafe fn clone3_and_run<P>(
    args: &CloneArgs,
    run: unsafe extern "C" fn(*mut P) -> !,
    plan: *mut P,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is a system call, which changes rax, rcx and r11 alone. In the child the kernel has
    // set the stack pointer to the top of the new stack, aligned to 16 bytes as a call needs. All other registers are
    // the parent's, so the function and its argument are where they were put. The function does not return.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") run,
            in("r13") plan,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// A system call and nothing else: no errno, which would be the parent's, and no code of libc.
///
/// # Safety
///
/// That of the system call.
#[inline(always)]
pub(crate) unsafe fn system_call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [first, second, third, fourth, fifth] = arguments;
    let result: isize;
    // SAFETY: the calling convention of the kernel (syscall(2)); what the call itself needs, the caller has seen to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The address of a handler that ends the process by SIGKILL. All of it is written in assembly, because a compiler can
/// add code that does not work in the child.
#[inline(always)]
pub(crate) fn end_without_a_dump() -> usize {
    let handler: usize;
    // SAFETY: outside of the handler, this only takes its address. In the handler, the process sends itself SIGKILL and
    // ends: kill(2) to oneself does not return before the signal is delivered.
    unsafe {
        asm!(
            "lea {handler}, [rip + 2f]",
            "jmp 3f",
            "2:",
            "mov eax, {getpid}",
            "syscall",
            "mov edi, eax",
            "mov esi, {sigkill}",
            "mov eax, {kill}",
            "syscall",
            "ud2",
            "3:",
            handler = out(reg) handler,
            getpid = const libc::SYS_getpid,
            kill = const libc::SYS_kill,
            sigkill = const libc::SIGKILL,
            options(nomem, nostack, preserves_flags),
        );
    }
    handler
}
