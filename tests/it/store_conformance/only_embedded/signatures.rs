//! Used signatures, in the files beside the store.

use std::fs;
use std::path::PathBuf;

use super::super::signatures::sighting;
use super::*;
use tollgate::store::{Remembered, Sighting};

fn files(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.file().parent().unwrap()).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("store.redb.seen-"));
    files.sort();
    files
}

async fn remember(bench: &Bench, range: std::ops::Range<u64>) -> Vec<Remembered> {
    let uses: Vec<Sighting> = range.map(|n| sighting(bench, n)).collect();
    bench.store().remember_signatures(&account_id(), &uses).await.unwrap()
}

#[tokio::test]
async fn files_are_closed_to_others_and_go_when_nothing_in_them_counts() {
    let mut bench = Bench::embedded();
    assert_eq!(files(&bench), <[PathBuf; 0]>::default());
    for minute in 0..10 {
        assert_eq!(remember(&bench, minute * 10..minute * 10 + 10).await, [Remembered::New; 10]);
        bench.pass(SignedDuration::from_secs(61));
    }
    let there = files(&bench);
    assert!((6..=7).contains(&there.len()), "{there:?}");
    for file in &there {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A minute later one more of them is over.
    bench.reopen(Some(sealer()));
    let left = files(&bench);
    assert!(there.ends_with(&left) && left.len() == there.len() - 1, "{left:?}");
    assert_eq!(remember(&bench, 90..100).await, [Remembered::Seen; 10]);
    assert_eq!(remember(&bench, 0..10).await, [Remembered::New; 10], "these were over");
    bench.pass(SignedDuration::from_mins(7));
    bench.reopen(Some(sealer()));
    assert_eq!(files(&bench), <[PathBuf; 0]>::default());
}

#[tokio::test]
async fn a_torn_file_loses_its_last_row_only() {
    let mut bench = Bench::embedded();
    for n in 0..10 {
        remember(&bench, n..n + 1).await;
    }
    let [file] = &files(&bench)[..] else { panic!("one file") };
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len(), 10 * 24);
    bench.store = None;
    fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
    bench.reopen(Some(sealer()));
    let mut expected = vec![Remembered::Seen; 9];
    expected.push(Remembered::New);
    assert_eq!(remember(&bench, 0..10).await, expected);
    // What comes after stands in a file of its own, whole.
    bench.reopen(Some(sealer()));
    assert_eq!(remember(&bench, 0..10).await, [Remembered::Seen; 10]);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_let_through() {
    let bench = Bench::embedded();
    // The place of the next file is taken.
    let place = bench.file().with_file_name("store.redb.seen-0");
    fs::create_dir(&place).unwrap();
    let uses = [sighting(&bench, 1)];
    let refused = bench.store().remember_signatures(&account_id(), &uses).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be written down"), "{refused}");
    fs::remove_dir(&place).unwrap();
    assert_eq!(remember(&bench, 1..2).await, [Remembered::New]);
}
