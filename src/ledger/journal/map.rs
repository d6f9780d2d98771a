//! One mapped file as a row of words: the only `unsafe` of the crate.
//!
//! What it rests on, and who sees to it:
//! - The memory is there. The file is as long as the map ([`Map::new`] looks), its blocks are written before
//!   ([`super::file`]), and nobody makes it shorter: the directory is ours alone (mode 0700), locked against other Tollgates,
//!   and no code here truncates. If an operator does, access ends the process by a signal; it reads nothing else.
//! - It is aligned: a map begins on a page.
//! - It lives as long as it is used: the words borrow the map, and the map goes with its last [`std::sync::Arc`].
//! - No data races: the words are reached through atomics only. No other process maps the file: the lock again.
//! - Any bits are a value: words are integers. What they mean is judged by who reads them.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A mapped file. What is stored in it is in the page cache at once, and in the file after `kill -9`.
pub(super) struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `words` words of a file.
    pub(super) fn new(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words * size_of::<AtomicU64>();
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its map"));
        }
        Ok(Self { raw: MmapOptions::new().len(bytes).map_raw(file)? })
    }

    /// The words of the file.
    pub(super) fn words(&self) -> &[AtomicU64] {
        #[expect(clippy::cast_ptr_alignment, reason = "a map begins on a page")]
        let start = self.raw.as_mut_ptr().cast::<AtomicU64>();
        let length = self.raw.len() / size_of::<AtomicU64>();
        #[expect(unsafe_code, reason = "mapped memory is only had by a pointer; argued at the module's head")]
        // SAFETY: `start` is the beginning of a live shared map of at least `length` words, page-aligned, readable and
        // writable; `self`, which the slice borrows, keeps it; it is reached through atomics only (see the module).
        unsafe {
            std::slice::from_raw_parts(start, length)
        }
    }
}
