//! The children: one that ends at once, and one that ends with its stdin; each as small as a program can be.
//!
//! What is to be seen is the cost of starting and awaiting a program, not that of its dynamic linker. So on x86-64 they
//! are written byte for byte, which needs no compiler; elsewhere the cases with such a child are left out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::session::folder;

/// `exit(0)`.
const ENDS: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
    0x0f, 0x05, // syscall
];

/// Reads stdin to its end, then `exit(0)`.
const READS: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0x48, 0x8d, 0x74, 0x24, 0xc0, // lea rsi, [rsp - 64]
    0xba, 64, 0, 0, 0, // mov edx, 64
    0x31, 0xc0, // xor eax, eax (read)
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x7f, 0xec, // jg to the start
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
    0x0f, 0x05, // syscall
];

const HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;

/// Where the file is in memory.
const BASE: u64 = 0x40_0000;

/// A whole ELF file (elf(5)): its header, two program headers, the code.
fn executable(code: &[u8]) -> Vec<u8> {
    let start = u64::from(HEADER + 2 * PROGRAM_HEADER);
    let size = start + code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF");
    file.extend([2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 64 bits, little-endian, version 1, System V
    file.extend(2_u16.to_le_bytes()); // an executable
    file.extend(62_u16.to_le_bytes()); // for x86-64
    file.extend(1_u32.to_le_bytes()); // version 1
    file.extend((BASE + start).to_le_bytes()); // where it begins
    file.extend(u64::from(HEADER).to_le_bytes()); // where the program headers are
    file.extend(0_u64.to_le_bytes()); // no sections
    file.extend(0_u32.to_le_bytes()); // no flags
    for number in [HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
        file.extend(number.to_le_bytes()); // sizes and numbers of headers, of sections none
    }
    program_header(&mut file, 1, 5, [0, BASE, BASE, size, size, 4096]); // loaded, to be read and executed
    program_header(&mut file, 0x6474_e551, 6, [0, 0, 0, 0, 0, 16]); // a stack that holds no code
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, flags: u32, fields: [u64; 6]) {
    file.extend(kind.to_le_bytes());
    file.extend(flags.to_le_bytes());
    for field in fields {
        file.extend(field.to_le_bytes());
    }
}

/// Writes them, once, before anything is spawned: a program that is open for writing can't be executed.
pub(crate) fn make() -> io::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    for (name, code) in [("ends", ENDS), ("reads", READS)] {
        let path = folder().join(name);
        fs::write(&path, executable(code))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The static child that ends at once.
pub(crate) fn ending() -> Option<PathBuf> {
    Some(folder().join("ends")).filter(|path| path.exists())
}

/// A child that ends when its stdin does.
pub(crate) fn reading() -> PathBuf {
    Some(folder().join("reads")).filter(|path| path.exists()).unwrap_or_else(|| "/bin/cat".into())
}

/// The dynamic child that ends at once.
pub(crate) fn dynamic() -> PathBuf {
    PathBuf::from("/bin/true")
}
