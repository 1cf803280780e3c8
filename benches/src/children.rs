//! The measured children: one exits at once, one prints a line, one exits when its stdin ends.
//!
//! Each is as small as a program can be, so that the cost of starting and awaiting it is seen and not that of its
//! dynamic linker. On x86-64 they are written byte for byte, which needs no compiler. Elsewhere, cases with such a
//! child are left out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `exit(0)`.
const EXITS: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
    0x0f, 0x05, // syscall
];

/// `write(1, "hello\n", 6)`, then `exit(0)`.
const PRINTS: &[u8] = &[
    0xbf, 1, 0, 0, 0, // mov edi, 1
    0x48, 0x8d, 0x35, 0x15, 0, 0, 0, // lea rsi, [rip + 21]: behind the code
    0xba, 6, 0, 0, 0, // mov edx, 6
    0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
    0x0f, 0x05, // syscall
    0x31, 0xff, // xor edi, edi
    0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
    0x0f, 0x05, // syscall
    b'h', b'e', b'l', b'l', b'o', b'\n',
];

/// Reads stdin to its end, then `exit(0)`.
const READS: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0x48, 0x8d, 0x74, 0x24, 0xc0, // lea rsi, [rsp - 64]
    0xba, 64, 0, 0, 0, // mov edx, 64
    0x31, 0xc0, // xor eax, eax (read)
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x7f, 0xec, // jg to the beginning
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
    file.extend((BASE + start).to_le_bytes()); // the entry point
    file.extend(u64::from(HEADER).to_le_bytes()); // where the program headers are
    file.extend(0_u64.to_le_bytes()); // no sections
    file.extend(0_u32.to_le_bytes()); // no flags
    for number in [HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
        file.extend(number.to_le_bytes()); // sizes and counts of headers; no sections
    }
    program_header(&mut file, 1, 5, [0, BASE, BASE, size, size, 4096]); // loaded; readable and executable
    program_header(&mut file, 0x6474_e551, 6, [0, 0, 0, 0, 0, 16]); // a stack that is not executable
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

/// The children in one folder.
#[derive(Clone, Debug)]
pub struct Children {
    folder: PathBuf,
}

impl Children {
    /// The children that [`Children::write`] has put into a folder.
    pub fn in_folder(folder: &Path) -> Children {
        Children { folder: folder.to_owned() }
    }

    /// Writes them. Call it before anything is spawned: a program that is open for writing can't be executed, and a
    /// child that is just being spawned has the descriptors of its parent.
    ///
    /// # Errors
    ///
    /// A file could not be written.
    pub fn write(&self) -> io::Result<()> {
        if !cfg!(target_arch = "x86_64") {
            return Ok(());
        }
        for (name, code) in [("exits", EXITS), ("prints", PRINTS), ("reads", READS)] {
            let path = self.folder.join(name);
            fs::write(&path, executable(code))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn existing(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|path| path.exists())
    }

    /// A static child that exits at once.
    pub fn exiting(&self) -> Option<PathBuf> {
        self.existing("exits")
    }

    /// A static child that prints "hello" and a newline.
    pub fn printing(&self) -> Option<PathBuf> {
        self.existing("prints")
    }

    /// A child that exits when its stdin ends.
    pub fn reading(&self) -> PathBuf {
        self.existing("reads").unwrap_or_else(|| "/bin/cat".into())
    }

    /// A dynamically linked child that exits at once.
    pub fn dynamic(&self) -> PathBuf {
        PathBuf::from("/bin/true")
    }
}
