//! Resident memory, which makes a fork slow: it copies the page tables.

/// Memory of which each page is in use.
pub(crate) struct Ballast(Vec<u8>);

impl Ballast {
    pub(crate) fn new(bytes: usize) -> Ballast {
        let mut memory = vec![0; bytes];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Ballast(memory)
    }

    /// Whether twice that much is available.
    pub(crate) fn is_affordable(bytes: usize) -> bool {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib: usize = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        kib / 2 > bytes / 1024
    }

    /// Keeps the compiler from removing it.
    pub(crate) fn keep(&self) {
        std::hint::black_box(&self.0);
    }
}
