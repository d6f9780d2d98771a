//! What of the store's room reads what a store gives back. The types below stand in for `store.rs` itself, which knows
//! every store there is.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, Policy, Token, TokenId};

pub mod people;
mod record;
pub mod seal;

pub struct StoredToken {
    pub policy: Policy,
    pub value: KeptValue,
}

pub enum KeptValue {
    Clear(Token),
    Sealed,
}

pub struct AccountSecret {
    pub token_id: TokenId,
    pub secret: SigningSecret,
    pub until: Option<Timestamp>,
}

#[derive(Default)]
pub struct AccountSecrets {
    pub secrets: Vec<AccountSecret>,
    pub unopened: Vec<(TokenId, seal::SealError)>,
}

/// Raw fields of a record.
pub type RawFields = BTreeMap<String, String>;

/// A token's record read and written again, if it can be read; and what it lets through.
pub fn token_record(fields: &RawFields, account: &AccountId, id: &TokenId) -> Option<(RawFields, Policy)> {
    let record = record::TokenRecord::parse(fields, account, id).ok()?;
    Some((record.to_fields(), record.policy))
}

/// An account's record read and written again, if it can be read.
pub fn account_record(fields: &RawFields, account: &AccountId) -> Option<RawFields> {
    record::parse_account(fields, account).ok().map(|account| record::account_fields(&account))
}

/// A member's text read and written again, if it can be read.
pub fn member_text(id: &str, text: &[u8]) -> Option<(String, u64)> {
    people::Member::parse(id, text).ok().map(|member| (member.to_text(member.version), member.version))
}

/// A session's text read and written again, if it can be read.
pub fn session_text(text: &str) -> Option<String> {
    people::text::Head::parse(text);
    people::Session::parse(text).map(|session| session.to_text())
}

pub mod redis {
    pub mod topology {
        use std::collections::BTreeSet;

        use redis::Value;

        pub(super) mod slots;

        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct Place {
            pub host: String,
            pub port: u16,
        }

        fn distinct(places: impl IntoIterator<Item = Place>) -> Vec<Place> {
            let mut seen = BTreeSet::new();
            places.into_iter().filter(|place| seen.insert(place.clone())).collect()
        }

        /// Takes an answer in as one to `CLUSTER SLOTS`: who keeps each of some slots afterwards.
        pub fn learn(answer: &Value, slots: &[u16]) -> Option<Vec<Option<Place>>> {
            let cluster = slots::Cluster::new(&[]);
            cluster.learn_all("asked.test", answer)?;
            cluster.next_master();
            Some(slots.iter().map(|slot| cluster.known(*slot)).collect())
        }

        /// Takes an error in as a redirection: where to.
        pub fn redirected(error: &redis::RedisError) -> Option<Place> {
            let told_by = Place { host: "teller.test".to_owned(), port: 1 };
            match slots::redirect(error, Some(&told_by))? {
                slots::Redirect::Moved(_, place) | slots::Redirect::Ask(place) => Some(place),
                slots::Redirect::Later => None,
            }
        }
    }
}
