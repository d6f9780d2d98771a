//! Real processes that are killed while they count (law 2, through `kill -9`), or that get no space.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const DIRECTORY: &str = "TOLLGATE_JOURNAL_CHILD";
const THREADS: u64 = 4;
/// Credits of one response: from a cell of one thread, and from the cell that all threads share.
const OWN: u64 = 2;
const SHARED: u64 = 3;
/// The most responses between two reports of a thread.
const BATCH: u64 = 8;

/// One whole line, in one write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("@ {line}\n").as_bytes());
    let _ = out.flush();
}

/// The child: charges as fast as it can, opens and forgets leases, and reports what it has done, until it is killed.
fn count_until_killed(directory: &Path) {
    println!();
    let (journal, recovered, aside) = Journal::open(directory, NODE).unwrap();
    assert!(aside.is_empty(), "{aside:?}");
    say("opened");
    // Half of what an earlier run left is settled now.
    for left in recovered.iter().step_by(2) {
        close(&journal, left.entry.lease);
    }
    let shared = entry(Ulid::generate().0);
    let all = journal.cell(&shared, "MY/CARS", Operation::Write, 0).unwrap();
    let said = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let lease = entry(Ulid::generate().0);
                    journal.begin(lease.clone()).unwrap();
                    let mut spent = 0;
                    for (names, batch) in (1..=BATCH).enumerate() {
                        // Now and then another cell, and a long name.
                        let dataset = "D".repeat(names / 3 * 50);
                        let own = journal.cell(&lease, &dataset, Operation::Read, 0).unwrap();
                        for _ in 0..batch {
                            own.charge(OWN);
                        }
                        spent += batch * OWN;
                        say(&format!("own {} {spent}", lease.lease));
                        all.charge(SHARED);
                        let sum = said.fetch_add(SHARED, Ordering::AcqRel) + SHARED;
                        say(&format!("shared {} {sum}", shared.lease));
                    }
                    if spent.is_multiple_of(3) {
                        say(&format!("abandoned {} {spent}", lease.lease));
                    } else {
                        close(&journal, lease.lease);
                    }
                }
            });
        }
    });
}

fn close(journal: &Journal, lease: Ulid) {
    let spent: u64 = journal.cells(lease).iter().map(|cell| cell.credits).sum();
    say(&format!("closing {lease} {spent}"));
    journal.forget(lease);
    say(&format!("closed {lease} 0"));
}

/// What the parent knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Own(u64),
    Shared(u64),
    Exactly(u64),
    Closing(u64),
    Closed,
}

fn hear(told: &mut HashMap<Ulid, Told>, line: &str) {
    let mut words = line.split(' ');
    let (Some(what), Some(lease), Some(number)) = (words.next(), words.next(), words.next()) else { return };
    let (lease, number) = (Ulid::from_string(lease).unwrap(), number.parse::<u64>().unwrap());
    let new = match what {
        "own" => Told::Own(number),
        "shared" => match told.get(&lease) {
            // Threads report in any order.
            Some(Told::Shared(before)) => Told::Shared(number.max(*before)),
            _ => Told::Shared(number),
        },
        "abandoned" => Told::Exactly(number),
        "closing" => Told::Closing(number),
        "closed" => Told::Closed,
        other => panic!("{other}"),
    };
    told.insert(lease, new);
}

/// Holds what was found against what was told; what is left of each lease is known exactly from now on.
fn compare(told: &mut HashMap<Ulid, Told>, recovered: &[Recovered]) {
    let found: HashMap<Ulid, (u64, u64)> = recovered
        .iter()
        .map(|left| {
            assert_eq!(left.entry, entry(left.entry.lease.0));
            let sum = |count: fn(&Cell) -> u64| left.cells.iter().map(count).sum::<u64>();
            (left.entry.lease, (sum(|cell| cell.credits), sum(|cell| cell.requests)))
        })
        .collect();
    for (lease, told) in &*told {
        let found = found.get(lease).copied();
        let right = match (*told, found) {
            (Told::Closed | Told::Closing(_), None) => true,
            (Told::Closing(said) | Told::Exactly(said), Some((credits, _))) => credits == said,
            // At most the batch that was not reported yet.
            (Told::Own(said), Some((credits, requests))) => {
                (said..=said + BATCH * OWN).contains(&credits)
                    && (requests * OWN..=(requests + 1) * OWN).contains(&credits)
            }
            // At most one response of each thread.
            (Told::Shared(said), Some((credits, requests))) => {
                (said..=said + THREADS * SHARED).contains(&credits)
                    && (requests * SHARED..=(requests + THREADS) * SHARED).contains(&credits)
            }
            (Told::Closed, Some(_)) | (Told::Own(_) | Told::Shared(_) | Told::Exactly(_), None) => false,
        };
        assert!(right, "{lease}: told {told:?}, found (credits, requests) {found:?}");
    }
    for (lease, (credits, _)) in &found {
        // Begun or charged for the first time, and killed before it said so.
        assert!(told.contains_key(lease) || *credits <= THREADS * SHARED, "{lease} {credits}");
    }
    *told = found.into_iter().map(|(lease, (credits, _))| (lease, Told::Exactly(credits))).collect();
}

#[test]
fn law_2_exact_through_kill_9() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return count_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut told = HashMap::new();
    let (mut reports, mut carried) = (0, 0);
    for round in 0..30_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::journal::tests::kill::law_2_exact_through_kill_9", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Killed after so many lines: anywhere from its first instructions on.
        let wait = RandomState::new().build_hasher().finish() % (1 + 40 * round);
        for line in lines.by_ref().take(usize::try_from(wait).unwrap()) {
            if line == "@ opened" {
                let second = Journal::open(directory.path(), NODE).map(drop);
                assert!(matches!(second, Err(JournalError::InUse(_))), "two processes share one journal");
            }
            if let Some(report) = line.strip_prefix("@ ") {
                hear(&mut told, report);
            }
        }
        child.kill().unwrap();
        // What it had said until then.
        for line in lines {
            if let Some(report) = line.strip_prefix("@ ") {
                hear(&mut told, report);
            }
        }
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        reports += told.len();
        let (journal, recovered) = open(directory.path());
        compare(&mut told, &recovered);
        if round % 4 == 3 {
            for left in recovered {
                journal.forget(left.entry.lease);
            }
            told.clear();
            assert_eq!(files(directory.path()).len(), 1);
        } else {
            carried += recovered.len();
        }
    }
    assert!(
        reports > 300 && carried > 30,
        "{reports} reports, {carried} carried over: too few to say anything"
    );
}

#[test]
fn a_disk_that_takes_no_more_is_an_error_and_leaves_nothing() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let Err(error) = Journal::open(Path::new(&directory), NODE) else { panic!("it was opened") };
        return assert!(matches!(error, JournalError::Io { .. }), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    // A process that may write files of 50 KiB: the system refuses the rest, as it does on a full disk.
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 100; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ledger::journal::tests::kill::a_disk_that_takes_no_more_is_an_error_and_leaves_nothing",
        ])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}
