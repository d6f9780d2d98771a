//! The name of every key that Tollgate keeps in Redis. No other place makes one.
//!
//! `P` is the store's prefix (`tg:` unless told), `A` an account's name, `I` a token's id. All keys of one account
//! share the Redis Cluster hash tag `{A}`, so that token and account move in one script (`ledger.md`). Pointers are
//! found by a digest before the account is known, so they cannot share it. Used signatures take no part in any step with
//! other keys, and there may be many, so each second has a hash tag of its own: a busy account's memory of them spreads
//! over all nodes of a cluster, while those that come in together still go in one call. No account has a dot in its name. What happens is published on the channel
//! `P{A}:events`; a user of the server's access control needs leave for the pattern `P{*}:events`.
//!
//! | key | type | holds | lives |
//! | --- | --- | --- | --- |
//! | `P{A}:account` | hash | the account's record ([`super::record`]) | for ever |
//! | `P{A}:token:I` | hash | a token's record ([`super::record`]) | for ever |
//! | `P{A}:tokens` | sorted set | the ids of all tokens, each with score 0: in order of their text, which is by age | for ever |
//! | `P{A}:secrets` | set | the ids of the secret tokens among them, and `complete` once all are there | for ever |
//! | `P{A}:used:I:POOL` | hash | what a token used: for `hour`, `day`, `month`, `ever` the `_start` (s since the epoch), `_used` and `_leased` (credits); `stranded` (credits) | for ever |
//! | `P{A}:used:POOL` | hash | the same for the account | for ever |
//! | `P{A}:pace:I` | string | a token's throttle: its theoretical arrival time, µs since the epoch | until it says nothing any more |
//! | `P{A}:lease:ULID` | string | a lease (`leases.lua`) | while it is open; stranded: `lease.reclaim_window`; settled: minutes |
//! | `P{A}:leases` | sorted set | the ids of the open leases, by when they expire (µs) | for ever |
//! | `P{A}:epoch` | string | how often a policy, a value or the account was changed | for ever |
//! | `P{A}:trail` | stream | the trail ([`super::trail`]): `at` (µs since the epoch), `note` (JSON). It is only ever added to | for ever |
//! | `P{A}:trail:X` | sorted set | which entries of the trail are about `X`: their ids, in a form that sorts (`trail.lua`), all with score 0 | for ever |
//! | `P{A}:members` | hash | by id: a member as JSON ([`super::people`]) | for ever |
//! | `P{A}:session:HEX` | string | the session in the console whose cookie has this SHA-256: when it ends (µs), `\|`, who it is of as JSON | until it ends |
//! | `P{A}:nodes` | hash | by node: `epoch\|seen at (µs)\|leased\|life (µs)\|name` | for ever; who is dead is dropped |
//! | `P{A}:cells:I:yyyymmdd` | hash | a token's usage of a day: `HH\|pool\|operation\|dataset` has `requests credits bytes` | as long as usage is kept |
//! | `P{A}:refusals:I:yyyymmdd` | hash | a token's refusals of a day: `HH\|code` has how many; `-` for `I`: nobody's | as long as usage is kept |
//! | `P{A}:seen` | hash | by token: when it was last charged (`I`) and last refused (`I\|refused`), s since the epoch; absent: before that was kept, or never | for ever |
//! | `P{A}:sums:hours:yyyymmdd` | hash | all tokens' usage of a day: `HH\|pool\|operation\|dataset` has `requests credits bytes`, `HH\|refused\|code` how many | as long as usage is kept |
//! | `P{A}:sums:day:yyyymmdd` | hash | the same by day: `pool\|operation`, `refused\|code`; `complete` if there were no cells before there were sums | as long as usage is kept |
//! | `P{A}:sums:tokens:yyyymmdd`, `P{A}:sums:datasets:yyyymmdd` | hash | `pool\|I`, `pool\|dataset` | as long as usage is kept |
//! | `P{A}:sums:tokens:yyyymm`, `P{A}:sums:datasets:yyyymm` | hash | the same by month; `complete` has 1 if there were no cells of that month before there were sums | as long as usage of its last day is kept |
//! | `P{A}:active:yyyymmdd` | set | the `I` with usage or refusals on that day | as long as usage is kept |
//! | `P{A}:batch:ULID` | string | says that a batch of refusals is counted | 1 h |
//! | `P{A.SECOND}:signatures` | hash | signatures of that second (since the epoch) that were used: their fingerprints have the nonces of their uses; `until` has the time of its end (µs) | as long as one of them could be used again |
//! | `Pdigest:HEX` | string | `A/I`: whose value has this SHA-256. A hint only: the record decides if the digest is good | with its token; a former value's as long as its grace |

use crate::policy::{AccountId, Pool, TokenDigest, TokenId};

use super::LeaseId;
use super::people::SessionDigest;
use super::sums::Names;
use super::usage::{day_name, month_name};

/// The prefix of all keys where none is given.
pub const DEFAULT_PREFIX: &str = "tg:";

/// Makes the key names of one store.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(DEFAULT_PREFIX)
    }
}

impl Keys {
    /// Keys with this prefix. Braces in it would set the hash tag, so it must have none.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.replace(['{', '}'], "") }
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn of(&self, account: &AccountId, rest: &str) -> String {
        format!("{}{{{account}}}:{rest}", self.prefix)
    }

    /// The account's record.
    pub fn account(&self, account: &AccountId) -> String {
        self.of(account, "account")
    }

    /// A token's record.
    pub fn token(&self, account: &AccountId, id: &TokenId) -> String {
        self.of(account, &format!("token:{id}"))
    }

    /// The ids of all tokens of an account.
    pub fn tokens(&self, account: &AccountId) -> String {
        self.of(account, "tokens")
    }

    /// The ids of the secret tokens of an account.
    pub fn secrets(&self, account: &AccountId) -> String {
        self.of(account, "secrets")
    }

    /// The used signatures of one second.
    pub fn signatures(&self, account: &AccountId, second: i64) -> String {
        format!("{}{{{account}.{second}}}:signatures", self.prefix)
    }

    /// What a token used of a pool.
    pub fn used_by_token(&self, account: &AccountId, id: &TokenId, pool: Pool) -> String {
        self.of(account, &format!("used:{id}:{}", pool.as_str()))
    }

    /// What an account used of a pool.
    pub fn used_by_account(&self, account: &AccountId, pool: Pool) -> String {
        self.of(account, &format!("used:{}", pool.as_str()))
    }

    /// A token's throttle.
    pub fn pace(&self, account: &AccountId, id: &TokenId) -> String {
        self.of(account, &format!("pace:{id}"))
    }

    /// A lease.
    pub fn lease(&self, account: &AccountId, lease: LeaseId) -> String {
        self.of(account, &format!("lease:{}", lease.0))
    }

    /// The open leases of an account.
    pub fn leases(&self, account: &AccountId) -> String {
        self.of(account, "leases")
    }

    /// An account's epoch.
    pub fn epoch(&self, account: &AccountId) -> String {
        self.of(account, "epoch")
    }

    /// The trail of an account.
    pub fn trail(&self, account: &AccountId) -> String {
        self.of(account, "trail")
    }

    /// Which entries of the trail are about this.
    pub fn trail_of(&self, account: &AccountId, target: &str) -> String {
        self.of(account, &format!("trail:{target}"))
    }

    /// The members of an account.
    pub fn members(&self, account: &AccountId) -> String {
        self.of(account, "members")
    }

    /// A session in the console.
    pub fn session(&self, account: &AccountId, digest: &SessionDigest) -> String {
        self.of(account, &format!("session:{}", hex::encode(digest.0)))
    }

    /// The nodes that serve an account.
    pub fn nodes(&self, account: &AccountId) -> String {
        self.of(account, "nodes")
    }

    /// A token's usage of one day, named by when it began.
    pub fn cells(&self, account: &AccountId, token: &str, day: i64) -> String {
        self.of(account, &format!("cells:{token}:{}", day_name(day)))
    }

    /// A token's refusals of one day; `-`'s: those of no token that is known.
    pub fn refusals(&self, account: &AccountId, token: &str, day: i64) -> String {
        self.of(account, &format!("refusals:{token}:{}", day_name(day)))
    }

    /// Whose usage or refusals there are on a day.
    pub fn active(&self, account: &AccountId, day: i64) -> String {
        self.of(account, &format!("active:{}", day_name(day)))
    }

    /// When tokens were last seen.
    pub fn seen(&self, account: &AccountId) -> String {
        self.of(account, "seen")
    }

    /// All tokens' usage and refusals of a day, by hour.
    pub fn sums_by_hour(&self, account: &AccountId, day: i64) -> String {
        self.of(account, &format!("sums:hours:{}", day_name(day)))
    }

    /// All tokens' usage and refusals of a day.
    pub fn sums_of_day(&self, account: &AccountId, day: i64) -> String {
        self.of(account, &format!("sums:day:{}", day_name(day)))
    }

    /// A day's usage by token or by data set.
    pub(super) fn sums_by_name(&self, account: &AccountId, names: Names, day: i64) -> String {
        self.of(account, &format!("sums:{}:{}", names.as_str(), day_name(day)))
    }

    /// The usage by token or by data set of the month around a day.
    pub(super) fn sums_of_month(&self, account: &AccountId, names: Names, day: i64) -> String {
        self.of(account, &format!("sums:{}:{}", names.as_str(), month_name(day)))
    }

    /// The mark of refusals that are counted.
    pub fn batch(&self, account: &AccountId, batch: LeaseId) -> String {
        self.of(account, &format!("batch:{}", batch.0))
    }

    /// The channel on which is told what happens to an account.
    pub fn events(&self, account: &AccountId) -> String {
        self.of(account, "events")
    }

    /// The pattern of all such channels.
    pub fn all_events(&self) -> String {
        let mut pattern = String::new();
        for letter in self.prefix.chars() {
            if matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        pattern + "{*}:events"
    }

    /// Whose value has this digest.
    pub fn pointer(&self, digest: &TokenDigest) -> String {
        format!("{}digest:{}", self.prefix, digest.to_hex())
    }
}

/// What a pointer holds.
pub(super) fn pointer_text(account: &AccountId, id: &TokenId) -> String {
    format!("{account}/{id}")
}

/// Reads what a pointer holds.
pub(super) fn parse_pointer(text: &str) -> Option<(AccountId, TokenId)> {
    let (account, id) = text.split_once('/')?;
    Some((AccountId::parse(account)?, TokenId::parse(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Token;
    use crate::policy::TokenKind;

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::default();
        let account = AccountId::default_account();
        let id = TokenId::parse("tok_01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
        let lease = LeaseId(ulid::Ulid::from_string("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap());
        let digest = Token::from_random(TokenKind::Secret, [0; 16]).digest();
        let table = [
            (keys.account(&account), "tg:{default}:account".to_owned()),
            (keys.token(&account, &id), format!("tg:{{default}}:token:{id}")),
            (keys.tokens(&account), "tg:{default}:tokens".to_owned()),
            (keys.secrets(&account), "tg:{default}:secrets".to_owned()),
            (keys.signatures(&account, 1_705_321_845), "tg:{default.1705321845}:signatures".to_owned()),
            (keys.used_by_token(&account, &id, Pool::Core), format!("tg:{{default}}:used:{id}:core")),
            (keys.used_by_account(&account, Pool::Premium), "tg:{default}:used:premium".to_owned()),
            (keys.pace(&account, &id), format!("tg:{{default}}:pace:{id}")),
            (keys.lease(&account, lease), "tg:{default}:lease:01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()),
            (keys.leases(&account), "tg:{default}:leases".to_owned()),
            (keys.epoch(&account), "tg:{default}:epoch".to_owned()),
            (keys.trail(&account), "tg:{default}:trail".to_owned()),
            (keys.trail_of(&account, id.as_str()), format!("tg:{{default}}:trail:{id}")),
            (keys.members(&account), "tg:{default}:members".to_owned()),
            (
                keys.session(&account, &SessionDigest([0xab; 32])),
                format!("tg:{{default}}:session:{}", "ab".repeat(32)),
            ),
            (keys.nodes(&account), "tg:{default}:nodes".to_owned()),
            (keys.cells(&account, id.as_str(), 86_400), format!("tg:{{default}}:cells:{id}:19700102")),
            (keys.refusals(&account, "-", 0), "tg:{default}:refusals:-:19700101".to_owned()),
            (keys.active(&account, 0), "tg:{default}:active:19700101".to_owned()),
            (keys.seen(&account), "tg:{default}:seen".to_owned()),
            (keys.sums_by_hour(&account, 0), "tg:{default}:sums:hours:19700101".to_owned()),
            (keys.sums_of_day(&account, 0), "tg:{default}:sums:day:19700101".to_owned()),
            (keys.sums_by_name(&account, Names::Tokens, 0), "tg:{default}:sums:tokens:19700101".to_owned()),
            (
                keys.sums_of_month(&account, Names::Datasets, 0),
                "tg:{default}:sums:datasets:197001".to_owned(),
            ),
            (keys.batch(&account, lease), "tg:{default}:batch:01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()),
            (keys.events(&account), "tg:{default}:events".to_owned()),
            (keys.all_events(), "tg:{*}:events".to_owned()),
            (keys.pointer(&digest), format!("tg:digest:{}", digest.to_hex())),
        ];
        for (made, documented) in table {
            assert_eq!(made, documented);
        }
        assert_eq!(Keys::new("a{b}:").account(&account), "ab:{default}:account");
        assert_eq!(Keys::new("a*[b]:").all_events(), "a\\*\\[b\\]:{*}:events");
    }

    #[test]
    fn pointers_read_back() {
        let account = AccountId::parse("acme").unwrap();
        let id = TokenId::from_ulid(ulid::Ulid(7));
        assert_eq!(parse_pointer(&pointer_text(&account, &id)), Some((account, id)));
        for text in ["", "/", "acme", "acme/", "acme/tok_x", "Acme/tok_00000000000000000000000007"] {
            assert_eq!(parse_pointer(text), None, "{text}");
        }
    }
}
