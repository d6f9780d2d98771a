//! What is read from a snapshot of the file.

use jiff::Timestamp;
use redb::ReadTransaction;

use super::super::keys::parse_pointer;
use super::super::record::{TokenRecord, parse_account, token_name};
use super::Listed;
use super::tables::{
    ACCOUNTS, DIGESTS, Stopped, TOKENS, USED, parse_fields, read_counter, read_fields, token_range,
    unreadable,
};
use crate::ledger::Counter;
use crate::policy::record::Account;
use crate::policy::{AccountId, PerPool, Policy, Pool, TokenDigest, TokenId};

/// A snapshot.
pub(super) struct Reads(pub(super) ReadTransaction);

impl Reads {
    pub(super) fn find_token(&self, digest: &TokenDigest, now: Timestamp) -> Result<Option<Policy>, Stopped> {
        let digests = self.0.open_table(DIGESTS)?;
        let Some(pointer) = digests.get(digest.to_hex().as_str())? else { return Ok(None) };
        let (account, id) = parse_pointer(pointer.value())
            .ok_or_else(|| unreadable("of a digest", &"the pointer names no token"))?;
        let record = self.token(&account, &id)?;
        Ok(record.filter(|record| record.answers_to(digest, now)).map(|record| record.policy))
    }

    pub(super) fn token(&self, account: &AccountId, id: &TokenId) -> Result<Option<TokenRecord>, Stopped> {
        let name = token_name(account, id);
        let Some(fields) = read_fields(&self.0.open_table(TOKENS)?, &name)? else { return Ok(None) };
        let record = TokenRecord::parse(&fields, account, id);
        record.map(Some).map_err(|problem| unreadable(&name, &problem).into())
    }

    pub(super) fn list_tokens(
        &self,
        account: &AccountId,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<Vec<Listed>, Stopped> {
        let tokens = self.0.open_table(TOKENS)?;
        let (start, end) = token_range(account, after);
        let mut listed = Vec::new();
        for entry in tokens.range(start.as_str()..end.as_str())?.take(limit) {
            let (name, text) = entry?;
            let id = name.value().split_once('/').and_then(|(_, id)| TokenId::parse(id));
            let Some(id) = id else { continue };
            let record =
                parse_fields(text.value()).and_then(|fields| TokenRecord::parse(&fields, account, &id));
            listed.push(match record {
                Ok(record) => Listed::Token(Box::new(record.into_stored())),
                Err(problem) => Listed::Unreadable { id, why: problem.to_string() },
            });
        }
        Ok(listed)
    }

    pub(super) fn account(&self, id: &AccountId) -> Result<Option<Account>, Stopped> {
        let Some(fields) = read_fields(&self.0.open_table(ACCOUNTS)?, id.as_str())? else { return Ok(None) };
        parse_account(&fields, id).map(Some).map_err(|problem| unreadable(id.as_str(), &problem).into())
    }

    pub(super) fn usage(&self, key: impl Fn(Pool) -> String) -> Result<PerPool<Counter>, Stopped> {
        let used = self.0.open_table(USED)?;
        Ok(PerPool {
            core: read_counter(&used, &key(Pool::Core))?,
            premium: read_counter(&used, &key(Pool::Premium))?,
        })
    }
}
