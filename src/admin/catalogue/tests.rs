use jiff::SignedDuration;

use super::*;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{PerPool, Policy, Pool, Token};
use crate::store::Written;
use crate::store::embedded::{Clock, EmbeddedStore};

struct World {
    store: Arc<dyn Store>,
    account: AccountId,
    made: u64,
    _folder: tempfile::TempDir,
}

fn account(name: &str) -> AccountId {
    AccountId::parse(name).unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("store"), None, Clock::system()).unwrap();
        let mut world = Self { store: Arc::new(store), account: account("shop"), made: 0, _folder: folder };
        for name in ["shop", "other"] {
            let account = Account {
                id: account(name),
                created_at: Timestamp::UNIX_EPOCH,
                budget: PerPool::default(),
                pay_as_you_go: PayAsYouGo::default(),
                version: 1,
            };
            let (policy, value) = world.next(TokenKind::Secret, &account.id);
            assert!(world.store.create_account(&account, &policy, &value).await.unwrap());
        }
        world
    }

    fn next(&mut self, kind: TokenKind, account: &AccountId) -> (Policy, Token) {
        self.made += 1;
        let id = TokenId::from_ulid(ulid::Ulid::from_parts(self.made, 0));
        let value = Token::from_random(kind, u128::from(self.made).to_be_bytes());
        (Policy::new(id, account.clone(), kind, Timestamp::UNIX_EPOCH), value)
    }

    async fn make(&mut self, account: &AccountId, nickname: &str) -> TokenId {
        let (mut policy, value) = self.next(TokenKind::Publishable, account);
        nickname.clone_into(&mut policy.nickname);
        self.store.create_token(&policy, &value).await.unwrap();
        policy.id
    }

    async fn edit(&self, account: &AccountId, id: &TokenId, edit: impl FnOnce(&mut Policy)) {
        let mut policy = self.store.get_token(account, id).await.unwrap().unwrap().policy;
        edit(&mut policy);
        assert!(matches!(self.store.put_policy(&policy).await.unwrap(), Written::Done { .. }));
    }

    async fn edit_account(&self, id: &AccountId) {
        let account = self.store.get_account(id).await.unwrap().unwrap();
        assert!(matches!(self.store.put_account(&account).await.unwrap(), Written::Done { .. }));
    }

    fn catalogue(&self, most: usize) -> Catalogue {
        Catalogue::new(Arc::clone(&self.store), self.account.clone(), most)
    }
}

fn wanted(q: &str) -> Wanted {
    let words = q.to_lowercase().split_whitespace().map(str::to_owned).collect();
    Wanted { words, state: None, kind: None, now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1) }
}

const ALL_OF_IT: Part = Part { after: None, offset: 0, limit: 1000 };

async fn ids(catalogue: &Catalogue, wanted: &Wanted) -> Vec<TokenId> {
    let found = catalogue.search(wanted, &ALL_OF_IT).await.unwrap();
    assert_eq!((found.total, found.more), (found.ids.len(), false));
    found.ids
}

/// Whether the catalogue has read no more than it had to.
async fn loaded_once(catalogue: &Catalogue) -> bool {
    let inner = catalogue.inner.lock().await;
    matches!(&inner.memory, Memory::All(all) if all.tokens.len() < 1000)
}

#[tokio::test]
async fn finds_by_every_word_whatever_the_case() {
    let mut world = World::new().await;
    let shop = world.account.clone();
    let cars = world.make(&shop, "Cars of the Über Shop").await;
    let boats = world.make(&shop, "boats of the shop").await;
    let first = TokenId::from_ulid(ulid::Ulid::from_parts(1, 0));
    let value = Token::from_random(TokenKind::Publishable, 3_u128.to_be_bytes());
    for most in [MOST, 2] {
        let catalogue = world.catalogue(most);
        let table: [(&str, &[&TokenId]); 9] = [
            ("", &[&first, &cars, &boats]),
            ("shop", &[&cars, &boats]),
            ("SHOP ÜBER", &[&cars]),
            ("of  boats", &[&boats]),
            ("cars boats", &[]),
            ("of the", &[&cars, &boats]),
            (cars.as_str(), &[&cars]),
            (value.expose(), &[&cars]),
            ("tok_ pk_", &[&cars, &boats]),
        ];
        for (q, expected) in table {
            assert_eq!(ids(&catalogue, &wanted(q)).await.iter().collect::<Vec<_>>(), expected, "{most} {q}");
        }
    }
}

#[tokio::test]
async fn filters_by_what_a_token_is_at_that_time() {
    let mut world = World::new().await;
    let shop = world.account.clone();
    let first = TokenId::from_ulid(ulid::Ulid::from_parts(1, 0));
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(world.make(&shop, "").await);
    }
    let [active, disabled, revoked, over, later, both] = &made[..] else { panic!() };
    let hour = |hours| Some(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours));
    world.edit(&shop, disabled, |policy| policy.status = Status::Disabled).await;
    world.edit(&shop, revoked, |policy| policy.status = Status::Revoked).await;
    world.edit(&shop, over, |policy| policy.expires_at = hour(1)).await;
    world.edit(&shop, later, |policy| policy.expires_at = hour(2)).await;
    let edit = |policy: &mut Policy| (policy.status, policy.expires_at) = (Status::Disabled, hour(1));
    world.edit(&shop, both, edit).await;
    for most in [MOST, 2] {
        let catalogue = world.catalogue(most);
        let table: [(Option<State>, Option<TokenKind>, &[&TokenId]); 7] = [
            (Some(State::Active), None, &[&first, active, later]),
            (Some(State::Active), Some(TokenKind::Publishable), &[active, later]),
            (None, Some(TokenKind::Secret), &[&first]),
            (Some(State::Disabled), None, &[disabled, both]),
            (Some(State::Revoked), None, &[revoked]),
            (Some(State::Expired), None, &[over]),
            (Some(State::Expired), Some(TokenKind::Secret), &[]),
        ];
        for (state, kind, expected) in table {
            let wanted = Wanted { state, kind, ..wanted("") };
            assert_eq!(
                ids(&catalogue, &wanted).await.iter().collect::<Vec<_>>(),
                expected,
                "{state:?} {kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn tells_parts_of_what_it_finds() {
    let mut world = World::new().await;
    let shop = world.account.clone();
    let mut made = Vec::new();
    for at in 0..10 {
        made.push(world.make(&shop, if at % 2 == 0 { "even" } else { "odd" }).await);
    }
    let odd: Vec<_> = made.iter().skip(1).step_by(2).cloned().collect();
    // (behind which, skipped, at most, which of the odd ones, whether there are more)
    let table = [
        (None, 0, 5, 0..5, false),
        (None, 0, 2, 0..2, true),
        (None, 2, 2, 2..4, true),
        (None, 3, 2, 3..5, false),
        (None, 5, 2, 5..5, false),
        (None, usize::MAX, 2, 5..5, false),
        (Some(&odd[1]), 0, 2, 2..4, true),
        (Some(&made[4]), 0, 9, 2..5, false),
        (Some(&odd[4]), 0, 9, 5..5, false),
    ];
    for most in [MOST, 2] {
        let catalogue = world.catalogue(most);
        for (after, offset, limit, told, more) in table.clone() {
            let part = Part { after: after.cloned(), offset, limit };
            let found = catalogue.search(&wanted("odd"), &part).await.unwrap();
            assert_eq!(found, Found { total: 5, ids: odd[told].to_vec(), more }, "{part:?}");
        }
    }
}

#[tokio::test]
async fn every_change_shows_in_the_next_answer() {
    let mut world = World::new().await;
    let (shop, other) = (world.account.clone(), account("other"));
    let catalogue = world.catalogue(MOST);
    assert_eq!(ids(&catalogue, &wanted("car")).await, []);
    let id = world.make(&shop, "Car").await;
    let strange = world.make(&other, "Car").await;
    assert_eq!(ids(&catalogue, &wanted("car")).await, std::slice::from_ref(&id));
    for round in 0..20 {
        // Changes of others, and of the account itself, are in between.
        world.edit_account(&shop).await;
        world.edit(&other, &strange, |policy| policy.nickname = format!("Car {round}")).await;
        world.edit_account(&other).await;
        world.edit(&shop, &id, |policy| policy.nickname = format!("Ship {round}")).await;
        assert_eq!(ids(&catalogue, &wanted("car")).await, [], "{round}");
        world.store.recall(&shop, None, Pool::Core).await.unwrap();
        world.edit(&shop, &id, |policy| policy.nickname = format!("Car {round}")).await;
        assert_eq!(
            ids(&catalogue, &wanted(&format!("car {round}"))).await,
            std::slice::from_ref(&id),
            "{round}"
        );
    }
    assert!(loaded_once(&catalogue).await);
    let value = Token::from_random(TokenKind::Publishable, [7; 16]);
    let stored = world.store.get_token(&shop, &id).await.unwrap().unwrap();
    let rotated = world.store.rotate_token(&shop, &id, stored.policy.version, &value, Duration::ZERO);
    assert!(matches!(rotated.await.unwrap(), Written::Done { .. }));
    assert_eq!(ids(&catalogue, &wanted(value.expose())).await, [id]);
}

#[tokio::test]
async fn more_events_than_can_wait_are_made_up_for() {
    let mut world = World::new().await;
    let shop = world.account.clone();
    let id = world.make(&shop, "Car").await;
    let catalogue = world.catalogue(MOST);
    assert_eq!(ids(&catalogue, &wanted("car")).await, std::slice::from_ref(&id));
    world.edit(&shop, &id, |policy| policy.nickname = "Ship".to_owned()).await;
    for _ in 0..5000 {
        world.store.recall(&shop, None, Pool::Core).await.unwrap();
    }
    assert_eq!(ids(&catalogue, &wanted("car")).await, []);
    assert_eq!(ids(&catalogue, &wanted("ship")).await, [id]);
}

#[tokio::test]
async fn an_event_of_another_account_does_not_stand_for_one_that_is_missing() {
    let mut world = World::new().await;
    let shop = world.account.clone();
    let id = world.make(&shop, "Car").await;
    let catalogue = world.catalogue(MOST);
    assert_eq!(ids(&catalogue, &wanted("car")).await, std::slice::from_ref(&id));
    let epoch = world.store.epoch(&shop).await.unwrap();
    world.edit(&shop, &id, |policy| policy.nickname = "Ship".to_owned()).await;
    {
        // The event is lost; one of another account, with the same epoch, is not.
        let (events, stolen) = tokio::sync::broadcast::channel(8);
        let strange = TokenId::from_ulid(ulid::Ulid::from_parts(2, 0));
        events.send(Event::Policy { token: strange, version: 2, epoch: epoch + 1 }).unwrap();
        events.send(Event::Account { epoch: epoch + 1 }).unwrap();
        catalogue.inner.lock().await.events = stolen;
        assert_eq!(ids(&catalogue, &wanted("car")).await, []);
        assert_eq!(ids(&catalogue, &wanted("ship")).await, [id]);
    }
}
