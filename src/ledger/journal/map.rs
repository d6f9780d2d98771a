//! One mapped file as a row of words: the only `unsafe` of the crate.
//!
//! The file is made by this process, zero to the end, before it is mapped, and is never made shorter while the map lives, so no
//! access can fall off it. No other process maps it: the directory's lock says so. All access goes through atomics, so threads may
//! share it. The page cache outlives the process, so what was stored is in the file after `kill -9`.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A mapped file.
pub(super) struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps a file whose length is a multiple of eight.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        Ok(Self { raw: MmapOptions::new().map_raw(file)? })
    }

    /// The words of the file.
    pub(super) fn words(&self) -> &[AtomicU64] {
        #[expect(clippy::cast_ptr_alignment, reason = "a map begins on a page")]
        let (start, length) = (self.raw.as_mut_ptr().cast::<AtomicU64>(), self.raw.len() / 8);
        #[expect(
            unsafe_code,
            reason = "a mapped file is memory that only a pointer leads to; see the module's text"
        )]
        // SAFETY: the map is page-aligned, so aligned for words, and as long as the slice says; it lives as long as
        // `self`, which the slice borrows; it is only ever accessed through atomics.
        unsafe {
            std::slice::from_raw_parts(start, length)
        }
    }
}
