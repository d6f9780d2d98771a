//! A disk that fails, and comes back.

use std::fs::File;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use jiff::Timestamp;

use super::super::signatures::Signatures;
use super::super::writer::Writer;
use super::super::{Clock, EmbeddedStore};
use super::*;
use crate::ledger::lease::{Ask, Reserved};
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{AccountId, Credits, PerPool, Period, Policy, Pool, Token, TokenId, TokenKind};
use crate::store::trail::a_note;
use crate::store::usage::Retention;
use crate::store::{LeaseId, LeaseKey, NodeId, Reserve, Store};

/// A file that can be made to refuse all writes, as a full disk does.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::Error::other("the disk is full")) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// A store on a disk that can be made full.
fn store_on_disk(path: &Path, full: &Arc<AtomicBool>) -> EmbeddedStore {
    let (opened, full) = (path.to_owned(), Arc::clone(full));
    let open = move || {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&opened)?;
        Builder::new().create_with_backend(Disk { file: FileBackend::new(file)?, full: Arc::clone(&full) })
    };
    let file = Arc::new(StoreFile::open_with(path, Box::new(open)).unwrap());
    let events = tokio::sync::broadcast::Sender::new(16);
    let retention = Retention::default();
    let writer = Writer::start(Arc::clone(&file), Clock::system(), retention, events.clone()).unwrap();
    let nodes = super::super::nodes::Nodes::default();
    let signatures = Signatures::open(path, retention.signatures, Timestamp::UNIX_EPOCH).unwrap();
    let clock = Clock::system();
    EmbeddedStore { file, writer, sealer: None, clock, events, nodes, retention, signatures }
}

fn account_and_token() -> (Account, Policy, Token) {
    let id = AccountId::default_account();
    let now = jiff::Timestamp::now();
    let account = Account {
        id: id.clone(),
        created_at: now,
        budget: PerPool::default(),
        pay_as_you_go: PayAsYouGo::default(),
        version: 1,
    };
    let first = Policy::new(TokenId::from_ulid(ulid::Ulid(1)), id, TokenKind::Secret, now);
    (account, first, Token::from_random(TokenKind::Secret, [1; 16]))
}

#[tokio::test]
async fn a_full_disk_is_told_and_when_it_has_room_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let full = Arc::new(AtomicBool::new(false));
    let store = store_on_disk(&path, &full);
    let (account, first, value) = account_and_token();
    assert!(store.create_account(&account, &first, &value, &a_note()).await.unwrap());
    let reserve = |n| Reserve {
        key: LeaseKey {
            lease: LeaseId(ulid::Ulid(n)),
            account: account.id.clone(),
            token: first.id.clone(),
            pool: Pool::Core,
        },
        node: NodeId(ulid::Ulid(1)),
        ask: Ask { want: Credits(1), need: Credits(1) },
        life: std::time::Duration::from_hours(1),
    };
    let mut sent = 0;
    let mut granted = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            sent += 1;
            assert!(matches!(store.reserve(&reserve(sent)).await.unwrap(), Reserved::Granted(_)));
            granted += 1;
        }
        full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            sent += 1;
            let error = store.reserve(&reserve(sent)).await.unwrap_err();
            assert!(matches!(&error, StoreError::Unavailable(_)), "{error}");
        }
        full.store(false, Ordering::SeqCst);
    }
    // The answer of the last taking may have been lost in the failure; asking again counts it once.
    assert!(matches!(store.reserve(&reserve(sent)).await.unwrap(), Reserved::Granted(_)));
    granted += 1;
    assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(first.clone()));
    let crate::store::Counted { counters: used, at: now, .. } =
        store.token_usage(&account.id, &first.id).await.unwrap();
    let used = u128::from(used.core.leased(Period::Month, now).0);
    assert!((granted..=sent).contains(&used), "{granted} granted, {sent} sent, {used} used");
    drop(store);
    let again = store_on_disk(&path, &full);
    assert_eq!(again.find_token(&value.digest()).await.unwrap(), Some(first));
}

/// One flipped bit or a cut, at many places: a file that is damaged where it matters is refused and left as it is;
/// one that is taken answers as before.
#[tokio::test]
async fn damage_is_found_when_the_file_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (account, first, value) = account_and_token();
    let store = EmbeddedStore::open(&path, None, Clock::system()).unwrap();
    assert!(store.create_account(&account, &first, &value, &a_note()).await.unwrap());
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let (mut refused, mut taken) = (0, 0);
    // The head of the file, and wherever something is written.
    let dense = (1..1024).step_by(3);
    let written = good.chunks(64).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
    let places: Vec<_> = dense.chain(written.map(|(n, _)| n * 64 + n % 64)).collect();
    for (n, at) in places.into_iter().enumerate() {
        let mut bytes = good.clone();
        if n % 5 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (n % 8);
        }
        std::fs::write(&path, &bytes).unwrap();
        match EmbeddedStore::open(&path, None, Clock::system()) {
            Ok(store) => {
                assert_eq!(store.find_token(&value.digest()).await.unwrap(), Some(first.clone()), "at {at}");
                taken += 1;
            }
            Err(OpenError::Damaged { .. }) => {
                assert!(std::fs::read(&path).unwrap() == bytes, "refused and changed, at {at}");
                refused += 1;
            }
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(refused > 100 && taken > 0, "{refused} refused, {taken} taken");
}
